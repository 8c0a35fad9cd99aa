"""Figures of the stage Analyze: tails of one matrix in all networks, exponents of all matrices."""

from collections.abc import Sequence
from typing import TypeAlias

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell.figures.axes import Figure, axis, figure, log_axis
from tailor.shell.figures.labels import plain, short
from tailor.shell.figures.palette import Colours
from tailor.shell.figures.traces import Trace, line
from tailor.stages.analyze import Analyses, LayerAnalysis

Layers: TypeAlias = Sequence[tuple[str, LayerAnalysis]]  # one matrix, by network

MOST_POINTS = 160  # of one survival function; more cannot be told apart on a screen
DECADES = {"spectrum": 5, "entries": 3}  # of x; what is smaller is left of the axis


def spectrum(layers: Layers, colour: Colours) -> Figure:
    """Share of eigenvalues (squared singular values) at or above x, with the fitted tail."""
    traces: list[Trace] = []
    for network, layer in layers:
        x, share = _eigenvalue_survival(layer)
        total = max(len(layer.singular_values), 1)
        traces += _tail(network, x, share, layer.spectrum, total, colour[network])
    return _tail_figure(traces, "eigenvalue x", "share of eigenvalues ≥ x", DECADES["spectrum"])


def entries(layers: Layers, colour: Colours) -> Figure:
    """Share of weights whose size is at or above x, with the fitted tail."""
    traces: list[Trace] = []
    for network, layer in layers:
        x, share = layer.survival.x, layer.survival.share
        total = layer.rows * layer.columns
        traces += _tail(network, x, share, layer.entries, total, colour[network])
    return _tail_figure(
        traces, "size of a weight x = |w|", "share of weights ≥ x", DECADES["entries"]
    )


def histogram(layers: Layers, colour: Colours) -> Figure:
    """Density of the weights of each network; empty bins have no bar."""
    traces = [_bars(network, layer, colour[network]) for network, layer in layers]
    density = [value for trace in traces for value in trace["y"]]
    made = figure(traces, axis("weight w"), log_axis("density of weights", density))
    made["layout"] |= {"barmode": "overlay", "bargap": 0}
    return made


def exponents(analyses: Analyses, colour: Colours, *, of: str) -> Figure:
    """Exponent and interval of every matrix; ``of`` is ``"spectrum"`` or ``"entries"``."""
    places = {name: i for i, name in enumerate(layer_names(analyses), start=1)}
    traces, top = [], 2.0
    for analysis in analyses.analyses:
        rows = [(places[a.name], a.name, getattr(a, of)) for a in analysis.layers]
        fits = [(i, name, fit) for i, name, fit in rows if isinstance(fit, PowerLawFit)]
        top = max([top, *(fit.alpha for _, _, fit in fits)])
        network, ink = analysis.source, colour[analysis.source]
        traces.append(
            line(network, [i for i, _, _ in fits], [fit.alpha for _, _, fit in fits], ink)
            | {
                "mode": "markers",
                "text": [plain(name) for _, name, _ in fits],
                "hovertemplate": "%{text}: α = %{y:.2f}<extra>" + plain(network) + "</extra>",
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [short(fit.high - fit.alpha) for _, _, fit in fits],
                    "arrayminus": [short(fit.alpha - fit.low) for _, _, fit in fits],
                    "thickness": 1,
                    "width": 0,
                },
            }
        )
    y = axis("exponent α, 95 % interval", range=[1, 1.15 * top])
    return figure(traces, axis("number of the matrix"), y)


def layer_names(analyses: Analyses) -> list[str]:
    """Names of all matrices in the order in which they are met."""
    return list(dict.fromkeys(a.name for one in analyses.analyses for a in one.layers))


# ---- tails and bars -----------------------------------------------------------------------


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
) -> list[Trace]:
    """Points of a survival function; if there is a fit, its line and a mark at xmin."""
    label = "no fit" if isinstance(fit, NoFit) else f"α = {fit.alpha:.2f}"
    hover = "x = %{x:.4g}: share %{y:.3%}"
    points = line(network, [short(value) for value in x], share, ink, label=label, hover=hover)
    points |= {"mode": "markers", "legendgroup": network}
    points["marker"] = {"color": ink, "size": 5, "opacity": 1 if isinstance(fit, NoFit) else 0.65}
    if isinstance(fit, NoFit):
        return [points]
    at = fit.n_tail / total  # the share of all values that lie in the tail
    end = at * (fit.xmax / fit.xmin) ** (1 - fit.alpha)
    ends = [short(fit.xmin), short(fit.xmax)]
    fitted = line(network, ends, [at, end], ink, label="fitted tail", hover=label)
    low = min(end, *share)
    mark = line(network, [ends[0]] * 2, [low, 1.0], ink, label="xmin", dash="dot")
    mark["line"]["width"] = 1.5
    mark["hovertemplate"] = f"xmin = {fit.xmin:.4g}<extra>{plain(network)}</extra>"
    shared = {"legendgroup": network, "showlegend": False}
    return [points, fitted | shared, mark | shared]


def _tail_figure(traces: Sequence[Trace], x: str, y: str, decades: int) -> Figure:
    """Log-log axes over the upper ``decades`` of what is drawn."""
    drawn = [value for trace in traces for value in trace["x"]] or [1.0]
    kept = [value for value in drawn if value >= max(drawn) / 10**decades]
    shares = [v for trace in traces if trace["mode"] == "markers" for v in trace["y"]] or [1.0]
    return figure(traces, log_axis(x, kept), log_axis(y, [*shares, 1.0]))


def _bars(network: str, layer: LayerAnalysis, ink: str) -> Trace:
    """A histogram as densities."""
    bins = layer.histogram
    width = (bins.high - bins.low) / len(bins.counts)
    total = max(sum(bins.counts), 1)
    full = [(i, count) for i, count in enumerate(bins.counts) if count]
    hover = "near %{x:.3f}: %{customdata:,} weights<br>density %{y:.3g}"
    return {
        "type": "bar",
        "name": plain(network),
        "meta": network,
        "x": [short(bins.low + (i + 0.5) * width) for i, _ in full],
        "y": [short(count / total / width) for _, count in full],
        "customdata": [count for _, count in full],
        "width": width,
        "marker": {"color": ink, "line": {"width": 0}},
        "opacity": 0.55,
        "hovertemplate": f"{hover}<extra>{plain(network)}</extra>",
    }
