"""Which values weights may take; method values for ``compress``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.coding import MAX_LEVEL, round_step


class Quantizer(ABC):
    """Puts a weight tensor on a grid."""

    unit_step: bool

    @abstractmethod
    def step(self, weights: Float[Tensor, "..."]) -> float:
        """The step of the grid for this tensor."""

    @abstractmethod
    def levels(self, weights: Float[Tensor, "..."], step: float) -> Int[Tensor, "..."]:
        """Levels of the nearest grid points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Quantizer):
    """A symmetric grid: weights become -top, ..., -1, 0, 1, ..., top times a step.

    The step is the one with the least squared error among 64 sizes in geometric progression.
    Weights below half a step become zero, which prunes a little more.

    Attributes:
        top: Largest level.
        unit_step: Store the step 1 instead, which saves 16 bits a tensor. Only for networks
            whose decisions do not change when a layer is scaled (ReLU without biases).
    """

    top: int = 3
    unit_step: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MAX_LEVEL:
            raise UsageError(f"top must lie between 1 and {MAX_LEVEL}, but is {self.top}")

    def step(self, weights: Float[Tensor, "..."]) -> float:
        """See ``Quantizer.step``."""
        size = weights[weights != 0].abs().to(torch.float64)
        if size.numel() == 0:
            return 1.0
        largest = float(size.max())
        steps = np.geomspace(largest / (2 * self.top), largest, 64)
        if self.top > 8:  # fine grids clip nothing: finer steps than the largest needs do not help
            steps = np.geomspace(largest / (1.5 * self.top), largest / self.top, 64)
        errors = [float((_nearest(size, s, self.top) * s - size).square().sum()) for s in steps]
        return round_step(float(steps[int(np.argmin(errors))]))

    def levels(self, weights: Float[Tensor, "..."], step: float) -> Int[Tensor, "..."]:
        """See ``Quantizer.levels``."""
        size = weights.detach().abs().to(torch.float64)
        return (weights.detach().sign() * _nearest(size, step, self.top)).to(torch.int64)


def _nearest(size: Tensor, step: float, top: int) -> Tensor:
    return (size / step).round().clamp(max=top)
