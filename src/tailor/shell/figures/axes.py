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


def figure(traces: Sequence[Trace], x: Axis, y: Axis) -> Figure:
    """Traces in the look that all figures share; there is no title, the page has captions."""
    layout = {
        "xaxis": x,
        "yaxis": y,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 56, "r": 14, "t": 8, "b": 46},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.03}
        | {"yanchor": "bottom", "tracegroupgap": 0, "traceorder": "normal"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "showlegend": True,
    }
    return {"data": list(traces), "layout": layout}


def axis(title: str, type: str = "-", **more: Any) -> Axis:
    """An axis; ``more`` goes to plotly as it is."""
    made: Axis = {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "tickfont": {"size": 12},
        "type": type,
        "gridcolor": GRID,
        "linecolor": MUTED,
        "showline": True,
        "ticks": "outside",
        "tickcolor": MUTED,
        "zeroline": False,
        "automargin": True,
    }
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


def size_axis(sizes: Sequence[int], room: float = 0.04) -> Axis:
    """A log axis of bytes."""
    return log_axis("size in bytes", sizes, kilo, room)


def row_axis(names: Sequence[str]) -> Axis:
    """An axis with one row for each name, from the bottom up."""
    return axis("", type="category", categoryorder="array", showgrid=False) | {
        "categoryarray": [plain(name) for name in names]
    }
