"""Figures of several models side by side: exponents in order, layer by layer, and qualities."""

from collections.abc import Sequence

import numpy as np

from tailor.shell.figures.axes import Figure, alpha_axis, axis, figure, mark
from tailor.shell.figures.depth import FARTHEST
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.palette import MUTED, NETWORKS
from tailor.shell.figures.scan import THRESHOLDS
from tailor.shell.figures.traces import Trace, line
from tailor.stages.compare import Comparison, LayerChange, Prediction

FIRST, LAST = MUTED, NETWORKS[0]  # ends of a way
APART = NETWORKS[1]
FEW, NARROW = 12, 9  # models, and letters of their names, that fit below an axis


def over_models(comparison: Comparison, labels: Sequence[str]) -> Figure:
    """Median exponent, quartiles and range of every model, in their order."""
    places, found = _by_model(comparison)
    names = [plain(brief(labels[place], 24)) for place in places]
    quartiles = [np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist() for values in found]
    x = [place + 1 for place in places]
    medians = [short(five[2], 5) for five in quartiles]
    traces = [
        _bars(x, medians, [(five[0], five[4]) for five in quartiles], "least to largest", 1),
        _bars(x, medians, [(five[1], five[3]) for five in quartiles], "middle half", 5),
        line("", x, medians, LAST, label="median", hover="%{text}: median α = %{y:.2f}"),
    ]
    traces[2] |= {"mode": "lines+markers", "text": names}
    top = [five[4] for five in quartiles]
    along = axis("model", range=[0.5, len(labels) + 0.5])
    if len(labels) <= FEW and max(map(len, labels)) <= NARROW:
        along |= {"tickvals": list(range(1, len(labels) + 1)), "ticktext": [*map(plain, labels)]}
    else:
        along["title"]["text"] = "number of the model"
        along |= {"dtick": 1} if len(labels) <= FEW else {}
    made = figure(traces, along, alpha_axis("exponent α", top))
    made["layout"]["shapes"] = [mark(at) for at in THRESHOLDS]
    return made


def changes(comparison: Comparison, labels: Sequence[str]) -> Figure:
    """Exponent and interval of every matrix in the first and in the last model."""
    pairs = [(i, one) for i, one in enumerate(comparison.layers, start=1) if _both(one)]
    apart = [(i, one) for i, one in pairs if one.apart]
    near = [(i, one) for i, one in pairs if not one.apart]
    traces = [
        *_ways(apart),
        _ends(pairs, 0, FIRST, "circle-open", labels[0]),
        _ends(near, -1, LAST, "circle", labels[-1]),
        _ends(apart, -1, APART, "diamond", f"{labels[-1]}, intervals apart"),
    ]
    traces = [trace for trace in traces if trace["x"]]
    tops = [
        min(one.high[end] or 0.0, FARTHEST * (one.alpha[end] or 0.0))
        for _, one in pairs
        for end in (0, -1)
    ]
    along = axis("number of the matrix", range=[0.3, len(comparison.layers) + 0.7])
    made = figure(traces, along, alpha_axis("exponent α, 95 % interval", tops))
    made["layout"]["shapes"] = [mark(at) for at in THRESHOLDS]
    return made


def against_quality(
    comparison: Comparison, prediction: Prediction, labels: Sequence[str]
) -> Figure:
    """One number of every model against its quality; the marks are numbered in their order."""
    how, _, metric = prediction.metric.partition("_")
    found = [
        (i, getattr(one, how)[metric], one.quality)
        for i, one in enumerate(comparison.models)
        if metric in getattr(one, how) and one.quality is not None
    ]
    trace: Trace = {
        "type": "scatter",
        "mode": "markers+text" if len(found) <= FEW else "markers",
        "name": plain(prediction.metric),
        "meta": prediction.metric,
        "x": [short(value) for _, value, _ in found],
        "y": [short(quality) for _, _, quality in found],
        "text": [str(i + 1) for i, _, _ in found],
        "customdata": [plain(brief(labels[i])) for i, _, _ in found],
        "textposition": "top center",
        "textfont": {"size": 11, "color": MUTED},
        "cliponaxis": False,
        "marker": {"color": LAST, "size": 8},
        "hovertemplate": "%{customdata}: %{x:.4g}, %{y:.4g}<extra></extra>",
    }
    x, y = axis(plain(f"{how} {metric}")), axis(plain(comparison.quality))
    made = figure([trace], x, y)
    made["layout"] |= {"showlegend": False}
    return made


def _by_model(comparison: Comparison) -> tuple[list[int], list[list[float]]]:
    """Models with any exponent, by place, and the exponents of the matrices that are shared."""
    columns = [
        [layer.alpha[i] for layer in comparison.layers] for i in range(len(comparison.models))
    ]
    found = [[value for value in column if value is not None] for column in columns]
    kept = [i for i, values in enumerate(found) if values]
    return kept, [found[i] for i in kept]


def _both(layer: LayerChange) -> bool:
    return layer.alpha[0] is not None and layer.alpha[-1] is not None


# Marks


def _bars(
    x: Sequence[float],
    middle: Sequence[float],
    ends: Sequence[tuple[float, float]],
    name: str,
    width: int,
) -> Trace:
    """Upright bars around the medians."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": name,
        "x": list(x),
        "y": list(middle),
        "marker": {"size": 12, "symbol": "line-ns", "line": {"color": LAST, "width": width}},
        "opacity": 1 if width == 1 else 0.45,
        "error_y": _error(middle, [low for low, _ in ends], [high for _, high in ends])
        | {"thickness": width, "color": LAST},
        "customdata": [[short(low, 4), short(high, 4)] for low, high in ends],
        "hovertemplate": f"{name}: %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}<extra></extra>",
    }


def _ends(
    pairs: Sequence[tuple[int, LayerChange]], place: int, ink: str, symbol: str, label: str
) -> Trace:
    """One end of the way of every matrix."""
    beside = -0.12 if place == 0 else 0.12
    alpha = [one.alpha[place] or 0.0 for _, one in pairs]
    low = [one.low[place] or 0.0 for _, one in pairs]
    high = [one.high[place] or 0.0 for _, one in pairs]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(brief(label)),
        "meta": label,
        "x": [i + beside for i, _ in pairs],
        "y": [short(value, 5) for value in alpha],
        "text": [plain(one.name) for _, one in pairs],
        "customdata": [[short(a, 4), short(b, 4)] for a, b in zip(low, high, strict=True)],
        "marker": {"color": ink, "size": 7, "symbol": symbol},
        "error_y": _error(alpha, low, high),
        "hovertemplate": "%{text}: α = %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        f"<extra>{plain(brief(label))}</extra>",
    }


def _error(
    middle: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [short(b - m, 4) for b, m in zip(high, middle, strict=True)],
        "arrayminus": [short(m - a, 4) for a, m in zip(low, middle, strict=True)],
        "thickness": 1,
        "width": 0,
    }


def _ways(apart: Sequence[tuple[int, LayerChange]]) -> list[Trace]:
    """A line from the first to the last exponent of each matrix whose intervals lie apart."""
    if not apart:
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    for i, one in apart:
        x += [i - 0.12, i + 0.12, None]
        y += [short(one.alpha[0] or 0.0, 5), short(one.alpha[-1] or 0.0, 5), None]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "apart",
            "meta": "apart",
            "x": x,
            "y": y,
            "line": {"color": APART, "width": 1.5},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
