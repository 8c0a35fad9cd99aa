"""Figures of all matrices of a network, in the order of the model."""

from collections.abc import Sequence
from typing import TypeAlias

from tailor.numerics.powerlaw import PowerLawFit
from tailor.shell.figures.axes import Axis, Figure, alpha_axis, axis, figure, log_axis, mark, panels
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.palette import NETWORKS, VERDICTS, Colours
from tailor.shell.figures.scan import THRESHOLDS
from tailor.shell.figures.traces import Trace
from tailor.stages.analyze import LayerAnalysis
from tailor.stages.analyze.record import Value
from tailor.stages.analyze.table import row

Depth: TypeAlias = Sequence[tuple[str, Sequence[LayerAnalysis]]]  # all matrices, by network

FARTHEST = 3.0  # times an exponent: up to there its interval is drawn
SIDE = 0.16  # between marks of two networks for one matrix


def exponents(depth: Depth, colour: Colours, *, of: str = "spectrum") -> Figure:
    """Exponent and interval of every matrix; ``of`` is ``"spectrum"`` or ``"entries"``.

    A mark's shape is its verdict; its colour is the network, or the verdict of the only one.
    """
    traces, tops = [], [7.0]
    for place, (network, layers) in enumerate(depth):
        fits = _fits(_places(depth), place, layers, of)
        tops += [min(fit.high, FARTHEST * fit.alpha) for _, _, fit in fits]
        for verdict, (shade, symbol) in VERDICTS.items() if of == "spectrum" else _ALL.items():
            mine = [one for one in fits if of != "spectrum" or one[1].verdict == verdict]
            if not mine:
                continue
            ink = shade if len(depth) == 1 and of == "spectrum" else colour[network]
            traces.append(_intervals(network, verdict, mine, ink, symbol, alone=len(depth) == 1))
    y = alpha_axis("exponent α, 95 % interval", [min(top, 1000.0) for top in tops])
    made = figure(_one_in_legend(traces, len(depth)), _depth_axis(depth), y)
    if of == "spectrum":
        made["layout"]["shapes"] = [mark(at) for at in THRESHOLDS]
    return made


def norms(depth: Depth, colour: Colours) -> Figure:
    """Stable rank (upper panel) and log norms (lower one) of every matrix."""
    upper: list[Trace] = []
    lower: list[Trace] = []
    places = _places(depth)
    for network, layers in depth:
        rows = [(places[one.name], one.name, row(one)) for one in layers]
        ink = colour[network]
        upper.append(_along(network, "stable rank", rows, "stable_rank", ink, "circle"))
        second = ink if len(depth) > 1 else NETWORKS[1]
        lower.append(_along(network, "log₁₀ ‖W‖²", rows, "log_norm", ink, "circle"))
        name = "log₁₀ λmax"
        lower.append(_along(network, name, rows, "log_spectral_norm", second, "diamond-open"))
    ranks = [value for trace in upper for value in trace["y"]]
    y = (log_axis("stable rank", ranks), axis("log₁₀ of norms"))
    if len(depth) > 1:  # the legend names each network once
        upper = [_named(trace, network) for trace, (network, _) in zip(upper, depth, strict=True)]
        lower = [trace | {"showlegend": False} for trace in lower]
    return panels(upper, lower, _depth_axis(depth), y)


def _places(depth: Depth) -> dict[str, int]:
    """Number of every matrix, in the order in which they are met."""
    names = dict.fromkeys(layer.name for _, layers in depth for layer in layers)
    return {name: i for i, name in enumerate(names, start=1)}


def _depth_axis(depth: Depth) -> Axis:
    count = len(_places(depth))
    return axis("number of the matrix", range=[0.3, count + 0.7]) | (
        {"dtick": 1} if count <= 16 else {}
    )


# Exponents

_Fits: TypeAlias = Sequence[tuple[float, LayerAnalysis, PowerLawFit]]
_ALL = {"": (NETWORKS[0], "circle")}  # the weights have no verdict


def _fits(places: dict[str, int], network: int, layers: Sequence[LayerAnalysis], of: str) -> _Fits:
    """Fits with their places; networks stand side by side."""
    found = [(places[one.name] + SIDE * network, one, getattr(one, of)) for one in layers]
    return [(at, one, fit) for at, one, fit in found if isinstance(fit, PowerLawFit)]


def _intervals(
    network: str, verdict: str, fits: _Fits, ink: str, symbol: str, *, alone: bool
) -> Trace:
    name = plain(verdict if alone and verdict else brief(network))
    said = f"<br>{verdict}" if verdict else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": ", ".join(part for part in (network, verdict) if part),
        "legendgroup": network,
        "x": [short(at) for at, _, _ in fits],
        "y": [short(fit.alpha, 5) for _, _, fit in fits],
        "text": [plain(one.name) for _, one, _ in fits],
        "customdata": [[short(fit.low, 4), short(fit.high, 4)] for _, _, fit in fits],
        "marker": {"color": ink, "size": 8, "symbol": symbol},
        "hovertemplate": "%{text}: α = %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        f"{said}<extra>{plain(brief(network))}</extra>",
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [short(fit.high - fit.alpha, 4) for _, _, fit in fits],
            "arrayminus": [short(fit.alpha - fit.low, 4) for _, _, fit in fits],
            "thickness": 1,
            "width": 0,
        },
    }


def _one_in_legend(traces: Sequence[Trace], networks: int) -> list[Trace]:
    """With several networks, each stands in the legend once, whatever its verdicts."""
    seen: set[str] = set()
    shown = []
    for trace in traces:
        group = trace["legendgroup"]
        if networks == 1:
            shown.append({k: v for k, v in trace.items() if k != "legendgroup"})
        else:
            shown.append(trace | {"showlegend": group not in seen})
        seen.add(group)
    return shown


# Norms


def _named(trace: Trace, network: str) -> Trace:
    return trace | {"name": plain(brief(network))}


def _along(
    network: str,
    what: str,
    rows: Sequence[tuple[int, str, dict[str, Value]]],
    column: str,
    ink: str,
    symbol: str,
) -> Trace:
    found = [(at, name, value) for at, name, r in rows if isinstance(value := r[column], float)]
    if column == "stable_rank":
        found = [one for one in found if one[2] > 0]
    name = ", ".join(part for part in (brief(network), what) if part)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(name),
        "meta": name,
        "x": [at for at, _, _ in found],
        "y": [short(value, 5) for _, _, value in found],
        "text": [plain(matrix) for _, matrix, _ in found],
        "marker": {"color": ink, "size": 6, "symbol": symbol},
        "hovertemplate": f"%{{text}}: {what} %{{y:.3f}}<extra>{plain(brief(network))}</extra>",
    }
