"""Figures of the stage Train: loss and errors over the epochs."""

from collections.abc import Sequence

from tailor.shell.demo import Epoch
from tailor.shell.figures.axes import Figure, axis, figure, log_axis
from tailor.shell.figures.palette import Colours
from tailor.shell.figures.traces import by_network, error_lines, line


def training_loss(history: Sequence[Epoch], colour: Colours) -> Figure:
    """Loss of each network over the epochs."""
    traces = [
        line(
            network,
            [e.epoch for e in rows],
            [e.loss for e in rows],
            colour[network],
            hover="epoch %{x}: loss %{y:.4f}",
        )
        for network, rows in by_network(history).items()
    ]
    return figure(
        traces, axis("epoch"), log_axis("mean training loss (nats)", [e.loss for e in history])
    )


def training_error(history: Sequence[Epoch], colour: Colours) -> Figure:
    """Training and held-out error of each network over the epochs."""
    hover = "epoch %{x}: %{y:.2f} % errors"
    traces = [
        trace
        for network, rows in by_network(history).items()
        for trace in error_lines(network, [e.epoch for e in rows], rows, colour[network], hover)
    ]
    errors = [100 * share for e in history for share in (e.train_error, e.test_error)]
    if errors and min(errors) > 0:
        y = log_axis("examples wrong (%)", errors)
    else:  # a log axis has no place for zero errors
        y = axis("examples wrong (%)", rangemode="tozero")
    return figure(traces, axis("epoch"), y)
