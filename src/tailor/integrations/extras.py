"""Penalties, noise and a monitor in a training loop that belongs to another package."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from glob import escape
from statistics import fmean
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from tailor.errors import UsageError
from tailor.stages.noise import StableNoise
from tailor.stages.regularize import Penalty, Regularizer
from tailor.stages.targets import targets
from tailor.stages.train import LayerTail, Monitor, Noise
from tailor.stages.train.monitor import Recorder
from tailor.stages.train.sharded import restored

State: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What is added to a training loop.

    Attributes:
        penalties: Act apart from the loss, in each step of the optimizer that holds the weight.
        noise: Is added after each step.
        monitor: Looks at the spectra of the layers.

    Raises:
        UsageError: There is nothing to add.
    """

    penalties: tuple[Penalty, ...] = ()
    noise: Noise | None = None
    monitor: Monitor | None = None

    def __post_init__(self) -> None:
        if not self.penalties and self.noise is None and self.monitor is None:
            raise UsageError("TailorCallback has nothing to do; give it penalties, noise, monitor")

    def attach(
        self,
        model: nn.Module,
        optimizers: Sequence[Any],
        *,
        step: int,
        writes: bool,
        state: State | None = None,
    ) -> "AtWork":
        """Begin, or go on from a state.

        Args:
            model: What is trained.
            optimizers: All its optimizers, also wrapped by accelerate.
            step: Steps that were taken before, for the monitor.
            writes: Whether this process writes the monitor's files.
            state: What ``AtWork.state_dict`` gave, or None to begin anew.

        Raises:
            UsageError: A weight or an optimizer cannot take part, or the state does not fit.
        """
        plain = [_plain(one) for one in optimizers]
        acts = bool(self.penalties) or self.noise is not None
        for one in plain:
            if acts and isinstance(one, torch.optim.LBFGS):
                raise UsageError(
                    "LBFGS evaluates the loss several times a step, so nothing can act in its "
                    "steps; use another optimizer"
                )
        work = AtWork(self.monitor)
        try:
            work.attach_penalties(model, plain, self.penalties)
            if self.noise is not None:
                work.attach_noise(model, plain, self.noise)
            if state is not None:
                work.load_state_dict(state, _device(model))
            work.watch(model, step, writes=writes)
        except BaseException:
            work.remove()
            raise
        return work


class AtWork:
    """Penalties, noise and monitor at work, made by ``Extras.attach``.

    Args:
        monitor: What to measure, or None.

    Attributes:
        ends: What has to be undone at the end.
    """

    def __init__(self, monitor: Monitor | None) -> None:
        self.ends = ExitStack()
        self._monitor = monitor
        self._recorder: Recorder | None = None
        self._penalties: list[Any] = []  # for each optimizer what acts in its steps, or None
        self._noise: list[Any] = []

    def attach_penalties(
        self, model: nn.Module, optimizers: Sequence[Optimizer], penalties: Sequence[Penalty]
    ) -> None:
        """To each optimizer those for the weights that it holds."""
        shares = [_shares(model, optimizers, one, _acted_on(model, one)) for one in penalties]
        for index, optimizer in enumerate(optimizers if penalties else ()):
            own = [one for share in shares if (one := share[index]) is not None]
            regularizer = Regularizer(model, own) if own else None
            if regularizer is not None:
                self.ends.callback(regularizer.attach(optimizer).remove)
            self._penalties.append(regularizer)

    def attach_noise(self, model: nn.Module, optimizers: Sequence[Optimizer], noise: Noise) -> None:
        """To each optimizer that for the weights that it holds."""
        for own, optimizer in zip(_parts(model, optimizers, noise), optimizers, strict=True):
            injector = None if own is None else own.attach(model, optimizer)
            if injector is not None:
                self.ends.callback(injector.remove)
            self._noise.append(injector)

    def watch(self, model: nn.Module, step: int, *, writes: bool) -> None:
        """Begin to look; at step 0 the first look follows at once."""
        if self._monitor is not None:
            self._recorder = Recorder(self._monitor, model, step, writes=writes)
            self.ends.callback(self._recorder.close)

    def look(self, step: int) -> tuple[LayerTail, ...]:
        """Every layer, where the monitor is due after this step; else nothing."""
        return () if self._recorder is None else self._recorder.look(step)

    def remove(self) -> None:
        """Take everything out of the optimizers; the state stays."""
        self.ends.close()

    def state_dict(self) -> State:
        """Tensors and plain values, for a checkpoint."""
        return {
            "penalties": [None if one is None else one.state_dict() for one in self._penalties],
            "noise": [None if one is None else one.state_dict() for one in self._noise],
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a state.

        Raises:
            UsageError: It is of other penalties, noise or optimizers.
        """
        for name, parts in (("penalties", self._penalties), ("noise", self._noise)):
            stored = state[name]
            if [one is None for one in stored] != [one is None for one in parts]:
                raise UsageError(
                    f"the checkpoint was written with {name} on {_count(stored)}, but now it is "
                    f"{_count(parts)}; use the same penalties, noise and optimizers"
                )
            for part, own in zip(parts, stored, strict=True):
                if part is not None:
                    part.load_state_dict(restored(part, own, device))


def summary(layers: Sequence[LayerTail]) -> dict[str, float]:
    """Means over the layers, for the log of a training loop; alpha over those with a fit."""
    alphas = [one.alpha for one in layers if one.alpha is not None]
    means = {"mean_alpha": fmean(alphas)} if alphas else {}
    return means | {
        "mean_stable_rank": fmean(one.stable_rank for one in layers),
        "mean_spectral_norm": fmean(one.spectral_norm for one in layers),
    }


# Several optimizers: a weight belongs to the first that holds it


def _acted_on(model: nn.Module, penalty: Penalty) -> tuple[str, ...]:
    """Names of the weights that a penalty acts on, without those that are too small for it."""
    who, skipped = type(penalty).__name__, Regularizer(model, [penalty]).skipped
    found = targets(model, penalty.layers, penalty.skip, who=who)
    return tuple(one.name for one in found if f"{who} {one.name}" not in skipped)


def _shares(
    model: nn.Module, optimizers: Sequence[Optimizer], penalty: Penalty, names: Sequence[str]
) -> list[Penalty | None]:
    """For each optimizer the penalty on the weights that it holds, or None."""
    if len(optimizers) == 1:
        return [penalty]
    own = _held(model, optimizers, names, type(penalty).__name__)
    return [replace(penalty, layers=patterns) if patterns else None for patterns in own]


def _parts(model: nn.Module, optimizers: Sequence[Optimizer], noise: Noise) -> list[Noise | None]:
    """For each optimizer the noise on the weights that it holds, or None."""
    if len(optimizers) == 1:
        return [noise]
    if not isinstance(noise, StableNoise):
        raise UsageError(
            f"{type(noise).__name__} cannot be divided between {len(optimizers)} optimizers; use "
            "StableNoise, or one optimizer"
        )
    every = torch.optim.SGD(list(_unique(optimizers).values()), lr=1.0)
    probe = noise.attach(model, every)  # says which weights it would change
    probe.remove()
    own = _held(model, optimizers, probe.names, "StableNoise")
    return [
        replace(noise, layers=patterns, skip=(), targets="all") if patterns else None
        for patterns in own
    ]


def _held(
    model: nn.Module, optimizers: Sequence[Optimizer], names: Sequence[str], who: str
) -> list[tuple[str, ...]]:
    """For each optimizer patterns of the weights among ``names`` that it holds."""
    held = [_identities(one) for one in optimizers]
    own: list[list[str]] = [[] for _ in optimizers]
    for one in targets(model, tuple(map(escape, names)), who=who):
        first = next((i for i, ids in enumerate(held) if id(one.parameter) in ids), None)
        if first is None:
            raise UsageError(
                f"no optimizer holds {one.name}, on which {who} would act; leave it out with "
                f"skip=({one.name!r},)"
            )
        own[first].append(escape(one.name))
    return [tuple(patterns) for patterns in own]


def _identities(optimizer: Optimizer) -> set[int]:
    return {id(one) for group in optimizer.param_groups for one in group["params"]}


def _unique(optimizers: Sequence[Optimizer]) -> dict[int, Any]:
    """Every parameter once."""
    groups = [group for one in optimizers for group in one.param_groups]
    return {id(one): one for group in groups for one in group["params"]}


# Steps of other packages


def _plain(optimizer: Any) -> Optimizer:
    """The optimizer of PyTorch inside the wrapper of accelerate.

    Raises:
        UsageError: There is none.
    """
    inside = optimizer
    while type(inside).__module__.startswith("accelerate."):
        inside = inside.optimizer
    if not isinstance(inside, Optimizer):
        raise UsageError(
            f"{type(inside).__name__} is no torch.optim.Optimizer, so nothing can act in its "
            "steps; train without DeepSpeed, for example with DDP or fully_shard"
        )
    return inside


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _count(parts: Sequence[Any]) -> str:
    return f"{sum(one is not None for one in parts)} of {len(parts)} optimizers"
