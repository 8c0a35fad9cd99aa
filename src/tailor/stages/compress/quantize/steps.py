"""Quantizers whose values are the multiples of one step."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.codebooks import (
    Ranked,
    largest_step,
    least_squares_step,
    nearest_levels,
    step_at_entropy,
    step_below,
    step_within,
)
from tailor.numerics.coding import MAX_LEVEL, round_step
from tailor.stages.compress.quantize.quantizer import (
    WIDE,
    OnGrid,
    Quantizer,
    check_bits,
    check_share,
    flat,
    one_of,
    relative,
)


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

    def fit(self, weights: Float[Tensor, "*shape"]) -> OnGrid:
        """See ``Quantizer.fit``."""
        return OnGrid(step=self.step(weights), top=self.top, unit_step=self.unit_step)

    def step(self, weights: Float[Tensor, "*shape"]) -> float:
        """The step for these weights."""
        size = weights.detach()[weights != 0].abs().to(torch.float64)
        if size.numel() == 0:
            return 1.0
        largest = float(size.max())
        steps = np.geomspace(largest / (2 * self.top), largest, 64)
        if self.top > 8:  # fine grids clip nothing: finer steps than the largest needs do not help
            steps = np.geomspace(largest / (1.5 * self.top), largest / self.top, 64)
        errors = [float((_nearest(size, s, self.top) * s - size).square().sum()) for s in steps]
        return round_step(float(steps[int(np.argmin(errors))]))

    def levels(self, weights: Float[Tensor, "*shape"], step: float) -> Int[Tensor, "*shape"]:
        """Levels of the nearest grid points."""
        return torch.as_tensor(nearest_levels(flat(weights), step, self.top)).reshape(weights.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformStep(Quantizer):
    """Multiples of one step a tensor, which an entropy coder then makes short.

    With an entropy coder this is the quantizer to beat: for few losses and independent weights
    no other one takes more than 1/4 bit a weight less (Gish & Pierce 1968), and outliers cost
    levels but hardly any bits. Exactly one of the following is given.

    Attributes:
        tolerance: Relative squared error of each tensor, |w - q|^2 / |w|^2; the largest step
            that keeps it.
        bits: At most 2^bits - 1 levels; the step with the least squared error. What lies beyond
            the last level is cut off.
        entropy: Order-0 entropy of the levels, in bits a weight; the smallest step that keeps it.
        step: The step itself, for all tensors; rounded to a bfloat16 number.
    """

    tolerance: float | None = None
    bits: int | None = None
    entropy: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        one_of(self, tolerance=self.tolerance, bits=self.bits, entropy=self.entropy, step=self.step)
        check_share("tolerance", self.tolerance)
        check_bits(self.bits, 2, 16)
        if self.entropy is not None and not 0 < self.entropy < math.inf:
            raise UsageError(f"entropy must be a positive number of bits, but is {self.entropy}")
        if self.step is not None and not 0 < self.step < 1e38:
            raise UsageError(f"step must be a positive number, but is {self.step}")

    def fit(self, weights: Float[Tensor, "*shape"]) -> OnGrid:
        """See ``Quantizer.fit``."""
        if self.tolerance is not None:
            return _within(weights, self.tolerance)
        if self.bits is not None:
            top = 2 ** (self.bits - 1) - 1
            return OnGrid(step=least_squares_step(Ranked.of(flat(weights)), top), top=top)
        if self.entropy is not None:
            return OnGrid(step=step_at_entropy(flat(weights), self.entropy))
        assert self.step is not None
        return OnGrid(step=max(round_step(self.step), step_below(0.0)))


def _within(weights: Tensor, tolerance: float) -> OnGrid:
    step = step_within(flat(weights), tolerance)
    if step is not None and weights.dtype not in WIDE:
        step = _within_narrow(weights, tolerance, step)
    if step is None:
        raise UsageError(
            f"a relative squared error of {tolerance:g} takes more than {MAX_LEVEL} levels on "
            "either side; allow a larger one, or store the tensor as it is"
        )
    return OnGrid(step=step)


def _within_narrow(weights: Tensor, tolerance: float, most: float) -> float | None:
    """The step for a type that rounds the multiples, too, which may lose a little more."""

    def excess(step: float) -> float:
        rounded = OnGrid(step=step).round(weights).cpu()
        return relative(weights.cpu(), rounded) / tolerance

    if excess(most) <= 1:
        return most
    least = float(weights.abs().max()) / MAX_LEVEL
    return largest_step(excess, guess=step_below(most), least=least, most=step_below(most))


def _nearest(size: Tensor, step: float, top: int) -> Tensor:
    return (size / step).round().clamp(max=top)
