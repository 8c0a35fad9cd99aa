"""Schedules: how strongly a penalty or noise acts at a step, as a pure function of the step."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tailor.errors import UsageError


class Schedule(ABC):
    """A factor for each optimizer step; no state, so resuming needs the step's number only."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor at a step, counted from 0; never negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Schedule):
    """Always one."""

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDecay(Schedule):
    """x^-rate with x = 1 + floor(step / period), and 0 where that is not above ``cutoff``.

    One of the decaying coefficients that Xiao et al. (2023) propose; x begins at 1 here, so that
    the first period has the full weight.

    Attributes:
        period: Steps for which the factor stays as it is, such as the steps of an epoch.
        rate: Power; larger decays faster.
        cutoff: The factor is 0 unless it exceeds this.
    """

    period: int
    rate: float = 1.0
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        _check_decay(self.period, self.rate, self.cutoff)

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return _above(self.cutoff, (1 + step // self.period) ** -self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpDecay(Schedule):
    """exp(-rate floor(step / period)), and 0 where that is not above ``cutoff``.

    Attributes:
        period: Steps for which the factor stays as it is, such as the steps of an epoch.
        rate: Decay in each period.
        cutoff: The factor is 0 unless it exceeds this.
    """

    period: int
    rate: float = 1.0
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        _check_decay(self.period, self.rate, self.cutoff)

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return _above(self.cutoff, math.exp(-self.rate * (step // self.period)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearDecay(Schedule):
    """From 1 at the first step straight down to 0 at step ``steps``, and 0 from there on.

    Attributes:
        steps: First step with factor 0.
    """

    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return max(0.0, 1 - step / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineDecay(Schedule):
    """Half a cosine wave from 1 at the first step to 0 at step ``steps``, and 0 from there on.

    Attributes:
        steps: First step with factor 0.
    """

    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Schedule):
    """One from step ``start`` up to ``stop``, which is left out; 0 elsewhere.

    With ``stop`` before the end of training the rest of it is a cool-down.

    Attributes:
        start: First step with factor 1.
        stop: First step with factor 0 again; None for never.
    """

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise UsageError(
                f"a window needs 0 <= start < stop, but got start {self.start} and stop {self.stop}"
            )

    def __call__(self, step: int) -> float:
        """See ``Schedule.__call__``."""
        return float(step >= self.start and (self.stop is None or step < self.stop))


def _above(cutoff: float, factor: float) -> float:
    return factor if factor > cutoff else 0.0


def _check_decay(period: int, rate: float, cutoff: float) -> None:
    if period < 1 or not rate >= 0 or not 0 <= cutoff < 1:
        raise UsageError(
            "a decay needs period >= 1, rate >= 0 and 0 <= cutoff < 1, but got "
            f"{period}, {rate} and {cutoff}"
        )


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UsageError(f"a schedule needs at least one step, but got steps {steps}")
