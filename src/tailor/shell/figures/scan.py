"""Figure of one matrix: what exponent and distance would be with another xmin."""

import numpy as np

from tailor.numerics.powerlaw import NoFit, PowerLawFit, distance_curve
from tailor.numerics.spectrum import positive_floor
from tailor.shell.figures.axes import Figure, alpha_axis, axis, log_axis, mark, panels
from tailor.shell.figures.labels import short
from tailor.shell.figures.palette import Colours
from tailor.shell.figures.tail import DECADES, Layers, is_of_these
from tailor.shell.figures.traces import Trace, bare, line
from tailor.stages.analyze import LayerAnalysis
from tailor.stages.analyze.layer import WELL_TRAINED

POINTS = 80  # tails of which the distance is computed
THRESHOLDS = WELL_TRAINED  # of alpha
HIGHEST = 4.0  # times the largest exponent of a fit: where the axis of exponents ends


def scan(layers: Layers, colour: Colours) -> Figure:
    """Exponent (upper panel) and Kolmogorov-Smirnov distance (lower one) against xmin."""
    upper: list[Trace] = []
    lower: list[Trace] = []
    for network, layer in layers:
        curve = distance_curve(np.array(considered(layer)), POINTS)
        kept = slice(int(np.searchsorted(curve.xmin, _least(layer))), None)
        xmin = [short(value, 5) for value in curve.xmin[kept].tolist()]
        alpha = [short(value, 4) for value in curve.alpha[kept].tolist()]
        distance = [short(value, 4) for value in curve.D[kept].tolist()]
        ink = colour[network]
        hover = "xmin %{x:.4g}: α %{y:.3f}"
        upper.append(bare(line(network, xmin, alpha, ink, label="α", hover=hover)))
        hover = "xmin %{x:.4g}: D %{y:.3f}"
        lower.append(bare(line(network, xmin, distance, ink, label="D", hover=hover)))
        if is_of_these(layer) and isinstance(layer.spectrum, PowerLawFit):
            upper.append(_chosen(network, layer.spectrum, layer.spectrum.alpha, ink))
            lower.append(_chosen(network, layer.spectrum, layer.spectrum.D, ink))
    alphas = sorted(value for trace in upper for value in trace["y"])
    starts = [value for trace in lower for value in trace["x"]]
    highest = HIGHEST * max([layer_alpha(layer) for _, layer in layers])
    y = alpha_axis("α", [value for value in alphas if value <= highest])
    named = ("distance D", [value for trace in lower for value in trace["y"]])
    below = axis(named[0], range=[0, short(1.08 * max([0.1, *named[1]]), 3)])
    made = panels(upper, lower, log_axis("xmin", starts), (y, below))
    made["layout"]["showlegend"] = False
    made["layout"]["shapes"] = [mark(at, of="y2") for at in THRESHOLDS]
    return made


def considered(layer: LayerAnalysis) -> list[float]:
    """The eigenvalues that the fit saw: without rounding errors, and the largest ones if so set."""
    falling = [value * value for value in layer.singular_values if value > 0]
    if layer.spectrum.n <= len(falling):
        return falling[: layer.spectrum.n]
    rising = np.array(falling[::-1])  # the fit is of parts of the matrix
    floor = positive_floor(rising, rows=layer.rows, columns=layer.columns)
    return [value for value in falling if value > floor]


def has_choice(layer: LayerAnalysis) -> bool:
    """Whether there are different tails to compare."""
    values = [value for value in considered(layer) if value >= _least(layer)]
    return len(values) > 2 and values[0] > values[-1]


def _least(layer: LayerAnalysis) -> float:
    """Where the curves begin: with the axis of the spectrum, or at the fit if that is earlier."""
    least: float = layer.singular_values[0] ** 2 / 10.0 ** DECADES["spectrum"]
    if isinstance(layer.spectrum, NoFit) or not is_of_these(layer):
        return least
    return float(min(least, layer.spectrum.xmin))


def layer_alpha(layer: LayerAnalysis) -> float:
    """The exponent, or the upper threshold where there is none."""
    return THRESHOLDS[1] if isinstance(layer.spectrum, NoFit) else layer.spectrum.alpha


def _chosen(network: str, fit: PowerLawFit, y: float, ink: str) -> Trace:
    """Where the fit lies: a mark, and a dotted line down to its xmin."""
    at = short(fit.xmin, 5)
    made = line(network, [at], [y], ink, label="the fit", hover=f"the fit: {y:.3f}, xmin {at:.4g}")
    made["mode"] = "markers"
    made["marker"] = {"color": ink, "size": 11, "symbol": "circle-open", "line": {"width": 2.5}}
    del made["line"]
    return made
