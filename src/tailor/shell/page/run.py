"""The section Train of one run of ``tailor train``: its curves, and what its layers did."""

from collections.abc import Sequence

from tailor.shell import figures
from tailor.shell.figures.labels import percent
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.networks import without_common
from tailor.shell.page.tables import count, number, share, table
from tailor.shell.page.text import escape, points
from tailor.shell.training.record import LayerPath, TrainedEpoch, Training

LONG = 16  # signs of a name
MOST_IN_THIRD = 4  # layers whose names fit above a figure of a third of the page


def section(training: Training) -> str:
    """Body of the section."""
    shown = _thinned(training.layers)
    return (
        reading([_errors(training), *_stopped(training), *_penalties(training)])
        + grid(*_curves(training.history))
        + "<h3>Layers</h3>"
        + reading(_layers(training.layers, len(shown)))
        + grid(*_paths(shown), pairs=len(shown) > MOST_IN_THIRD)
        + _table(training.layers)
        + _numbers(shown)
        + closed("All epochs", _epochs(training.history))
    )


# In words


def _errors(training: Training) -> str:
    said = (
        f"After {training.history[-1].epoch:,} epochs, {training.steps:,} steps, the network errs "
        f"on {percent(training.train_error)} of the training examples"
    )
    if training.test_error is None:
        return f"{said}; the task has no held-out examples."
    gap = points(training.test_error - training.train_error)
    return f"{said} and {percent(training.test_error)} of the held-out ones, a gap of {gap}."


def _stopped(training: Training) -> list[str]:
    return [] if training.stopped is None else [f"Stopped early: {escape(training.stopped)}."]


def _penalties(training: Training) -> list[str]:
    if training.decoupled:
        return ["The penalties acted apart from the loss, so that no size of them is known."]
    first, last = training.history[0], training.history[-1]
    if not (first.penalty or last.penalty):
        return []
    return [
        f"The penalty went from {first.penalty:.3g} to {last.penalty:.3g}, the loss from "
        f"{first.loss:.3g} to {last.loss:.3g} (means over the first and the last epoch)."
    ]


def _layers(layers: Sequence[LayerPath], shown: int) -> list[str]:
    without = [one.name for one in layers if not figures.has_exponent(one)]
    said = []
    if without:
        names = ", ".join(f"<b>{escape(name)}</b>" for name in without[:3])
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        said.append(f"No exponent at any step, since the fit was refused: {names}{more}.")
    if shown < len(layers):
        said.append(
            f"Of {len(layers)} layers the figures show {shown}, evenly spread from the first to "
            "the last; the table has all."
        )
    return said


# Figures


def _curves(history: Sequence[TrainedEpoch]) -> list[str]:
    shown = [
        figure(
            "run-loss",
            figures.run_loss(history),
            "<strong>Loss.</strong> Mean over each epoch, without the penalty.",
            "Training loss against epochs",
        )
    ]
    if any(e.penalty for e in history):
        shown.append(
            figure(
                "run-penalty",
                figures.run_penalty(history),
                "<strong>Penalty.</strong> Sum of all penalties, mean over each epoch.",
                "Penalty against epochs",
            )
        )
    shown.append(
        figure(
            "run-errors",
            figures.run_errors(history),
            "<strong>Errors</strong> at the end of each epoch.",
            "Training and held-out errors against epochs",
        )
    )
    return shown


def _paths(layers: Sequence[LayerPath]) -> list[str]:
    labels = _labels(layers)
    room = 20 * max(0, len(layers) // 3 - 1)  # three names stand in a row of the legend
    drawn = []
    if any(figures.has_exponent(one) for one in layers):
        drawn.append(
            figure(
                "run-exponents",
                figures.layer_exponents(layers, labels),
                "<strong>Exponents.</strong> Density exponent α of each layer's spectrum; gaps "
                "where the fit was refused. Dashed: 2 and 6.",
                "Exponents of the layers against steps",
                room=room,
            )
        )
    if layers:
        drawn += [
            figure(
                "run-ranks",
                figures.layer_stable_ranks(layers, labels),
                "<strong>Stable rank.</strong> Squared Frobenius over squared spectral norm.",
                "Stable ranks of the layers against steps",
                room=room,
            ),
            figure(
                "run-norms",
                figures.layer_norms(layers, labels),
                "<strong>Spectral norm.</strong> Largest singular value.",
                "Spectral norms of the layers against steps",
                room=room,
            ),
        ]
    return drawn


def _labels(layers: Sequence[LayerPath]) -> Sequence[str]:
    """Names for legends: long ones without what all of them share."""
    names = [one.name for one in layers]
    return without_common(names) if max(map(len, names), default=0) > LONG else names


def _thinned(layers: Sequence[LayerPath]) -> Sequence[LayerPath]:
    """At most as many layers as lines can be told apart."""
    most = figures.MOST_LAYERS
    if len(layers) <= most:
        return layers
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


# Tables


def _table(layers: Sequence[LayerPath]) -> str:
    head = ["layer"]
    for what in ("α", "stable rank", "spectral norm", "Frobenius norm"):
        head += [f"{what} before", "after"]
    rows = []
    for one in layers:
        cells = [escape(one.name)]
        for path in (one.alpha, one.stable_rank, one.spectral_norm, one.frobenius_norm):
            cells += [_cell(path[0]), _cell(path[-1])]
        rows.append(cells)
    return table("Every layer, before and after training", head, rows)


def _cell(value: float | None) -> str:
    return "–" if value is None else number(value)


def _numbers(layers: Sequence[LayerPath]) -> str:
    if not layers:
        return ""
    has = any(figures.has_exponent(one) for one in layers)
    ids = " ".join([*(["run-exponents"] if has else []), "run-ranks", "run-norms"])
    return f'<details data-numbers="{ids}"><summary>Every look at the layers</summary></details>'


def _epochs(history: Sequence[TrainedEpoch]) -> str:
    head = ["epoch", "step", "loss", "penalty", "learning rate", "training error"]
    head.append("held-out error")
    rows = [
        [
            count(e.epoch),
            count(e.step),
            number(e.loss),
            number(e.penalty),
            "–" if e.lr is None else number(e.lr),
            share(e.train_error),
            "–" if e.test_error is None else share(e.test_error),
        ]
        for e in history
    ]
    return table("Every epoch", head, rows, text=())
