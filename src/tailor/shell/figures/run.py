"""Figures of one run of ``tailor train``: curves over its epochs, paths of its layers."""

from collections.abc import Callable, Sequence
from itertools import product

from tailor.shell.figures.axes import Axis, Figure, alpha_axis, axis, figure, log_axis, mark
from tailor.shell.figures.labels import brief, plain, short
from tailor.shell.figures.palette import NETWORKS
from tailor.shell.figures.scan import THRESHOLDS
from tailor.shell.figures.traces import Trace, line
from tailor.shell.training.record import LayerPath, TrainedEpoch

LOOKS = list(product(("solid", "dash"), NETWORKS))  # of the lines of layers
MOST_LAYERS = len(LOOKS)


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


def layer_exponents(layers: Sequence[LayerPath]) -> Figure:
    """Exponent of every layer over the steps, with gaps where the fit was refused."""
    alphas = [value for one in layers for value in one.alpha if value is not None]
    made = _over_steps(layers, lambda one: one.alpha, "α", alpha_axis("exponent α", alphas))
    made["layout"]["shapes"] = [mark(at) for at in THRESHOLDS]
    return made


def layer_stable_ranks(layers: Sequence[LayerPath]) -> Figure:
    """Stable rank of every layer over the steps."""
    values = [value for one in layers for value in one.stable_rank]
    y = _axis("stable rank", values)
    return _over_steps(layers, lambda one: one.stable_rank, "stable rank", y)


def layer_norms(layers: Sequence[LayerPath]) -> Figure:
    """Spectral norm of every layer over the steps."""
    values = [value for one in layers for value in one.spectral_norm]
    y = _axis("spectral norm", values)
    return _over_steps(layers, lambda one: one.spectral_norm, "spectral norm", y)


def has_exponent(one: LayerPath) -> bool:
    """Whether the fit was not refused at every look."""
    return any(value is not None for value in one.alpha)


def _over_steps(
    layers: Sequence[LayerPath],
    values: Callable[[LayerPath], Sequence[float | None]],
    what: str,
    y: Axis,
) -> Figure:
    traces = [
        _path(one, values(one), what, *LOOKS[i % MOST_LAYERS]) for i, one in enumerate(layers)
    ]
    last = max((one.steps[-1] for one in layers), default=1)
    x = axis("optimizer step", range=[-0.01 * last, 1.02 * last])
    shown = [trace for trace in traces if any(value is not None for value in trace["y"])]
    return figure(shown, x, y)


def _path(one: LayerPath, y: Sequence[float | None], what: str, dash: str, ink: str) -> Trace:
    """A line that breaks off where there is no value; marks show values that stand alone."""
    name = plain(brief(one.name, 28))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "meta": f"{one.name}, {what}",
        "x": list(one.steps),
        "y": [None if value is None else short(value, 5) for value in y],
        "line": {"color": ink, "width": 2} | ({} if dash == "solid" else {"dash": dash}),
        "marker": {"color": ink, "size": 4},
        "hovertemplate": f"step %{{x}}: {what} %{{y:.3f}}<extra>{name}</extra>",
    }


def _alone(trace: Trace, y: Axis) -> Figure:
    """One line, which needs no legend."""
    made = figure([_marked(trace)], {}, y)
    made["layout"] |= {"xaxis": _epoch_axis_of(trace["x"]), "showlegend": False}
    return made


def _marked(trace: Trace) -> Trace:
    """A line with marks where there are so few points that a line may be none."""
    return trace | {"mode": "lines+markers"} if len(trace["x"]) < 10 else trace


def _epochs(history: Sequence[TrainedEpoch]) -> list[float]:
    return [e.epoch for e in history]


def _epoch_axis(history: Sequence[TrainedEpoch]) -> Axis:
    return _epoch_axis_of(_epochs(history))


def _epoch_axis_of(epochs: Sequence[float]) -> Axis:
    return axis("epoch") | ({"dtick": 1} if len(epochs) <= 12 else {})


def _axis(title: str, values: Sequence[float]) -> Axis:
    """A log axis, unless there are values that it has no place for."""
    if values and min(values) > 0:
        return log_axis(title, values)
    return axis(title, rangemode="tozero")


def _hover(what: str) -> str:
    return f"epoch %{{x}}: {what} %{{y:.4g}}"
