"""Checkpoints: a run that was killed at any moment goes on as if it had not been."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from tailor import records
from tailor.errors import OutputError, RecordError, UsageError
from tailor.stages.train.processes import Processes
from tailor.stages.train.sharded import plain, restored

NAME, MARK = "checkpoint.pt", "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a run is stored, and how often; ``train`` goes on from what it finds there.

    Attributes:
        folder: Holds the last checkpoint of one run, and nothing else. Delete it to begin anew.
        every: Steps between two checkpoints; one more is written when training ends.
        same_batches: Refuse to go on if the last batch that was used is not the same one again.
            False is for batches that are drawn afresh in each run, such as random augmentation
            without a seed; the resumed run then is another one than without the break.

    Raises:
        UsageError: ``every`` is below 1.
    """

    folder: str | os.PathLike[str]
    every: int = 100
    same_batches: bool = True

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"Checkpoint needs every >= 1, but got {self.every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a run has come.

    Attributes:
        step: Optimizer steps taken.
        used: Batches used.
        last: Checksum of the last of them.
        stopped: Why a stop rule ended the run; None if none did.
    """

    step: int = 0
    used: int = 0
    last: int = 0
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What ``checkpoint.json`` holds: which files of a sharded model are a whole checkpoint.

    Attributes:
        step: Step in the names of the files.
        world: Number of files.
    """

    step: int
    world: int


@runtime_checkable
class Part(Protocol):
    """Anything with a state: model, optimizer, schedulers, penalties, noise, scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Its state: tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take up a state."""
        ...


class Keeper:
    """Writes and reads the checkpoints of one run.

    One process, or the first of those that train with DDP, writes ``checkpoint.pt``. With a
    sharded model every process writes a file of its own with the step in its name; when all are
    there the first one writes ``checkpoint.json``, which makes them valid. At every moment the
    folder holds one whole checkpoint, the old one or the new one.

    Args:
        where: The folder.
        parts: What is stored, by name.
        settings: What a checkpoint must agree with, by name.
        processes: Who trains.
    """

    def __init__(
        self,
        where: Checkpoint,
        parts: Mapping[str, Part],
        settings: Mapping[str, str],
        processes: Processes,
    ) -> None:
        self._folder, self._parts, self._settings = Path(where.folder), parts, dict(settings)
        self._processes, self._checked = processes, False

    def resume(self) -> Place:
        """Take up the last checkpoint; the beginning if there is none.

        Raises:
            UsageError: The checkpoint is of other settings or another model.
            RecordError: It cannot be read.
        """
        path = self._found()
        if path is None:
            return Place()
        state = _load(path)
        self._compare(path, state["settings"])
        for name, part in self._parts.items():
            try:
                _take_up(part, restored(part, state["parts"][name], self._processes.device))
            except (RuntimeError, ValueError, KeyError) as error:
                raise UsageError(
                    f"the {name} of {path} does not fit this run ({_first_line(error)}); use the "
                    "same model and settings, or another folder"
                ) from error
        return Place(**state["place"])

    def _found(self) -> Path | None:
        alone, mark = self._folder / NAME, self._folder / MARK
        sharded = self._processes.sharded
        if (mark if not sharded else alone).exists():
            was = "a sharded model" if not sharded else "a model that is not sharded"
            raise UsageError(
                f"{self._folder} holds a checkpoint of {was}; go on in the same way, or use "
                "another folder"
            )
        if not sharded:
            return alone if alone.exists() else None
        if not mark.exists():
            return None
        whole = records.load(Mark, mark)
        if whole.world != self._processes.world:
            raise UsageError(
                f"the checkpoint in {self._folder} is of {whole.world} processes, but now there "
                f"are {self._processes.world}; use as many again, or another folder"
            )
        return self._shard(whole.step)

    def _shard(self, step: int | str) -> Path:
        rank, world = self._processes.rank, self._processes.world
        return self._folder / f"checkpoint-{step}-{rank}-of-{world}.pt"

    def _compare(self, path: Path, stored: Mapping[str, str]) -> None:
        for name, now in self._settings.items():
            was = stored.get(name, "unknown")
            if was != now:
                then, today = _apart(was, now)
                raise UsageError(
                    f"{path} was written with {name} = {then}, but now it is {today}; use the "
                    "same settings, or another folder"
                )

    def save(self, place: Place) -> None:
        """Write a checkpoint; all processes wait until it is whole.

        Raises:
            OutputError: The folder cannot be written.
            UsageError: A part has a state that is more than tensors and plain values.
        """
        sharded, first = self._processes.sharded, self._processes.rank == 0
        path = self._shard(place.step) if sharded else self._folder / NAME
        self._together((lambda: self._write(path, place)) if first or sharded else None)
        if not sharded:
            return
        mark = Mark(step=place.step, world=self._processes.world)
        self._together((lambda: records.save(mark, self._folder / MARK)) if first else None)
        for old in self._folder.glob(f"{self._shard('*').name}*"):
            if old != path:
                old.unlink(missing_ok=True)

    def _together(self, work: Any) -> None:
        """Do this process' part and wait for the others; a failure of one stops all."""
        failure: Exception | None = None
        try:
            if work is not None:
                work()
        except (OutputError, UsageError) as error:
            failure = error
        failed = self._processes.any_failed(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise OutputError(f"another process could not write its checkpoint to {self._folder}")

    def _write(self, path: Path, place: Place) -> None:
        state = {
            "settings": self._settings,
            "place": {name: getattr(place, name) for name in Place.__slots__},
            "parts": {name: plain(part.state_dict()) for name, part in self._parts.items()},
        }
        aside = path.with_name(f"{path.name}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            self._check(aside)
            os.replace(aside, path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise OutputError(f"{path} cannot be written ({error.strerror})") from error

    def _check(self, path: Path) -> None:
        """The first file of a run must be readable, rather than the one that is needed."""
        if self._checked:
            return
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UsageError(
                f"a state holds more than tensors and plain values ({_first_line(error)}); keep "
                "such a scheduler or penalty out of train, or without a checkpoint"
            ) from error
        self._checked = True


def _load(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if {"settings", "place", "parts"} <= state.keys():
            return state
    except (OSError, RuntimeError, ValueError, EOFError, AttributeError) as error:
        raise RecordError(
            f"{path} cannot be read ({_first_line(error)}); delete it to begin anew"
        ) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged; delete it to begin anew") from error
    raise RecordError(f"{path} is no checkpoint of train; use another folder")


def _take_up(part: Part, state: dict[str, Any]) -> None:
    """Load a state; an optimizer keeps its parameter groups, which hooks may hold."""
    groups = list(part.param_groups) if isinstance(part, torch.optim.Optimizer) else []
    part.load_state_dict(state)
    if isinstance(part, torch.optim.Optimizer):
        for old, new in zip(groups, part.param_groups, strict=True):
            old.clear()
            old.update(new)
        part.param_groups[:] = groups


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200]


def _apart(was: str, now: str) -> tuple[str, str]:
    """Two texts from where they begin to differ."""
    pairs = zip(was, now, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(was), len(now)))
    start = 0 if same < 60 else same - 20
    return was[start : start + 120], now[start : start + 120]
