"""Figures of the stage Compress: errors and bounds against the size of a file."""

from collections.abc import Sequence

from tailor.shell.demo import Compression, Point
from tailor.shell.figures.axes import Figure, axis, figure, size_axis
from tailor.shell.figures.labels import percent, percent_up, plain, short
from tailor.shell.figures.palette import INK, MUTED, Colours
from tailor.shell.figures.traces import Trace, by_network, error_lines, line
from tailor.stages.certify import Certificate, OccamEvidence

LABELS = {"pruned": "top right", "coded": "bottom center"}  # of stages, beside their marks


def frontier(compression: Compression, colour: Colours) -> Figure:
    """Errors of every file against its size; the chosen ones are marked."""
    traces: list[Trace] = []
    hover = "%{x:,} bytes: %{y:.2f} % errors"
    for network, points in by_network(_by_size(compression)).items():
        ink = colour[network]
        held_out, training = error_lines(network, [p.bytes for p in points], points, ink, hover)
        traces += [held_out | {"mode": "lines+markers"}, training | {"showlegend": False}]
        chosen = [p for p in points if p.chosen]
        traces.append(_ring(network, chosen, [100 * p.test_error for p in chosen], ink))
    return figure(
        traces,
        size_axis([p.bytes for p in compression.frontier]),
        axis("examples wrong (%)", rangemode="tozero"),
    )


def bounds(compression: Compression, certificate: Certificate | None, colour: Colours) -> Figure:
    """The bound of every file against its size, and what guessing would give."""
    traces: list[Trace] = []
    sizes = [p.bytes for p in compression.frontier]
    for network, points in by_network(_by_size(compression)).items():
        ink = colour[network]
        heights = [100 * p.risk_bound for p in points]
        hover = "%{x:,} bytes: bound %{customdata}"
        traces.append(
            line(network, [p.bytes for p in points], heights, ink, hover=hover)
            | {
                "mode": "lines+markers",
                "customdata": [percent_up(p.risk_bound, 2) for p in points],
            }
        )
        chosen = [p for p in points if p.chosen]
        traces.append(_ring(network, chosen, [100 * p.risk_bound for p in chosen], ink))
    if certificate is not None and isinstance(certificate.evidence, OccamEvidence):
        size = certificate.evidence.code.stream // 8
        sizes.append(size)
        traces += _certified(certificate, size, min(sizes), max(sizes))
    return figure(traces, size_axis(sizes), axis("bound on the true error (%)", range=[0, 105]))


def path(compression: Compression, colour: Colours) -> Figure:
    """The way of the chosen file of each network from dense to its last stage."""
    traces: list[Trace] = []
    for i, (network, stages) in enumerate(by_network(compression.stages).items()):
        beside = LABELS | {"dense": "bottom center" if i == 0 else "top center"}
        traces.append(
            line(
                network,
                [s.bytes for s in stages],
                [100 * s.test_error for s in stages],
                colour[network],
                hover="%{text}: %{x:,} bytes, %{y:.2f} % errors on held-out examples",
            )
            | {
                "mode": "lines+markers+text",
                "text": [plain(s.stage) for s in stages],
                "textposition": [beside.get(s.stage, "top center") for s in stages],
                "textfont": {"size": 12, "color": colour[network]},
                "cliponaxis": False,
                "marker": {"size": 9, "symbol": "square", "color": colour[network]},
            }
        )
    top = max([0.0, *(s.test_error for s in compression.stages)])
    return figure(
        traces,
        size_axis([s.bytes for s in compression.stages], room=0.1),
        axis("held-out examples wrong (%)", range=[0, 120 * top or 1]),
    )


# ---- marks --------------------------------------------------------------------------------


def _by_size(compression: Compression) -> list[Point]:
    return sorted(compression.frontier, key=lambda point: point.bytes)


def _ring(network: str, points: Sequence[Point], y: Sequence[float], ink: str) -> Trace:
    """A ring around the chosen files."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(f"{network}, chosen"),
        "meta": f"{network}, chosen",
        "x": [p.bytes for p in points],
        "y": [short(value) for value in y],
        "marker": {"symbol": "circle-open", "size": 16, "color": ink, "line": {"width": 2.5}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _certified(certificate: Certificate, size: int, low: int, high: int) -> list[Trace]:
    """The certified file, and the error of a constant guess as a dashed line."""
    bound, guess = certificate.risk_bound, certificate.majority_error
    star = line("certified", [size], [100 * bound], INK) | {
        "mode": "markers",
        "marker": {"symbol": "star", "size": 14, "color": INK},
        "hovertemplate": f"certified file: {size:,} bytes, bound {percent_up(bound, 2)}"
        "<extra></extra>",
    }
    dashed = line("majority guess", [low * 0.9, high * 1.1], [100 * guess] * 2, MUTED, dash="dash")
    dashed["hovertemplate"] = f"always the commonest class: {percent(guess, 2)}<extra></extra>"
    return [star, dashed]
