"""What a folder holds: its records, read and validated."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tailor import records
from tailor.errors import RecordError
from tailor.shell.demo import Compression, Epoch
from tailor.shell.training.record import EPOCH_COLUMNS, Training
from tailor.stages.analyze import Analyses
from tailor.stages.certify import Certificate
from tailor.stages.compare import Comparison
from tailor.stages.compress import CompressionReport

READ = (
    "analysis.json",
    "comparison.json",
    "compression.json",
    "compressed.json",
    "certificate.json",
    "training.json",
    "history.csv",
)
CARRIED = (
    "seed",
    "tailor",
    "torch",
    "settings",
)  # columns of history.csv that repeat the provenance

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a folder holds; each of them may be missing.

    Attributes:
        analyses: ``analysis.json``.
        comparison: ``comparison.json``.
        compression: ``compression.json``.
        packed: ``compressed.json``.
        certificate: ``certificate.json``.
        training: ``training.json``.
        history: ``history.csv`` of the demo, row by row. That of a run is in its record.
    """

    analyses: Analyses | None
    comparison: Comparison | None
    compression: Compression | None
    packed: CompressionReport | None
    certificate: Certificate | None
    training: Training | None
    history: tuple[Epoch, ...]


_NOTHING = Results(
    analyses=None,
    comparison=None,
    compression=None,
    packed=None,
    certificate=None,
    training=None,
    history=(),
)


def read(folder: Path) -> Results:
    """Read every record that a folder holds.

    Raises:
        RecordError: There is none, or one is damaged.
    """
    if not any((folder / name).is_file() for name in READ):
        raise RecordError(
            f"{folder} holds no results: a report needs at least one of {', '.join(READ)}; "
            "make them with `tailor demo --out DIR`, `tailor train --out DIR` or "
            "`tailor analyze SOURCE --out DIR`"
        )
    history = folder / "history.csv"
    found = Results(
        analyses=_load(Analyses, folder / "analysis.json"),
        comparison=_load(Comparison, folder / "comparison.json"),
        compression=_load(Compression, folder / "compression.json"),
        packed=_load(CompressionReport, folder / "compressed.json"),
        certificate=_load(Certificate, folder / "certificate.json"),
        training=_load(Training, folder / "training.json"),
        history=_history(history) if history.is_file() else (),
    )
    if found == _NOTHING:
        raise RecordError(
            f"{folder} holds a run that is not finished; give its `tailor train` command again"
        )
    return found


def _load(kind: type[Record], path: Path) -> Record | None:
    return records.load(kind, path) if path.is_file() else None


def _history(path: Path) -> tuple[Epoch, ...]:
    """Rows of the demo's ``history.csv``, validated like any record; none if it is of a run."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) == EPOCH_COLUMNS:
                return ()
            return tuple(_epoch(row) for row in rows)
    except (ValueError, TypeError, csv.Error, RecordError) as error:
        raise RecordError(f"{path} is not a history of tailor: {error}") from None


def _epoch(row: dict[str, str]) -> Epoch:
    """A row of text as a record."""
    kinds = {"network": str, "epoch": int}
    values: records.Json = {
        "type": "Epoch",
        **{k: kinds.get(k, float)(text) for k, text in row.items() if k not in CARRIED},
    }
    return records.from_json(Epoch, values)
