"""What a figure draws: the rows of each network as a line."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

from tailor.shell.demo import Epoch, Point, Stage
from tailor.shell.figures.labels import brief, plain, short

Trace: TypeAlias = dict[str, Any]
Row = TypeVar("Row", Epoch, Stage, Point)


def by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each network, in the order in which they are met."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.network, []).append(row)
    return found


def line(
    network: str,
    x: Sequence[float],
    y: Sequence[float],
    ink: str,
    *,
    label: str = "",
    dash: str = "solid",
    hover: str = "%{x}: %{y}",
) -> Trace:
    """A line through points; ``label`` follows the network's name, if it has one, in the legend."""
    name = ", ".join(part for part in (network, label) if part)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(brief(name)),
        "meta": name,
        "x": list(x),
        "y": [short(value) for value in y],
        "line": {"color": ink, "width": 2} | ({} if dash == "solid" else {"dash": dash}),
        "marker": {"color": ink, "size": 6},
        "hovertemplate": f"{hover}<extra>{plain(brief(name))}</extra>",
    }


def bare(trace: Trace) -> Trace:
    """A line that shows no marks, without their look."""
    return {name: value for name, value in trace.items() if name != "marker"}


def error_lines(
    network: str, x: Sequence[int], rows: Sequence[Epoch | Point], ink: str, hover: str
) -> tuple[Trace, Trace]:
    """Errors in per cent: on held-out examples a solid line, on training examples a dotted one."""
    held_out = [100 * row.test_error for row in rows]
    training = [100 * row.train_error for row in rows]
    return (
        line(network, x, held_out, ink, label="held-out", hover=hover),
        line(network, x, training, ink, label="training", dash="dot", hover=hover),
    )
