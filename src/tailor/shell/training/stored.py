"""The checkpoint of a run, and which one counts when the run was cut short.

``train`` writes a checkpoint before its caller hears of the step. A run that is killed in between
has the checkpoint but not the line of that step in ``steps.csv``, and its history would have
a hole. So the checkpoint before is kept until the line is there.
"""

import os
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tailor.errors import OutputError, RecordError
from tailor.shell.training.journal import STEPS, last_step

FOLDER = Path("checkpoint")  # inside that of the run
NEW = FOLDER / "checkpoint.pt"  # where ``train`` writes and reads
KEPT = FOLDER / "before.pt"
PART = FOLDER / "checkpoint.pt.part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A checkpoint, as far as a run looks into it.

    Attributes:
        step: Steps taken.
        stopped: Why a stop rule ended training with that step, if one did.
        model: The network's state; None where there is no checkpoint.
    """

    step: int = 0
    stopped: str | None = None
    model: dict[str, Tensor] | None = None


def exists(out: Path) -> bool:
    """Whether the folder of a run holds a checkpoint."""
    return (out / NEW).is_file() or (out / KEPT).is_file()


def settle(out: Path) -> Stored:
    """Put the checkpoint that counts where ``train`` reads it, and say what is in it.

    Raises:
        RecordError: It cannot be read.
        OutputError: The folder cannot be written.
    """
    new, kept = out / NEW, out / KEPT
    if new.is_file():
        found = _read(new)
        if found.step <= last_step(out / STEPS):
            return found
        new.unlink()
    if not kept.is_file():
        return Stored()
    try:
        shutil.copyfile(kept, out / PART)
        os.replace(out / PART, new)
    except OSError as error:
        raise OutputError(f"{new} cannot be written ({error.strerror})") from error
    return _read(new)


def keep(out: Path) -> None:
    """Keep the newest checkpoint, now that the line of its step is written."""
    if (out / NEW).is_file():
        os.replace(out / NEW, out / KEPT)


def forget(out: Path) -> None:
    """Remove every checkpoint."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _read(path: Path) -> Stored:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        place = found["place"]
        return Stored(step=place["step"], stopped=place["stopped"], model=found["parts"]["model"])
    except (
        *(OSError, RuntimeError, ValueError, EOFError, AttributeError, KeyError, TypeError),
        *(pickle.UnpicklingError, zipfile.BadZipFile),
    ) as error:
        raise RecordError(f"{path} is damaged; give --again to begin anew") from error
