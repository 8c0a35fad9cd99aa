"""What is said of all matrices at once: failures, verdicts, tests, the odd ones, and means."""

import math
from collections.abc import Mapping, Sequence

from tailor.numerics.powerlaw import PowerLawFit
from tailor.shell.figures.palette import VERDICTS
from tailor.shell.page.networks import Networks
from tailor.shell.page.tables import count, number, table
from tailor.shell.page.text import dimensions, escape, matrices
from tailor.stages.analyze import Analysis, LayerAnalysis
from tailor.stages.analyze.layer import LIKE_NOISE, REJECTED, WELL_TRAINED

WORST = 5  # matrices that are named
MOST_IN_WORDS = 2  # networks; more stand in a table
Anchors = Mapping[str, str]  # of every matrix that has figures, by name

LEGEND = (
    "<p>α describes the spectrum; by itself it says nothing about errors on data. Any sample "
    "gets an exponent, also one without a power law: D says how far the fitted tail is from the "
    "data, 0 is perfect. A verdict is given where the whole 95 % interval lies below "
    f"{WELL_TRAINED[0]:g} (over-trained), between {WELL_TRAINED[0]:g} and {WELL_TRAINED[1]:g} "
    f"(well-trained) or above {WELL_TRAINED[1]:g} (under-trained), the ranges and names of "
    "Martin &amp; Mahoney (2021). Undecided: the interval includes a threshold, there is no fit, "
    "or a test that was asked for speaks against it. An asymptotic interval takes xmin as given "
    "and is somewhat too short.</p>"
)


def failures(shown: Sequence[Analysis], networks: Networks) -> str:
    """Matrices that are broken."""
    items = "".join(
        f"<li><b>{escape(one.name)}</b> ({dimensions(one.shape)}, {escape(one.dtype)})"
        f"{_of(analysis, networks)}: {escape(one.reason)}</li>"
        for analysis in shown
        for one in analysis.failed
    )
    if not items:
        return ""
    total = sum(len(one.failed) for one in shown)
    said = f"{matrices(total)} could not be analyzed; the others are not touched by that."
    return f'<div class="note bad" role="alert"><b>{said}</b><ul>{items}</ul></div>'


def in_words(shown: Sequence[Analysis], networks: Networks, anchors: Anchors) -> list[str]:
    """Every network in a few sentences, if there are few."""
    said: list[str] = []
    if len(shown) > MOST_IN_WORDS:
        return said
    for analysis in shown:
        start = "" if networks.alone else f"{networks.name(analysis.source)}: "
        sentences = [*_exponents(analysis), *_tests(analysis), *_odd(analysis, anchors)]
        said += [start + sentence for sentence in sentences]
    return said


def counts(shown: Sequence[Analysis], networks: Networks) -> str:
    """Fits, verdicts and tests of every network, if there are many networks."""
    if len(shown) <= MOST_IN_WORDS:
        return ""
    rows = []
    for analysis in shown:
        verdicts = [one.verdict for one, _ in _fitted(analysis)]
        p, z = _measured(analysis, "p_value"), _measured(analysis, "null_z")
        cells = [networks.name(analysis.source), count(len(analysis.layers)), count(len(verdicts))]
        cells += [count(verdicts.count(name)) for name in VERDICTS]
        cells.append(count(len(analysis.failed)))
        cells.append(count(sum(value <= REJECTED for value in p)) if p else "–")
        cells.append(count(sum(abs(value) < LIKE_NOISE for value in z)) if z else "–")
        rows.append(cells)
    head = ["network", "matrices", "with a fit", *VERDICTS, "failed", f"p ≤ {REJECTED}"]
    head.append(f"|null_z| < {LIKE_NOISE:g}")
    return table("How many matrices", head, rows)


def summary(shown: Sequence[Analysis], networks: Networks) -> str:
    """Mean, median and tail-weighted mean of every number."""
    rows: dict[str, list[list[str]]] = {}
    for analysis in shown:
        frame = analysis.summary()
        for metric, values in zip(frame.index, frame.to_dict("records"), strict=True):
            name = [] if networks.alone else [networks.name(analysis.source)]
            cells = [count(int(values["matrices"]))]
            cells += [
                number(value) if math.isfinite(value := float(values[column])) else "–"
                for column in ("median", "mean", "tail_weighted_mean", "least", "largest")
            ]
            rows.setdefault(str(metric), []).append([escape(str(metric)), *name, *cells])
    head = ["number", *([] if networks.alone else ["network"]), "matrices", "median", "mean"]
    head += ["mean weighted by tail", "least", "largest"]
    words = (0,) if networks.alone else (0, 1)
    by_metric = [row for found in rows.values() for row in found]
    if not by_metric:
        return ""
    return table("Over all matrices that have the number", head, by_metric, text=words)


def _of(analysis: Analysis, networks: Networks) -> str:
    return "" if networks.alone else f" of {networks.name(analysis.source)}"


def _fitted(analysis: Analysis) -> list[tuple[LayerAnalysis, PowerLawFit]]:
    found = [(one, one.spectrum) for one in analysis.layers]
    return [(one, fit) for one, fit in found if isinstance(fit, PowerLawFit)]


def _exponents(analysis: Analysis) -> list[str]:
    """How many fits, their middle, and verdicts."""
    fits = _fitted(analysis)
    start = f"{len(fits):,} of {matrices(len(analysis.layers))} have a fit of the eigenvalues"
    if not fits:
        return [f"{start}."]
    alphas = sorted(fit.alpha for _, fit in fits)
    weight = sum(fit.n_tail for _, fit in fits)
    mean = sum(fit.alpha * fit.n_tail for _, fit in fits) / weight
    median = (alphas[(len(alphas) - 1) // 2] + alphas[len(alphas) // 2]) / 2
    verdicts = [one.verdict for one, _ in fits]
    counts = [f"{verdicts.count(one):,} {escape(one)}" for one in sorted(set(verdicts))]
    return [
        f"{start}: α has the median {median:.2f} and, weighted by the size of the tail, the mean "
        f"{mean:.2f}. Verdicts: {', '.join(counts)}."
    ]


def _tests(analysis: Analysis) -> list[str]:
    """What p-values and shuffles say, if they were asked for."""
    said = []
    p = _measured(analysis, "p_value")
    rejected = sum(value <= REJECTED for value in p)
    if p:
        said.append(
            f"The power law is rejected (p ≤ {REJECTED}) in {rejected:,} of {matrices(len(p))}; "
            f"if all were true power laws, about {REJECTED * len(p):.0f} would be by chance. "
            "Not being rejected is no proof: short tails carry little evidence."
        )
    z = _measured(analysis, "null_z")
    alike = sum(abs(value) < LIKE_NOISE for value in z)
    if z:
        said.append(
            f"In {alike:,} of {matrices(len(z))} the same weights in random order give an α "
            f"within {LIKE_NOISE:g} standard deviations (|null_z| &lt; {LIKE_NOISE:g}): there α "
            "does not come from how the weights are arranged."
        )
    elif any(one.verdict != "undecided" for one, _ in _fitted(analysis)):
        said.append(
            "No exponent was compared with that of shuffled weights (the measure shuffled): "
            "matrices of independent random weights, too, often get an α in the range called "
            "well-trained."
        )
    return said


def _measured(analysis: Analysis, column: str) -> list[float]:
    values = [one.measures.get(column) for one in analysis.layers]
    return [value for value in values if isinstance(value, float)]


def _odd(analysis: Analysis, anchors: Anchors) -> list[str]:
    """Matrices to look at first, if there are many."""
    fits = _fitted(analysis)
    if len(fits) <= 2 * WORST:
        return []
    largest = sorted(fits, key=lambda pair: -pair[1].alpha)[:WORST]
    named = [f"{_link(one, anchors)}&nbsp;({fit.alpha:.1f})" for one, fit in largest]
    said = [f"Largest α: {', '.join(named)}."]
    least = sorted(fits, key=lambda pair: pair[1].alpha)[:WORST]
    named = [f"{_link(one, anchors)}&nbsp;({fit.alpha:.1f})" for one, fit in least]
    said.append(f"Smallest α: {', '.join(named)}.")
    tested = [(one.measures.get("p_value"), one) for one, _ in fits]
    rejected = [(p, one) for p, one in tested if isinstance(p, float) and p <= REJECTED]
    rejected.sort(key=lambda pair: pair[0])
    named = [f"{_link(one, anchors)}&nbsp;(p = {p:.2f})" for p, one in rejected[:WORST]]
    if named:
        more = f" and {len(rejected) - WORST:,} more" if len(rejected) > WORST else ""
        said.append(f"Power law rejected: {', '.join(named)}{more}.")
    return said


def _link(one: LayerAnalysis, anchors: Anchors) -> str:
    name = escape(one.name)
    return f'<a href="#{anchors[one.name]}">{name}</a>' if one.name in anchors else name
