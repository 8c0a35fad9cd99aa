"""The settings of ``tailor train``: from options and a TOML file, as values, and to TOML again."""

import argparse
import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tailor import records
from tailor.errors import RecordError, TailorError, TaskError, UsageError
from tailor.shell.cli.methods import (
    BALANCES,
    NOISES,
    OPTIMIZERS,
    PENALTIES,
    SCHEDULES,
    STOPS,
    Table,
    as_text,
    method,
)
from tailor.shell.training.plan import Plan, batches_of
from tailor.stages.train import Precision
from tailor.tasks import Data, Task, find

METHODS = ("optimizer", "schedule", "noise", "balance")
LISTS = ("penalty", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run is asked to be, by the names of the options; methods are still texts.

    Attributes:
        task: Name of the task.
        epochs: Times that every example is seen.
        batch: Examples in a batch.
        lr: Learning rate.
        optimizer: One of ``OPTIMIZERS``.
        schedule: One of ``SCHEDULES``, for the learning rate.
        penalty: Of ``PENALTIES``.
        decoupled: Penalties act in the optimizer's step.
        noise: One of ``NOISES``.
        balance: One of ``BALANCES``.
        seed: Of everything random.
        precision: Of the forward pass.
        accumulate: Batches that make one step.
        clip_norm: Longest gradient.
        compile: Whether ``torch.compile`` is used.
        device: Where the network is trained.
        checkpoint_every: Steps between two checkpoints; none without.
        monitor_every: Steps between two looks at the layers; an epoch without.
        stop: Of ``STOPS``.
    """

    task: str
    epochs: int = 60
    batch: int = 128
    lr: float = 5e-3
    optimizer: str = "adam"
    schedule: str = "cosine-decay"
    penalty: tuple[str, ...] = ()
    decoupled: bool = False
    noise: str | None = None
    balance: str | None = None
    seed: int = 0
    precision: Precision = "float32"
    accumulate: int = 1
    clip_norm: float | None = None
    compile: bool = False
    device: str = "cpu"
    checkpoint_every: int | None = None
    monitor_every: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "checkpoint_every", "monitor_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_option(name)} must be at least 1, but is {value}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"--lr must be above 0, but is {self.lr}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be a whole number from 0 up, but is {self.seed}")

    def to_toml(self) -> str:
        """The text of ``train.toml``; what is None is left out."""
        lines = ["# tailor train --config train.toml --out ANOTHER repeats this run."]
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if value is not None:
                lines.append(f"{one.name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def texts(self) -> dict[str, str]:
        """Everything that was chosen, for the provenance."""
        found = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {
            name: "; ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in found.items()
            if value not in (None, ()) and name != "seed"
        }


def given(parsed: argparse.Namespace) -> tuple[Settings, Path | None]:
    """Settings and folder from the options and, where they are silent, from ``--config``.

    Raises:
        UsageError: The file is none, holds an unknown key, or a value makes no sense.
    """
    found = {} if parsed.config is None else read_toml(parsed.config)
    out = found.pop("out", None)
    for one in dataclasses.fields(Settings):
        value = getattr(parsed, one.name)
        if value is not None:
            found[one.name] = tuple(value) if isinstance(value, list) else value
    if "task" not in found:
        raise UsageError("tailor train needs --task: digits, or module:name for your own")
    return Settings(**found), parsed.out or (None if out is None else Path(out))


def read_toml(path: Path) -> dict[str, Any]:
    """Settings by name, of the right types; ``out`` too.

    Raises:
        UsageError: There is no such file, it is no TOML, or holds something else.
    """
    hints = {one.name: one.type for one in dataclasses.fields(Settings)} | {"out": str}
    found: dict[str, Any] = {}
    for key, value in _loaded(path).items():
        name = key.replace("-", "_")
        if name not in hints:
            raise UsageError(f"{path} has an unknown key {key!r}; known are {', '.join(hints)}")
        if name in found:
            raise UsageError(f"{path} has both {name} and {name.replace('_', '-')}; keep one")
        found[name] = _typed(path, name, hints[name], value)
    return found


def _loaded(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; --config needs a TOML file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:  # also text that is not UTF-8
        raise UsageError(f"{path} is not TOML: {error}") from error


def _typed(path: Path, name: str, hint: Any, value: Any) -> Any:
    if name in LISTS:
        values = value if isinstance(value, list) else [value]
        return tuple(as_text(one, f"{path}: {name}") for one in values)
    if name in METHODS:
        return as_text(value, f"{path}: {name}")
    try:
        return records.read_value(hint, value, f"{path}: {name}")
    except RecordError as error:
        raise UsageError(str(error)) from error
    except TypeError as error:  # a date, which JSON has no form for
        raise UsageError(f"{path}: {name} cannot be {value}") from error


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, str):  # as in JSON, where DEL may stand plainly
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


# From settings to a plan


def plan(settings: Settings) -> Plan:
    """Everything as values, with the task's data.

    Raises:
        TailorError: The task, a method or a field is unknown, or a value is out of its range.
    """
    task = find(settings.task)
    return planned(settings, task, *_data(task))


def planned(settings: Settings, task: Task, data: Data, held_out: Data | None) -> Plan:
    """As ``plan``, for a task whose data are there already."""
    an_epoch = batches_of(data, settings.batch)
    if settings.accumulate > an_epoch:
        raise UsageError(
            f"--accumulate {settings.accumulate} is more than the {an_epoch} batches of an epoch"
        )
    steps = -(-an_epoch * settings.epochs // settings.accumulate)
    period = -(-an_epoch // settings.accumulate)
    course = {"steps": steps, "period": period}

    def one(name: str, table: Table, text: str | None, **fill: records.Json) -> Any:
        return None if text is None else method(text, table, _option(name), course | fill)

    return Plan(
        task=task,
        data=data,
        held_out=held_out,
        epochs=settings.epochs,
        batch=settings.batch,
        lr=settings.lr,
        optimizer=one("optimizer", OPTIMIZERS, settings.optimizer),
        schedule=one("schedule", SCHEDULES, settings.schedule),
        penalties=tuple(one("penalty", PENALTIES, text) for text in settings.penalty),
        decoupled=settings.decoupled,
        noise=one("noise", NOISES, settings.noise, seed=settings.seed),
        balance=one("balance", BALANCES, settings.balance, every=period),
        seed=settings.seed,
        precision=settings.precision,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        compile=settings.compile,
        device=_device(settings.device),
        checkpoint_every=settings.checkpoint_every,
        monitor_every=settings.monitor_every or period,
        stop=tuple(one("stop", STOPS, text) for text in settings.stop),
        settings=settings.texts(),
    )


def _data(task: Task) -> tuple[Data, Data | None]:
    try:
        return task.train(), task.test()
    except TailorError:
        raise
    except Exception as error:  # a user's task can fail in any way
        raise TaskError(
            f"the data of the task {task.name} cannot be had: {type(error).__name__}: {error}"
        ) from error


def _device(name: str) -> str:
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is unknown; give cpu, cuda or cuda:1") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def differences(old: Mapping[str, Any], settings: Settings, now: Plan) -> list[str]:
    """What apart from the folder would make a run other than the one in ``train.toml``."""
    try:
        before = Settings(**old)
        if before.task != settings.task:
            return ["task"]
        then = planned(before, now.task, now.data, now.held_out)
    except TypeError as error:
        raise UsageError(f"train.toml has no task ({error})") from error
    return now.differences(then)
