"""What a run leaves: its epochs, the paths of its layers, and all of it as one record."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor import records
from tailor.errors import RecordError
from tailor.records import Provenance
from tailor.stages.train import LayerTail
from tailor.stages.train.monitor import COLUMNS

EPOCH_COLUMNS = ("epoch", "step", "loss", "penalty", "lr", "train_error", "test_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedEpoch:
    """One row of ``history.csv``.

    Attributes:
        epoch: Counted from 1; the last one may have been broken off by a stop rule.
        step: The optimizer step with which it ended.
        loss: Mean training loss over its steps, without penalties.
        penalty: Mean sum of the penalties; 0 where they act apart from the loss.
        lr: Learning rate of its last step.
        train_error: Share of errors on the training examples at its end.
        test_error: Share of errors on the held-out examples, if there are any.
    """

    epoch: int
    step: int
    loss: float
    penalty: float
    lr: float | None
    train_error: float
    test_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPath:
    """What the spectrum of one layer did during training, look by look.

    Attributes:
        name: Canonical name of the tensor, and which part of it.
        steps: Optimizer steps taken at each look, from 0.
        alpha: Density exponent; None where the fit was refused.
        stable_rank: (Frobenius norm / spectral norm)^2.
        spectral_norm: Largest singular value.
        frobenius_norm: Root of the sum of squares.
    """

    name: str
    steps: tuple[int, ...]
    alpha: tuple[float | None, ...]
    stable_rank: tuple[float, ...]
    spectral_norm: tuple[float, ...]
    frobenius_norm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What ``training.json`` holds.

    Attributes:
        task: Name of the task.
        steps: Optimizer steps taken.
        stopped: Why a stop rule ended training; None if none did.
        decoupled: Whether the penalties acted apart from the loss.
        train_error: Share of errors on the training examples at the end.
        test_error: Share of errors on the held-out examples, if there are any.
        history: Every epoch.
        layers: Every layer.
        provenance: Versions, seed and settings.
    """

    task: str
    steps: int
    stopped: str | None
    decoupled: bool
    train_error: float
    test_error: float | None
    history: tuple[TrainedEpoch, ...]
    layers: tuple[LayerPath, ...]
    provenance: Provenance


# As tables


def epochs_to_csv(history: Iterable[TrainedEpoch]) -> bytes:
    """The text of ``history.csv``."""
    return table(EPOCH_COLUMNS, ([getattr(e, name) for name in EPOCH_COLUMNS] for e in history))


def epochs_from_csv(path: Path) -> list[TrainedEpoch]:
    """The rows of ``history.csv``; none where there is no file.

    Raises:
        RecordError: The file is something else.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                TrainedEpoch(
                    epoch=int(row["epoch"]),
                    step=int(row["step"]),
                    loss=float(row["loss"]),
                    penalty=float(row["penalty"]),
                    lr=_number(row["lr"]),
                    train_error=float(row["train_error"]),
                    test_error=_number(row["test_error"]),
                )
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise RecordError(f"{path} is not a history of tailor train: {error}") from error


def paths_from_csv(path: Path) -> tuple[LayerPath, ...]:
    """The layers of ``layers.csv``, as a ``Monitor`` wrote it."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["layer"], []).append(row)
    return tuple(
        LayerPath(
            name=name,
            steps=tuple(int(row["step"]) for row in found),
            alpha=tuple(_number(row["alpha"]) for row in found),
            **{
                column: tuple(float(row[column]) for row in found)
                for column in ("stable_rank", "spectral_norm", "frobenius_norm")
            },
        )
        for name, found in by_name.items()
    )


def with_look(
    layers: Sequence[LayerPath], step: int, look: Sequence[LayerTail]
) -> tuple[LayerPath, ...]:
    """The paths with one more look at every layer."""
    tails = {one.name: one for one in look}
    return tuple(
        LayerPath(
            name=path.name,
            steps=(*path.steps, step),
            alpha=(*path.alpha, tails[path.name].alpha),
            stable_rank=(*path.stable_rank, tails[path.name].stable_rank),
            spectral_norm=(*path.spectral_norm, tails[path.name].spectral_norm),
            frobenius_norm=(*path.frobenius_norm, tails[path.name].frobenius_norm),
        )
        for path in layers
    )


def paths_to_csv(layers: Sequence[LayerPath]) -> bytes:
    """The text of ``layers.csv``, one row for each look at each layer."""
    looks = len(layers[0].steps) if layers else 0
    return table(
        COLUMNS,
        (
            [path.steps[i], path.name, *(getattr(path, column)[i] for column in COLUMNS[2:])]
            for i in range(looks)
            for path in layers
        ),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV table; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _number(text: str) -> float | None:
    return float(text) if text else None


def save(record: Training, out: Path) -> None:
    """Write the record and its tables; the record last, as it says that the run is complete."""
    records.write(out / "history.csv", epochs_to_csv(record.history))
    records.write(out / "layers.csv", paths_to_csv(record.layers))
    records.save(record, out / "training.json")
