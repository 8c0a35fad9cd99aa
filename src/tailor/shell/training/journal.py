"""What a run writes down on its way, so that it is all there when the run was cut short."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TextIO

from tailor import records
from tailor.errors import OutputError
from tailor.shell.training.record import (
    TrainedEpoch,
    epochs_from_csv,
    epochs_to_csv,
    table,
)
from tailor.stages.train import Step

STEPS, HISTORY = "steps.csv", "history.csv"
STEP_COLUMNS = ("step", "loss", "penalty", "gradient_norm", "lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Shares of errors on the training examples and on the held-out ones, if there are any."""

    train: float
    test: float | None


class Journal:
    """Keeps ``steps.csv``, a line for each step, and ``history.csv``, a line for each epoch.

    Args:
        out: Folder of the files. Lines of steps after ``start`` are of a part of the run that is
            lost, and are dropped.
        ends: The step with which each epoch ends.
        start: Steps that were taken before.
        errors: Measures the network as it is.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(
        self, out: Path, ends: list[int], start: int, errors: Callable[[], Errors]
    ) -> None:
        self._path, self._out, self._ends, self._errors = out / STEPS, out, ends, errors
        history = epochs_from_csv(out / HISTORY) if start > 0 else []
        self.history = [one for one in history if one.step <= start]
        rows = [row for row in _rows(self._path) if int(row[0]) <= start]
        last = self.history[-1].step if self.history else 0
        self._open = [_seen(row) for row in rows if int(row[0]) > last]  # no epoch has them yet
        records.write(self._path, table(STEP_COLUMNS, rows))
        self._write_history()
        self._file: TextIO = self._path.open("a", buffering=1, newline="", encoding="utf-8")

    def add(self, step: Step) -> bool:
        """Write a step down; whether an epoch, or the run, ended with it."""
        row = (step.number, step.loss, step.penalty, step.gradient_norm, step.lr)
        try:
            self._file.write(",".join("" if one is None else repr(one) for one in row) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror})") from error
        self._open.append((step.number, step.loss, step.penalty, step.lr))
        if step.stopped is None and step.number != self._end_of_epoch():
            return False
        self.close_epoch()
        return True

    def is_behind(self, step: int) -> bool:
        """Whether an epoch ended with this step, but the run was cut short before its line."""
        return bool(self._open) and self._end_of_epoch() == step

    def close_epoch(self) -> None:
        """Write the line of the epoch, with the errors of the network as it is now."""
        if not self._open:
            return
        found = self._errors()
        self.history.append(
            TrainedEpoch(
                epoch=self._epoch(),
                step=self._open[-1][0],
                loss=fmean(loss for _, loss, _, _ in self._open),
                penalty=fmean(penalty for _, _, penalty, _ in self._open),
                lr=self._open[-1][3],
                train_error=found.train,
                test_error=found.test,
            )
        )
        self._open = []
        self._write_history()

    def _epoch(self) -> int:
        """The epoch of the steps that no line has yet."""
        first = self._open[0][0]
        return next(e for e, end in enumerate(self._ends, start=1) if first <= end)

    def _end_of_epoch(self) -> int:
        return self._ends[self._epoch() - 1]

    def _write_history(self) -> None:
        records.write(self._out / HISTORY, epochs_to_csv(self.history))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def last_step(path: Path) -> int:
    """The last step with a line; 0 if there is none."""
    return max((int(row[0]) for row in _rows(path)), default=0)


def _rows(path: Path) -> list[list[str]]:
    """Whole lines."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        found = list(csv.reader(file))[1:]
    return [row for row in found if len(row) == len(STEP_COLUMNS) and row[0].isdigit()]


def _seen(row: list[str]) -> tuple[int, float, float, float | None]:
    step, loss, penalty, _, lr = row
    return int(step), float(loss), float(penalty), float(lr) if lr else None
