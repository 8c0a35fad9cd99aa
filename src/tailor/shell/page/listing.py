"""The table of all matrices, which the page's script lets a reader sort and filter."""

from collections.abc import Sequence
from typing import NamedTuple

from tailor.shell.page.networks import Networks
from tailor.shell.page.overview import Anchors
from tailor.shell.page.tables import count, number, sortable
from tailor.shell.page.text import dimensions, escape
from tailor.stages.analyze import Analysis, LayerAnalysis
from tailor.stages.analyze.record import Value
from tailor.stages.analyze.table import row


class Column(NamedTuple):
    """A column of numbers.

    Attributes:
        name: As in ``analysis.csv``.
        head: As it is written above it.
        about: What it means.
    """

    name: str
    head: str
    about: str


ALWAYS = (
    Column("D", "D", "distance of the fitted tail from the data"),
    Column("num_pl_spikes", "in tail", "eigenvalues in the fitted tail"),
    Column("num_evals", "of", "eigenvalues in all"),
    Column("xmin", "xmin", "where the tail begins"),
    Column("stable_rank", "stable rank", "sum of the eigenvalues over the largest"),
    Column("log_norm", "log₁₀ ‖W‖²", "logarithm of the sum of the eigenvalues"),
    Column("log_spectral_norm", "log₁₀ λmax", "logarithm of the largest eigenvalue"),
)
MEASURED = (
    Column("p_value", "p_value", "a small one speaks against the power law"),
    Column("null_z", "null_z", "standard deviations from the α of shuffled weights"),
    Column("tw_spikes", "tw_spikes", "eigenvalues above the edge of noise (Tracy-Widom, 95 %)"),
    Column("num_spikes", "num_spikes", "eigenvalues above the fitted Marchenko-Pastur bulk"),
    Column("num_traps", "num_traps", "eigenvalues of shuffled weights above their bulk"),
    Column("rand_distance", "rand_distance", "distance to the spectrum of shuffled weights"),
    Column("pq_index", "pq_index", "0 for equal weights, near 1 for few large ones"),
    Column("stable_index", "stable_index", "tail index of a stable law of the weights"),
    Column("entries_alpha", "α of weights", "exponent of the sizes of the weights"),
    Column("entries_D", "D of weights", "distance of that tail from the data"),
)


def listing(shown: Sequence[Analysis], networks: Networks, anchors: Anchors) -> str:
    """One row for each matrix of each network; a row opens its matrix."""
    found = [(analysis.source, one, row(one)) for analysis in shown for one in analysis.layers]
    if not found:
        return ""
    columns = [*ALWAYS, *(c for c in MEASURED if any(r.get(c.name) is not None for *_, r in found))]
    who = [] if networks.alone else [("network", "")]
    head = [("no.", "order in the model"), ("matrix", ""), *who, ("shape", "")]
    head += [("α", "density exponent of the tail"), ("95 % interval", "of α")]
    head += [("verdict", ""), *((c.head, f"{c.name}: {c.about}") for c in columns)]
    words = [i for i, (name, _) in enumerate(head) if name in _WORDS]
    places: dict[str, int] = {}
    rows = []
    for source, one, values in found:
        place = places.setdefault(one.name, len(places) + 1)
        rows.append(
            [
                count(place),
                _linked(one.name, anchors),
                *([] if networks.alone else [networks.name(source)]),
                dimensions(one.shape),
                *_exponent(values),
                escape(one.verdict),
                *(_cell(values.get(c.name)) for c in columns),
            ]
        )
    verdicts = sorted({one.verdict for _, one, _ in found})
    options = "".join(f"<option>{escape(verdict)}</option>" for verdict in verdicts)
    return (
        '<h3 id="matrices">All matrices</h3><form class="filter" data-filter="listing" hidden>'
        '<label>Name contains <input type="search" name="text" autocomplete="off"></label> '
        f'<label>Verdict <select name="verdict"><option value="">any</option>{options}</select>'
        '</label> <output class="sub"></output></form>'
        + sortable("listing", "A click on a row opens its matrix", head, rows, text=words)
    )


_WORDS = ("matrix", "network", "shape", "95 % interval", "verdict")


def _linked(name: str, anchors: Anchors) -> str:
    shown = escape(name)
    return f'<a href="#{anchors[name]}">{shown}</a>' if name in anchors else shown


def _exponent(values: dict[str, Value]) -> list[str]:
    """The exponent with its interval, or why there is none."""
    if values["alpha"] is None:
        return ["–", f'<span class="sub">{escape(str(values["reason"]))}</span>']
    low, high = values["alpha_ci_low"], values["alpha_ci_high"]
    return [_cell(values["alpha"]), f"[{low:.2f}, {high:.2f}]"]


def _cell(value: Value) -> str:
    match value:
        case None | "":
            return "–"
        case int():
            return count(value)
        case float():
            return number(value)
    return escape(value)


def named_values(one: LayerAnalysis) -> dict[str, Value]:
    """Every number of a matrix by its name in ``analysis.csv``, and what else the record has."""
    fit, entries = one.spectrum, one.entries
    found: dict[str, Value] = row(one)
    found |= {"rows": one.rows, "columns": one.columns, "frobenius_norm": one.frobenius_norm}
    found |= {"values_considered": fit.n, "aliases": ", ".join(one.aliases) or None}
    alpha = found["alpha"]
    found["tail_index"] = alpha - 1 if isinstance(alpha, float) else None
    if entries is not None:
        found |= {"entries_n": entries.n, "entries_xmax": getattr(entries, "xmax", None)}
    return found
