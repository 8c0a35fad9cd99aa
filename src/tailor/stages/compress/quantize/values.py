"""Quantizers with a table of values for each tensor, and the choice of the shortest code."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.codebooks import MAX_VALUES, Ranked, kmeans, kmeans_error, kmeans_within
from tailor.numerics.coding import Codebook, Grid
from tailor.numerics.coding.entropy import histogram, order0_bits
from tailor.stages.compress.quantize.quantizer import (
    Fitted,
    OnValues,
    Quantizer,
    check_bits,
    check_share,
    flat,
    one_of,
    relative,
)
from tailor.stages.compress.quantize.steps import UniformStep

TABLE_BITS = 8.0  # tuned by us: about what one symbol takes in a table of frequencies
VALUE_BITS, STEP_BITS = 32.0, 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeans(Quantizer):
    """A table of values for each tensor, each the mean of the weights nearest to it.

    One-dimensional k-means (Lloyd 1982): the least squared error for a number of levels, but not
    for a number of bits after entropy coding, where ``UniformStep`` is better. Zero keeps a
    level of its own if there are weights that are zero. Exactly one of the following is given.

    Attributes:
        levels: At most so many values.
        bits: At most 2^bits values.
        tolerance: Relative squared error of each tensor; the fewest values that keep it.
    """

    levels: int | None = None
    bits: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        one_of(self, levels=self.levels, bits=self.bits, tolerance=self.tolerance)
        check_share("tolerance", self.tolerance)
        check_bits(self.bits, 1, MAX_VALUES.bit_length() - 1)
        if self.levels is not None and not 1 <= self.levels <= MAX_VALUES:
            raise UsageError(f"levels must lie between 1 and {MAX_VALUES}, but is {self.levels}")

    def fit(self, weights: Float[Tensor, "*shape"]) -> OnValues:
        """See ``Quantizer.fit``."""
        ranked = Ranked.of(flat(weights))
        if self.tolerance is not None:
            return _within(ranked, weights.dtype, self.tolerance)
        levels = self.levels or 2 ** (self.bits or 0)
        return OnValues(values=_stored(kmeans(ranked, levels), weights.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortest(Quantizer):
    """For each tensor the shorter of ``UniformStep`` and ``KMeans``.

    Lengths are order-0 entropies with the tables. With ``bits`` the two lose different amounts;
    then lengths at equal loss are compared: a bit a weight is worth a quarter of the squared
    error. Without arguments the tolerance is 0.01.

    Attributes:
        tolerance: Relative squared error of each tensor.
        bits: At most 2^bits values, or 2^bits - 1 multiples of a step.
    """

    tolerance: float | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.tolerance is None and self.bits is None:
            object.__setattr__(self, "tolerance", 0.01)
        one_of(self, tolerance=self.tolerance, bits=self.bits)
        check_share("tolerance", self.tolerance)
        check_bits(self.bits, 1, MAX_VALUES.bit_length() - 1)

    def fit(self, weights: Float[Tensor, "*shape"]) -> Fitted:
        """See ``Quantizer.fit``."""
        found: list[Fitted] = []
        refused: list[UsageError] = []
        for quantizer in self._quantizers():
            try:
                found.append(quantizer.fit(weights))
            except UsageError as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return min(found, key=lambda one: self._cost(one, weights)) if found[1:] else found[0]

    def _quantizers(self) -> list[Quantizer]:
        if self.tolerance is not None:
            return [UniformStep(tolerance=self.tolerance), KMeans(tolerance=self.tolerance)]
        table = KMeans(bits=self.bits)
        return [UniformStep(bits=self.bits), table] if self.bits != 1 else [table]

    def _cost(self, fitted: Fitted, weights: Tensor) -> float:
        """Length in bits; with ``bits`` at the error that no weight would have."""
        bits = length(fitted.code(weights))
        if self.tolerance is not None:
            return bits
        lost = relative(weights.cpu(), fitted.round(weights).cpu())
        return bits + weights.numel() / 2 * math.log2(max(lost, 1e-12))


def length(coded: Grid | Codebook) -> float:
    """About how many bits the code of a tensor takes: order-0 entropy and tables."""
    symbols = coded.levels if isinstance(coded, Grid) else coded.codes
    used = len(histogram(symbols)[0])
    extra = STEP_BITS if isinstance(coded, Grid) else VALUE_BITS * len(coded.values)
    return order0_bits(symbols) + TABLE_BITS * used + extra


def _within(ranked: Ranked, dtype: torch.dtype, tolerance: float) -> OnValues:
    """The fewest values; narrow types round them, so that now and then more are needed."""
    asked = tolerance
    for _ in range(8):
        found = kmeans_within(ranked, asked)
        if found is None:
            break
        values = _stored(found, dtype)
        error = kmeans_error(ranked, values)
        if error <= tolerance:
            return OnValues(values=values)
        asked *= 0.98 * tolerance / error
    raise UsageError(
        f"a relative squared error of {tolerance:g} takes more than {MAX_VALUES} values; "
        "allow a larger one, or use UniformStep"
    )


def _stored(values: Float[ndarray, "k"], dtype: torch.dtype) -> Float[ndarray, "m"]:
    """The values as the tensor's type and a codebook can hold them, each once."""
    held = torch.as_tensor(values).to(dtype).to(torch.float32)
    distinct: ndarray = np.unique(held.numpy() + np.float32(0.0))
    return distinct
