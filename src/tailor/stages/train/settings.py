"""The arguments of ``train``: what makes no sense, and what a checkpoint has to agree with."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tailor.errors import UsageError
from tailor.stages.regularize import Penalty
from tailor.stages.train.batches import Pair
from tailor.stages.train.checkpoint import Checkpoint, Part
from tailor.stages.train.monitor import Monitor
from tailor.stages.train.precision import DTYPES
from tailor.stages.train.processes import Processes, inner
from tailor.stages.train.step import Loss
from tailor.stages.train.stopping import StopRule


@runtime_checkable
class Attached(Part, Protocol):
    """Noise at work in the steps of an optimizer."""

    def remove(self) -> None:
        """Take it out of the optimizer."""
        ...


@runtime_checkable
class Noise(Protocol):
    """What adds noise to the weights after each step."""

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Attached:
        """Act in every step of the optimizer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """The arguments of ``train``, which explains them."""

    model: nn.Module
    batches: Iterable[Pair]
    loss: Loss
    optimizer: torch.optim.Optimizer
    penalties: tuple[Penalty, ...]
    decoupled: bool
    noise: Noise | None
    schedulers: tuple[LRScheduler, ...]
    precision: str
    accumulate: int
    compile: bool
    clip_norm: float | None
    checkpoint: Checkpoint | None
    monitor: Monitor | None
    stop: tuple[StopRule, ...]
    seed: int

    def check(self) -> None:
        """Refuse what cannot be trained so.

        Raises:
            UsageError: An argument makes no sense, alone or with another.
        """
        if self.precision not in DTYPES:
            names = ", ".join(DTYPES)
            raise UsageError(f"precision must be one of {names}, but is {self.precision!r}")
        if self.accumulate < 1:
            raise UsageError(f"accumulate must be at least 1 batch, but is {self.accumulate}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"clip_norm must be above 0, or None, but is {self.clip_norm}")
        _check_parameters(self.model, self.optimizer)
        _check_optimizer(self.optimizer, self.schedulers)

    def told(self, processes: Processes) -> dict[str, str]:
        """What decides about the course of the run, as text."""
        state = inner(self.model).state_dict()
        shapes = {name: tuple(getattr(one, "shape", ())) for name, one in state.items()}
        groups = [len(group["params"]) for group in self.optimizer.param_groups]
        told: dict[str, Any] = {
            "the model": ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "the optimizer": (type(self.optimizer).__name__, self.optimizer.defaults, groups),
            "schedulers": [type(one).__name__ for one in self.schedulers],
            "penalties": self.penalties,
            "decoupled": self.decoupled,
            "noise": self.noise,
            "precision": self.precision,
            "accumulate": self.accumulate,
            "clip_norm": self.clip_norm,
            "stop": self.stop,
            "seed": self.seed,
            "processes": processes,
        }
        # addresses in memory tell nothing
        return {name: re.sub(r" at 0x[0-9a-f]+", "", str(value)) for name, value in told.items()}


def _check_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    trained = {name: p for name, p in inner(model).named_parameters() if p.requires_grad}
    if not trained:
        raise UsageError("no parameter of the model requires a gradient, so there is none to train")
    for name, parameter in trained.items():
        if parameter.dtype is torch.float16:
            raise UsageError(
                f"{name} is stored in float16, in which small updates round to nothing; keep the "
                'weights in float32 (model.float()) and set precision="float16"'
            )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in trained.values()):
        raise UsageError(
            "the optimizer holds no parameter of this model; make it from model.parameters(), "
            "after the model was moved, wrapped or sharded"
        )


def _check_optimizer(optimizer: torch.optim.Optimizer, schedulers: Sequence[LRScheduler]) -> None:
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UsageError(
            "LBFGS evaluates the loss several times a step, which train does not; use another "
            "optimizer"
        )
    for one in schedulers:
        if isinstance(one, ReduceLROnPlateau):
            raise UsageError(
                "ReduceLROnPlateau needs a value at each step; call it in the body of the loop"
            )
