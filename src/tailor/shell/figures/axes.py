"""The frame of a figure: its layout and its axes."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from tailor.shell.figures.labels import kilo, plain, short, tick
from tailor.shell.figures.palette import CLEAR, GRID, INK, MUTED, PAPER
from tailor.shell.figures.traces import Trace

Figure: TypeAlias = dict[str, Any]
Axis: TypeAlias = dict[str, Any]

_AXIS: Axis = {
    "title": {"standoff": 8, "font": {"size": 13}},
    "tickfont": {"size": 12},
    "gridcolor": GRID,
    "linecolor": MUTED,
    "showline": True,
    "ticks": "outside",
    "tickcolor": MUTED,
    "zeroline": False,
    "automargin": True,
}
# What all figures share: plotly's ``layout.template``. The page holds it once, not in each figure.
TEMPLATE: Figure = {
    "layout": {
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 56, "r": 14, "t": 8, "b": 46},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.03}
        | {"yanchor": "bottom", "tracegroupgap": 0, "traceorder": "normal"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "showlegend": True,
    }
}


def figure(traces: Sequence[Trace], x: Axis, y: Axis) -> Figure:
    """Traces on two axes; there is no title, the page has captions."""
    return {"data": list(traces), "layout": {"xaxis": x, "yaxis": y}}


def panels(upper: Sequence[Trace], lower: Sequence[Trace], x: Axis, y: tuple[Axis, Axis]) -> Figure:
    """Two figures, one above the other, with one x axis; ``y`` is that of the upper one first."""
    made = figure(
        [*(trace | {"yaxis": "y2"} for trace in upper), *lower], x, y[1] | {"domain": [0, 0.46]}
    )
    made["layout"]["yaxis2"] = y[0] | {"domain": [0.54, 1], "anchor": "x"}
    return made


def mark(at: float, *, of: str = "y", dash: str = "dash", ink: str = MUTED) -> dict[str, Any]:
    """A straight line through a whole panel: across at a y, or upright with ``of="x"``."""
    axes = {"xref": "x", "yref": "paper"} if of == "x" else {"xref": "paper", "yref": of}
    ends = {"x0": at, "x1": at, "y0": 0, "y1": 1}
    if of != "x":
        ends = {"x0": 0, "x1": 1, "y0": at, "y1": at}
    line = {"color": ink, "width": 1, "dash": dash}
    return {"type": "line", "layer": "below", "line": line} | axes | ends


def axis(title: str, type: str = "-", **more: Any) -> Axis:
    """An axis; ``more`` goes to plotly as it is."""
    made: Axis = {"title": {"text": title}, "type": type}
    return made | more


def log_axis(
    title: str,
    values: Sequence[float],
    show: Callable[[Decimal], str] | None = None,
    room: float = 0.04,
) -> Axis:
    """A log axis around positive values.

    Ticks stand at powers of ten, or also at 2 and 5 times these where there are few. ``room`` is
    left on both sides, as a share of the length.
    """
    found = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(found)), math.log10(max(found))
    margin = room * (high - low) + 0.02
    low, high = low - margin, high + margin
    steps = (1, 2, 5) if show or high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [Decimal(step).scaleb(power) for power in powers for step in steps]
    ticks = [at for at in ticks if low <= float(at.log10()) <= high]
    return axis(title, "log") | {
        "range": [short(low), short(high)],
        "tickmode": "array",
        "tickvals": [float(at) for at in ticks],
        "ticktext": [(show or tick)(at) for at in ticks],
    }


def alpha_axis(title: str, values: Sequence[float]) -> Axis:
    """A log axis of density exponents, from 1; the thresholds 2 and 6 are among its ticks."""
    top = max([7.0, *values])
    ticks = [at for at in (1, 2, 3, 4, 6, 10, 20, 50, 100, 1000) if at <= top]
    ends = [short(math.log10(0.97)), short(math.log10(top) + 0.03)]
    return axis(title, "log", range=ends, tickmode="array", tickvals=ticks) | {
        "ticktext": [f"{at:g}" for at in ticks]
    }


def size_axis(sizes: Sequence[int], room: float = 0.04) -> Axis:
    """A log axis of bytes."""
    return log_axis("size in bytes", sizes, kilo, room)


def row_axis(names: Sequence[str]) -> Axis:
    """An axis with one row for each name, from the bottom up."""
    return axis("", type="category", categoryorder="array", showgrid=False) | {
        "categoryarray": [plain(name) for name in names]
    }
