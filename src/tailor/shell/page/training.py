"""The section Train: loss and errors of the networks, epoch by epoch."""

from collections.abc import Sequence

from tailor.shell import figures
from tailor.shell.demo import Epoch
from tailor.shell.figures.labels import percent
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.networks import Networks
from tailor.shell.page.tables import count, number, share, table
from tailor.shell.page.text import points


def section(history: Sequence[Epoch], networks: Networks) -> str:
    """Body of the section."""
    last = {epoch.network: epoch for epoch in history}
    said = [
        f"After {epoch.epoch} epochs {networks.name(network)} errs on "
        f"{percent(epoch.train_error)} of the training and {percent(epoch.test_error)} of the "
        f"held-out examples, a gap of {points(epoch.test_error - epoch.train_error)}."
        for network, epoch in last.items()
    ]
    return (
        "<p>The networks start from the same weights and see the same batches. They differ in "
        "the penalty on their weights.</p>"
        + reading(said)
        + grid(
            figure(
                "loss",
                figures.training_loss(history, networks.colours),
                "<strong>Loss.</strong> Mean over each epoch, without the penalty.",
                "Training loss against epochs",
            ),
            figure(
                "errors",
                figures.training_error(history, networks.colours),
                "<strong>Errors.</strong> Solid: held-out examples. Dotted: training examples.",
                "Training and held-out errors against epochs",
            ),
        )
        + closed("All epochs", _epochs(history, networks))
    )


def _epochs(history: Sequence[Epoch], networks: Networks) -> str:
    head = ["network", "epoch", "loss", "penalty", "training error", "held-out error"]
    rows = [
        [
            networks.name(e.network),
            count(e.epoch),
            number(e.loss),
            number(e.penalty),
            share(e.train_error),
            share(e.test_error),
        ]
        for e in history
    ]
    return table("Every epoch", head, rows)
