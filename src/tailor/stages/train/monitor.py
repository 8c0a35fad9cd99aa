"""Spectra of all layers during training, as a table and in TensorBoard."""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tailor import records
from tailor.errors import OutputError, UsageError
from tailor.numerics.powerlaw import HillMid, MatrixFit, TailFit
from tailor.stages.train.tails import LayerTail, tails
from tailor.weights.views import Standard, View

COLUMNS = ("step", "layer", "alpha", "stable_rank", "spectral_norm", "frobenius_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """Measures every layer at the start (step 0) and after every so many steps.

    Attributes:
        every: Steps between two looks.
        csv: File to which rows are appended as they come, one for each layer; its columns are
            those of ``COLUMNS``, alpha being the density exponent, empty where there is no fit. A
            run that begins anew overwrites it, a resumed one goes on where its checkpoint was.
        tensorboard: Folder for TensorBoard; needs the package ``tensorboard``.
        spectrum: Fit of the eigenvalues.
        view: How tensors become matrices.

    Raises:
        UsageError: ``every`` is below 1.
    """

    every: int = 100
    csv: str | os.PathLike[str] | None = None
    tensorboard: str | os.PathLike[str] | None = None
    spectrum: TailFit | MatrixFit = field(default_factory=HillMid)
    view: View = field(default_factory=Standard)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"Monitor needs every >= 1, but got {self.every}")


class Recorder:
    """A monitor at work on one model.

    Args:
        monitor: What to measure, and where it goes.
        model: What is trained.
        start: Steps that were taken before.
        writes: Whether this process writes; all have to look.
    """

    def __init__(self, monitor: Monitor, model: nn.Module, start: int, *, writes: bool) -> None:
        self._monitor, self._model = monitor, model
        self._csv = Path(monitor.csv) if writes and monitor.csv is not None else None
        self._board: Any = None
        if writes and monitor.tensorboard is not None:
            self._board = _board(monitor.tensorboard, start)
        if self._csv is not None:
            _begin(self._csv, start)
        if start == 0:
            self._measure(0)

    def look(self, step: int) -> tuple[LayerTail, ...]:
        """Every layer, where a look is due after this step; else nothing."""
        return self._measure(step) if step % self._monitor.every == 0 else ()

    def _measure(self, step: int) -> tuple[LayerTail, ...]:
        found = tails(self._model, self._monitor.spectrum, self._monitor.view)
        if self._csv is not None:
            _append(self._csv, [_row(step, one) for one in found])
        if self._board is not None:
            for one in found:
                for column, value in zip(COLUMNS[2:], _row(step, one)[2:], strict=True):
                    if value is not None:
                        self._board.add_scalar(f"{column}/{one.name}", value, step)
            self._board.flush()
        return found

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def _row(step: int, one: LayerTail) -> list[Any]:
    return [step, one.name, one.alpha, one.stable_rank, one.spectral_norm, one.frobenius_norm]


def _begin(path: Path, start: int) -> None:
    """A table with the rows up to step ``start``, and a head.

    Raises:
        UsageError: The file is another kind of table.
        OutputError: It cannot be written.
    """
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            head, *rows = list(csv.reader(file)) or [list(COLUMNS)]
        if head != list(COLUMNS):
            raise UsageError(
                f"{path} is no table of a Monitor (its first line is {','.join(head)[:60]!r}); "
                "choose another file"
            )
    kept = [
        row
        for row in rows
        if start > 0 and len(row) == len(COLUMNS) and row[0].isdigit() and int(row[0]) <= start
    ]
    records.write(path, _text([list(COLUMNS), *kept]).encode())


def _append(path: Path, rows: Iterable[list[Any]]) -> None:
    try:
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(_text(rows))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error


def _text(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _board(folder: str | os.PathLike[str], start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "Monitor(tensorboard=...) needs the package tensorboard; install it: "
            "pip install tensorboard"
        ) from None
    return SummaryWriter(os.fspath(folder), purge_step=start + 1 if start > 0 else None)
