"""Figures of one matrix in all networks: its spectrum, and the sizes of its weights."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeAlias

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell.figures.axes import Figure, axis, figure, log_axis
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.null import marchenko_pastur_survival
from tailor.shell.figures.palette import MUTED, Colours
from tailor.shell.figures.traces import Trace, bare, line
from tailor.stages.analyze import Histogram, LayerAnalysis

Layers: TypeAlias = Sequence[tuple[str, LayerAnalysis]]  # one matrix, by network

MOST_POINTS = 100  # of one survival function; more cannot be told apart on a screen
NULL_POINTS = 40  # of a smooth curve
DECADES = {"spectrum": 5, "entries": 3}  # of x; what is smaller is left of the axis
FEW = 2  # with more networks, no legend names them, and random matrices are drawn on a click


def spectrum(layers: Layers, colour: Colours) -> Figure:
    """Share of eigenvalues (squared singular values) at or above x, fitted tails and noise."""
    traces: list[Trace] = []
    for network, layer in layers:
        x, share = _eigenvalue_survival(layer)
        fit = layer.spectrum
        total = max(len(layer.singular_values), 1)
        traces += _tail(network, x, share, fit, total, colour[network], drawn=is_of_these(layer))
    if len(layers) > FEW:
        traces = [trace | {"showlegend": False} for trace in traces]
    traces += _noise(layers, colour)
    return _tail_figure(traces, "eigenvalue x", "share of eigenvalues ≥ x", DECADES["spectrum"])


def entries(layers: Layers, colour: Colours) -> Figure:
    """Share of weights whose size is at or above x, with the fitted tail."""
    traces: list[Trace] = []
    for network, layer in layers:
        if layer.survival is None or layer.entries is None:
            continue
        x, share = layer.survival.x, layer.survival.share
        total = layer.rows * layer.columns * layer.matrices
        traces += _tail(network, x, share, layer.entries, total, colour[network])
    made = _tail_figure(
        traces, "size of a weight x = |w|", "share of weights ≥ x", DECADES["entries"]
    )
    made["layout"]["showlegend"] = len(layers) <= FEW
    return made


def histogram(layers: Layers, colour: Colours) -> Figure:
    """Density of the weights of each network; empty bins have no bar."""
    build = _bars if len(layers) <= FEW else _outline
    traces = [
        build(network, layer.histogram, colour[network])
        for network, layer in layers
        if layer.histogram is not None
    ]
    density = [value for trace in traces for value in trace["y"]]
    made = figure(traces, axis("weight w"), log_axis("density of weights", density))
    made["layout"] |= {"barmode": "overlay", "bargap": 0, "showlegend": 1 < len(traces) <= FEW}
    return made


def is_low_rank(layer: LayerAnalysis) -> bool:
    """Whether only a few singular values exist, so that their matrix is no product of weights."""
    return len(layer.singular_values) < layer.matrices * min(layer.rows, layer.columns)


def has_weights(layer: LayerAnalysis) -> bool:
    """Whether its entries are the stored weights: not those of a core or of a transform."""
    entries = layer.rows * layer.columns * layer.matrices
    return not is_low_rank(layer) and entries <= math.prod(layer.shape)


def is_of_these(layer: LayerAnalysis) -> bool:
    """Whether the fit is one of these eigenvalues, and not of those of parts of the matrix."""
    fit = layer.spectrum
    if isinstance(fit, NoFit):
        return False
    above = count_above(layer, fit.xmin * (1 - 1e-9))
    return abs(above - fit.n_tail) <= 1 + 0.02 * fit.n_tail  # one more: see PowerLawFit.n_tail


def count_above(layer: LayerAnalysis, eigenvalue: float) -> int:
    """How many eigenvalues are at least as large."""
    return bisect_right(layer.singular_values, -math.sqrt(eigenvalue), key=lambda value: -value)


# Curves


def _eigenvalue_survival(layer: LayerAnalysis) -> tuple[list[float], list[float]]:
    """Eigenvalues, rising, and the share of all that are at least as large; thinned if many."""
    falling = [value * value for value in layer.singular_values if value > 0]
    total = len(layer.singular_values)
    ranks = _ranks(len(falling))
    return [falling[r - 1] for r in ranks], [r / total for r in ranks]


def _ranks(count: int) -> list[int]:
    """Falling ranks from ``count`` to 1; evenly spread on a log scale if there are many."""
    if count <= MOST_POINTS:
        return list(range(count, 0, -1))
    spread = (round(count ** (i / (MOST_POINTS - 1))) for i in range(MOST_POINTS))
    return sorted(set(spread), reverse=True)


def _tail(
    network: str,
    x: Sequence[float],
    share: Sequence[float],
    fit: PowerLawFit | NoFit,
    total: int,
    ink: str,
    *,
    drawn: bool = True,
) -> list[Trace]:
    """Points of a survival function; if there is a fit of them, its line and a mark at xmin."""
    label = "no fit" if isinstance(fit, NoFit) else f"α = {fit.alpha:.2f}"
    hover = "x = %{x:.4g}: share %{y:.3%}"
    thin = [short(value, 5) for value in x]
    points = line(network, thin, [short(s, 4) for s in share], ink, label=label, hover=hover)
    points |= {"mode": "markers", "legendgroup": network}
    points["marker"] = {"color": ink, "size": 5, "opacity": 1 if isinstance(fit, NoFit) else 0.65}
    del points["line"]
    if isinstance(fit, NoFit) or not drawn:
        return [points]
    at = fit.n_tail / total  # the share of all values that lie in the tail
    end = at * (fit.xmax / fit.xmin) ** (1 - fit.alpha)
    ends = [short(fit.xmin), short(fit.xmax)]
    fitted = bare(line(network, ends, [at, end], ink, label="fitted tail", hover=label))
    xmin = _upright(network, fit.xmin, min(end, *share), ink, "xmin", "dot")
    shared = {"legendgroup": network, "showlegend": False}
    return [points, fitted | shared, xmin | shared]


def _upright(network: str, at: float, low: float, ink: str, label: str, dash: str) -> Trace:
    """A line from the top of the figure down, with its place in words."""
    made = bare(line(network, [short(at)] * 2, [low, 1.0], ink, label=label, dash=dash))
    made["line"]["width"] = 1.5
    made["hovertemplate"] = f"{label} = {at:.4g}<extra>{plain(brief(network))}</extra>"
    return made


def _noise(layers: Layers, colour: Colours) -> list[Trace]:
    """Marchenko & Pastur's law for every network, and the edge of its noise if measured."""
    traces: list[Trace] = []
    shown: bool | str = True if len(layers) <= FEW else "legendonly"
    named: set[str] = set()
    for network, layer in layers:
        ink = MUTED if len(layers) == 1 else colour[network]
        for trace in (*_null(network, layer, ink), *_edge(network, layer, ink)):
            group = trace["meta"].removeprefix(f"{network}, ")
            first = group not in named
            named.add(group)
            more = {"name": group, "legendgroup": group, "showlegend": first, "visible": shown}
            traces.append(trace | more)
    return traces


def _null(network: str, layer: LayerAnalysis, ink: str) -> list[Trace]:
    if is_low_rank(layer) or layer.frobenius_norm == 0:
        return []
    x, share = marchenko_pastur_survival(
        rows=layer.rows,
        columns=layer.columns,
        count=layer.matrices,
        norm=layer.frobenius_norm,
        points=NULL_POINTS,
    )
    falling = [short(value, 4) for value in share.tolist()]
    hover = "independent entries: share %{y:.3%} ≥ %{x:.4g}"
    along = [short(value, 5) for value in x.tolist()]
    made = bare(line(network, along, falling, ink, label="random", hover=hover))
    made["line"] = {"color": ink, "width": 1.5, "dash": "dash"}
    return [made]


def _edge(network: str, layer: LayerAnalysis, ink: str) -> list[Trace]:
    edge = layer.measures.get("tw_edge")
    if not isinstance(edge, float) or edge <= 0:
        return []
    low = 1 / max(len(layer.singular_values), 1)
    return [_upright(network, edge, low, ink, "noise edge", "longdashdot")]


def _tail_figure(traces: Sequence[Trace], x: str, y: str, decades: int) -> Figure:
    """Log-log axes over the upper ``decades`` of what is drawn."""
    drawn = [value for trace in traces for value in trace["x"]] or [1.0]
    kept = [value for value in drawn if value >= max(drawn) / 10**decades]
    shares = [v for trace in traces if trace["mode"] == "markers" for v in trace["y"]] or [1.0]
    return figure(traces, log_axis(x, kept), log_axis(y, [*shares, 1.0]))


def _outline(network: str, bins: Histogram, ink: str) -> Trace:
    """The upper edge of a histogram, where bars would hide each other."""
    bars = _bars(network, bins, ink)
    made = bare(line(network, bars["x"], bars["y"], ink, hover=bars["hovertemplate"]))
    made["line"] = {"color": ink, "width": 1.5, "shape": "hvh"}
    return made | {name: bars[name] for name in ("customdata", "hovertemplate")}


def _bars(network: str, bins: Histogram, ink: str) -> Trace:
    """A histogram as densities."""
    width = (bins.high - bins.low) / len(bins.counts)
    total = max(sum(bins.counts), 1)
    full = [(i, count) for i, count in enumerate(bins.counts) if count]
    hover = "near %{x:.3g}: %{customdata:,} weights<br>density %{y:.3g}"
    name = plain(brief(network))
    return {
        "type": "bar",
        "name": name,
        "meta": network or "density",
        "x": [short(bins.low + (i + 0.5) * width, 5) for i, _ in full],
        "y": [short(count / total / width, 4) for _, count in full],
        "customdata": [count for _, count in full],
        "width": width,
        "marker": {"color": ink, "line": {"width": 0}},
        "opacity": 0.55,
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }
