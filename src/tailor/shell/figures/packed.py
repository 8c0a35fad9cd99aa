"""Figures of one compression: what each matrix lost, what its bytes are, quality against size."""

from collections.abc import Sequence

from tailor.shell.figures.axes import Axis, Figure, axis, figure, panels, row_axis, size_axis
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.palette import INK, MUTED, NETWORKS
from tailor.shell.figures.traces import Trace, line
from tailor.stages.compress import CompressionReport, FrontierPoint, TensorReport

UNIFORM = "UniformAllocation"  # how the text of the allocation to compare with begins


def matrices(found: CompressionReport) -> list[TensorReport]:
    """The tensors that have symbols or lost something."""
    return [row for row in found.tensors if len(row.shape) > 1 and row.levels is not None] or [
        row for row in found.tensors if len(row.shape) > 1
    ]


def allocation(found: CompressionReport) -> Figure:
    """Zeros (upper panel) and relative error (lower one) of every matrix, in order."""
    rows = matrices(found)
    places = list(range(1, len(rows) + 1))
    hover = "%{text}: %{y}"
    zeros = _marks("zeros now (%)", places, [100 * row.zeros for row in rows], NETWORKS[0], rows)
    upper = [zeros]
    if any(row.target is not None for row in rows):
        asked = [100 * (row.target or 0.0) for row in rows]
        upper.append(
            _marks("asked for (%)", places, asked, MUTED, rows)
            | {"marker": {"symbol": "line-ew-open", "size": 11, "color": MUTED}}
        )
    errors = [row.error or 0.0 for row in rows]
    lower = [_marks("relative error of the weights", places, errors, NETWORKS[1], rows)]
    seen = [(i, row) for i, row in zip(places, rows, strict=True) if row.output_error is not None]
    if seen:
        outputs = [row.output_error or 0.0 for _, row in seen]
        lower.append(
            _marks(
                "of the outputs", [i for i, _ in seen], outputs, NETWORKS[2], [r for _, r in seen]
            )
        )
    for trace in (*upper, *lower):
        trace["hovertemplate"] = hover + "<extra></extra>"
    y = (axis("zeros (%)", range=[0, 103]), axis("relative error", rangemode="tozero"))
    return panels(upper, lower, _order(len(rows)), y)


def bits(found: CompressionReport) -> Figure:
    """Bits a weight of every matrix: measured, order-0 entropy, and what its tail predicts."""
    rows = matrices(found)
    places = list(range(1, len(rows) + 1))
    limit = [8 * row.limit_bytes / max(1, row.elements) for row in rows]
    traces = [
        _marks("measured", places, [row.bits for row in rows], NETWORKS[0], rows),
        _marks("order-0 entropy", places, limit, MUTED, rows)
        | {"marker": {"symbol": "line-ew-open", "size": 11, "color": MUTED}},
    ]
    told = [(i, row) for i, row in zip(places, rows, strict=True) if row.predicted_bits is not None]
    if told:
        values = [row.predicted_bits or 0.0 for _, row in told]
        traces.append(
            _marks(
                "predicted from the tail",
                [i for i, _ in told],
                values,
                NETWORKS[1],
                [r for _, r in told],
            )
            | {"marker": {"symbol": "diamond-open", "size": 8, "color": NETWORKS[1]}}
        )
    y = axis("bits a weight", rangemode="tozero")
    return figure(traces, _order(len(rows)), y)


def parts(found: CompressionReport) -> Figure:
    """Bytes of the file by part of the code, and what all symbols cost by order-0 entropy."""
    sizes: dict[str, float] = {}
    for row in found.tensors:
        for part, size in row.parts.items():
            sizes[part] = sizes.get(part, 0.0) + size
    sizes = {part: size for part, size in sizes.items() if size > 0}
    header = found.file_bytes - sum(sizes.values())
    if header > 0:
        sizes["names and frame"] = header
    order = sorted(sizes, key=lambda part: sizes[part])
    rows = ["order-0 entropy", *order]
    values = [found.limit_bytes, *(sizes[part] for part in order)]
    bars = {
        "type": "bar",
        "name": "bytes",
        "meta": "bytes",
        "orientation": "h",
        "y": [plain(row) for row in rows],
        "x": [short(value) for value in values],
        "marker": {"color": [MUTED, *[NETWORKS[0]] * len(order)]},
        "hovertemplate": "%{y}: %{x:,.0f} bytes<extra></extra>",
        "showlegend": False,
    }
    return figure([bars], axis("bytes", rangemode="tozero"), row_axis(rows))


def quality(found: CompressionReport) -> Figure:
    """Quality against size: each allocation as a line, the uniform one beside the other."""
    by_name: dict[str, list[FrontierPoint]] = {}
    for point in sorted(found.frontier, key=lambda one: one.file_bytes):
        by_name.setdefault(point.allocation, []).append(point)
    traces: list[Trace] = []
    others = iter(NETWORKS)
    for name, points in by_name.items():
        even = name.startswith(UNIFORM)
        ink = MUTED if even else next(others)
        made = line(
            "",
            [point.file_bytes for point in points],
            [point.quality for point in points],
            ink,
            label=brief(name.partition("(")[0]),
            dash="dot" if even else "solid",
            hover="%{x:,} bytes, %{text}: %{y:.4f}",
        )
        shares = [f"{100 * point.sparsity:.1f} % zeros" for point in points]
        traces.append(made | {"mode": "lines+markers", "text": shares})
    sizes = [point.file_bytes for point in found.frontier]
    if found.quality_before is not None:
        dense = line("", [found.dense_bytes], [found.quality_before], INK, label="as it came")
        dense["mode"] = "markers"
        traces.append(dense | {"marker": {"symbol": "star", "size": 12, "color": INK}})
        sizes.append(found.dense_bytes)
    return figure(traces, size_axis(sizes), axis(plain(found.quality_name), rangemode="tozero"))


def _marks(
    name: str,
    x: Sequence[int],
    y: Sequence[float],
    ink: str,
    rows: Sequence[TensorReport],
) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": name,
        "x": list(x),
        "y": [short(value) for value in y],
        "text": [plain(brief(row.name)) for row in rows],
        "marker": {"color": ink, "size": 7},
        "hovertemplate": "%{text}: %{y}<extra></extra>",
    }


def _order(count: int) -> Axis:
    made = axis("number of the matrix", range=[0.3, count + 0.7])
    return made | ({"dtick": 1} if count <= 16 else {})
