"""Figures of one run of ``tailor train``: curves over its epochs, paths of its layers."""

from collections.abc import Sequence
from itertools import product

from tailor.shell.figures.axes import Axis, Figure, alpha_axis, axis, figure, log_axis, mark
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.palette import NETWORKS
from tailor.shell.figures.scan import THRESHOLDS
from tailor.shell.figures.traces import Trace, line
from tailor.shell.training.record import LayerPath, TrainedEpoch

LOOKS = list(product(("solid", "dash"), NETWORKS))  # of the lines of layers
MOST_LAYERS = len(LOOKS)
FEW = 10  # points; so many have marks, since a line alone may be none
MARK = 5  # pixels
WIDE = 10  # largest over least value, from where on an axis is logarithmic


def run_loss(history: Sequence[TrainedEpoch]) -> Figure:
    """Loss over the epochs."""
    loss = [e.loss for e in history]
    y = _axis("mean training loss (nats)", loss)
    return _alone(line("loss", _epochs(history), loss, NETWORKS[0], hover=_hover("loss")), y)


def run_penalty(history: Sequence[TrainedEpoch]) -> Figure:
    """Penalty over the epochs; it may be negative."""
    penalty = [e.penalty for e in history]
    trace = line("penalty", _epochs(history), penalty, NETWORKS[2], hover=_hover("penalty"))
    return _alone(trace, _axis("mean penalty", penalty))


def run_errors(history: Sequence[TrainedEpoch]) -> Figure:
    """Held-out error, a solid line, and training error, a dotted one."""
    x, hover = _epochs(history), "epoch %{x}: %{y:.2f} % errors"
    training = [100 * e.train_error for e in history]
    held_out = [100 * e.test_error for e in history if e.test_error is not None]
    traces = [line("training", x, training, NETWORKS[0], dash="dot", hover=hover)]
    if held_out:
        traces.insert(0, line("held-out", x, held_out, NETWORKS[0], hover=hover))
    y = _axis("examples wrong (%)", [*held_out, *training])
    return figure([_marked(one) for one in traces], _epoch_axis(history), y)


def layer_exponents(layers: Sequence[LayerPath], labels: Sequence[str]) -> Figure:
    """Exponent of every layer over the steps, with gaps where the fit was refused."""
    alphas = [value for one in layers for value in one.alpha if value is not None]
    made = _over_steps(layers, labels, "alpha", "α", alpha_axis("exponent α", alphas))
    made["layout"]["shapes"] = [mark(at) for at in THRESHOLDS]
    return made


def layer_stable_ranks(layers: Sequence[LayerPath], labels: Sequence[str]) -> Figure:
    """Stable rank of every layer over the steps."""
    y = _axis("stable rank", [value for one in layers for value in one.stable_rank])
    return _over_steps(layers, labels, "stable_rank", "stable rank", y)


def layer_norms(layers: Sequence[LayerPath], labels: Sequence[str]) -> Figure:
    """Spectral norm of every layer over the steps."""
    y = _axis("spectral norm", [value for one in layers for value in one.spectral_norm])
    return _over_steps(layers, labels, "spectral_norm", "spectral norm", y)


def has_exponent(one: LayerPath) -> bool:
    """Whether the fit was not refused at every look."""
    return any(value is not None for value in one.alpha)


def _over_steps(
    layers: Sequence[LayerPath], labels: Sequence[str], field: str, what: str, y: Axis
) -> Figure:
    traces = [
        _path(one, label, getattr(one, field), what, *LOOKS[i % MOST_LAYERS])
        for i, (one, label) in enumerate(zip(layers, labels, strict=True))
    ]
    last = max((one.steps[-1] for one in layers), default=1)
    x = axis("optimizer step", range=[-0.01 * last, 1.02 * last])
    shown = [trace for trace in traces if any(value is not None for value in trace["y"])]
    return figure(shown, x, y)


def _path(
    one: LayerPath, label: str, y: Sequence[float | None], what: str, dash: str, ink: str
) -> Trace:
    """A line that breaks off where there is no value."""
    name = plain(brief(label, 24))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "meta": f"{one.name}, {what}",
        "x": list(one.steps),
        "y": [None if value is None else short(value, 5) for value in y],
        "line": {"color": ink, "width": 2} | ({} if dash == "solid" else {"dash": dash}),
        "marker": {"color": ink, "size": _marks(y), "line": {"width": 0}},
        "hovertemplate": f"step %{{x}}: {what} %{{y:.3f}}<extra>{name}</extra>",
    }


def _marks(y: Sequence[float | None]) -> list[int]:
    """Sizes of marks: none in the course of a line, some where a value stands alone."""
    padded = [None, *y, None]
    alone = [a is None and b is None for a, b in zip(padded, padded[2:], strict=False)]
    return [MARK if len(y) < FEW or one else 0 for one in alone]


def _alone(trace: Trace, y: Axis) -> Figure:
    """One line, which needs no legend."""
    made = figure([_marked(trace)], {}, y)
    made["layout"] |= {"xaxis": _epoch_axis_of(trace["x"]), "showlegend": False}
    return made


def _marked(trace: Trace) -> Trace:
    return trace | {"mode": "lines+markers"} if len(trace["x"]) < FEW else trace


def _epochs(history: Sequence[TrainedEpoch]) -> list[float]:
    return [e.epoch for e in history]


def _epoch_axis(history: Sequence[TrainedEpoch]) -> Axis:
    return _epoch_axis_of(_epochs(history))


def _epoch_axis_of(epochs: Sequence[float]) -> Axis:
    return axis("epoch") | ({"dtick": 1} if len(epochs) <= 12 else {})


def _axis(title: str, values: Sequence[float]) -> Axis:
    """A log axis for values that differ by much; but it has no place for zero."""
    if values and min(values) > 0 and max(values) >= WIDE * min(values):
        return log_axis(title, values)
    return axis(title, rangemode="tozero")


def _hover(what: str) -> str:
    return f"epoch %{{x}}: {what} %{{y:.4g}}"
