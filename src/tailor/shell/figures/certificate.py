"""Figures of the certificate: where its bits go, and where the true error can lie."""

from collections.abc import Callable, Sequence
from typing import Any

from tailor.shell.figures.axes import Figure, axis, figure, row_axis
from tailor.shell.figures.labels import percent, percent_up, plain, short
from tailor.shell.figures.palette import INK, MUTED, NETWORKS, PAPER, PARTS
from tailor.shell.figures.traces import Trace
from tailor.stages.certify import Certificate, CodeBits, OccamEvidence, PACBayesEvidence, Proof


def bits(code: CodeBits) -> Figure:
    """Where the bits of the description go, tensor by tensor."""
    split = [(*key.rpartition(": ")[::2], value) for key, value in code.parts.items()]
    kinds = dict.fromkeys(kind for _, kind, _ in split)
    traces = []
    for i, kind in enumerate(kinds):
        mine = [(tensor, value) for tensor, other, value in split if other == kind]
        traces.append(_bar(kind, mine, PARTS[i % len(PARTS)], code.total))
    rest = [("rounding", code.rounding), ("choices", code.choices)]
    traces.append(_bar("outside the tensors", rest, MUTED, code.total))
    names = [*dict.fromkeys(tensor for tensor, _, _ in split), "rounding", "choices"]
    made = figure(traces, axis("bits"), row_axis(names[::-1]))
    made["layout"] |= {"barmode": "stack", "bargap": 0.3}
    return made


def certified(certificate: Certificate) -> Figure:
    """Bounds, errors and guessing on one scale of shares of wrong examples."""
    found = certificate.held_out
    rows = [("majority guess", certificate.majority_error, percent, MUTED, "line-ns")]
    for name, value in other_forms(certificate.evidence):
        rows.append((f"{name} bound", value, percent_up, MUTED, "line-ns"))
    rows.append(("certified bound", certificate.risk_bound, percent_up, INK, "line-ns"))
    traces = [
        _band(name, 0.0, value, ink) for name, value, _, ink, _ in rows if name.endswith("bound")
    ]
    if found is not None:
        rows.append(("held-out error", found.error, percent, NETWORKS[2], "circle"))
        traces.append(_band("held-out error", found.low, found.high, NETWORKS[2]))
    counted = certificate.errors / certificate.n
    rows.append(("counted error", counted, percent, NETWORKS[2], "circle"))
    traces += [
        _mark(*row, right=found.high if found and "held" in row[0] else None) for row in rows
    ]
    names = [name for name, *_ in rows]
    made = figure(
        traces,
        axis("examples wrong (%)", range=[-1, 108]) | {"tickvals": [0, 20, 40, 60, 80, 100]},
        row_axis(names) | {"range": [-0.6, len(names) - 0.4]},
    )
    made["layout"] |= {"showlegend": False, "barmode": "overlay", "bargap": 0.35}
    made["layout"]["shapes"] = [_guess(certificate.majority_error)]
    return made


def other_forms(evidence: Proof) -> list[tuple[str, float]]:
    """Looser bounds from the same numbers, by name."""
    if isinstance(evidence, OccamEvidence):
        return [("Hoeffding", evidence.bounds.hoeffding), ("kl", evidence.bounds.kl)]
    if isinstance(evidence, PACBayesEvidence):
        return [("majority vote", evidence.derandomised), ("Catoni's", evidence.catoni)]
    return []


# ---- bars and marks -----------------------------------------------------------------------


def _bar(name: str, rows: Sequence[tuple[str, float]], ink: str, total: float) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(name),
        "meta": name,
        "y": [plain(tensor) for tensor, _ in rows],
        "x": [short(value) for _, value in rows],
        "customdata": [percent(value / total) for _, value in rows],
        "marker": {"color": ink, "line": {"color": PAPER, "width": 1}},
        "hovertemplate": "%{x:.1f} bits, %{customdata} of all<extra>" + plain(name) + "</extra>",
        "showlegend": name != "outside the tensors",
    }


def _band(row: str, low: float, high: float, ink: str) -> Trace:
    """Where the true error may lie."""
    return {
        "type": "bar",
        "orientation": "h",
        "meta": row,
        "y": [row],
        "x": [short(100 * (high - low))],
        "base": [short(100 * low)],
        "marker": {"color": ink},
        "opacity": 0.22,
        "hoverinfo": "skip",
    }


def _mark(
    row: str,
    value: float,
    show: Callable[[float, int], str],
    ink: str,
    symbol: str,
    right: float | None,
) -> Trace:
    """A mark at the value and, right of its band, the value in words."""
    line = {"width": 4 if symbol == "line-ns" else 1, "color": ink}
    return {
        "type": "scatter",
        "mode": "markers+text",
        "meta": row,
        "y": [row, row],
        "x": [short(100 * value), short(100 * (value if right is None else right))],
        "text": ["", f"\u00a0\u00a0\u00a0{show(value, 1)}\u00a0\u00a0"],
        "textposition": "middle left" if value > 0.8 else "middle right",
        "cliponaxis": False,
        "marker": {
            "symbol": symbol,
            "size": [11, 0],
            "color": ink,
            "line": line,
            "opacity": 1,
        },
        "hovertemplate": f"{row}: {show(value, 2)}<extra></extra>",
    }


def _guess(value: float) -> dict[str, Any]:
    """A dashed line through all rows at the error of a constant guess."""
    return {
        "type": "line",
        "x0": 100 * value,
        "x1": 100 * value,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
    }
