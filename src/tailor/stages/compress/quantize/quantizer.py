"""What a quantizer gives: the values that the weights of one tensor may take."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.codebooks import nearest, nearest_levels
from tailor.numerics.coding import MAX_LEVEL, Codebook, Grid

WIDE = (torch.float32, torch.float64)


class Fitted(ABC):
    """The values that one tensor's weights may take; zero is always one of them."""

    @abstractmethod
    def round(self, weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Each weight's nearest value, in the type of the weights; a zero stays zero."""

    @abstractmethod
    def code(self, weights: Float[Tensor, "*shape"]) -> Grid | Codebook:
        """The same for a file: ``decoded`` gives what ``round`` gives, bit for bit."""


class Quantizer(ABC):
    """Chooses the values that the weights of a tensor may take."""

    @abstractmethod
    def fit(self, weights: Float[Tensor, "*shape"]) -> Fitted:
        """Choose them for finite weights, at least one, of a type from float16 to float64.

        Raises:
            UsageError: The weights cannot be had as closely as asked.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGrid(Fitted):
    """Multiples of a step.

    Attributes:
        step: A positive number that bfloat16 can hold.
        top: Largest level.
        unit_step: ``code`` says 1 for the step, so that what is decoded has another scale.
    """

    step: float
    top: int = MAX_LEVEL
    unit_step: bool = False

    def round(self, weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """See ``Fitted.round``."""
        grid = Grid(levels=self._levels(weights), step=self.step)
        return decoded(grid, weights.dtype).to(weights.device)

    def code(self, weights: Float[Tensor, "*shape"]) -> Grid:
        """See ``Fitted.code``."""
        return Grid(levels=self._levels(weights), step=1.0 if self.unit_step else self.step)

    def _levels(self, weights: Tensor) -> ndarray:
        most = torch.finfo(weights.dtype).max / self.step  # float16 ends at 65504
        levels = nearest_levels(flat(weights), self.step, int(min(self.top, most)))
        return levels.reshape(weights.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnValues(Fitted):
    """Any values.

    Attributes:
        values: In rising order, each once.
    """

    values: Float[ndarray, "k"]

    def round(self, weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """See ``Fitted.round``."""
        return decoded(self.code(weights), weights.dtype).to(weights.device)

    def code(self, weights: Float[Tensor, "*shape"]) -> Codebook:
        """See ``Fitted.code``; if there is no value 0 yet, it is added for weights that are 0."""
        x = flat(weights)
        codes, values = nearest(x, self.values), self.values
        zeros = x == 0
        if bool(zeros.any()):
            place = int(np.searchsorted(values, 0.0))
            if place == len(values) or values[place] != 0:
                values = np.insert(values, place, np.float32(0.0))
                codes[codes >= place] += 1
            codes[zeros] = place
        return Codebook(codes=codes.reshape(weights.shape), values=values)


def decoded(coded: Grid | Codebook, dtype: torch.dtype) -> Tensor:
    """The weights that a code means, in the type of the tensor that they were."""
    if isinstance(coded, Grid):
        return (torch.as_tensor(coded.levels, dtype=torch.float64) * coded.step).to(dtype)
    values = torch.as_tensor(coded.values).to(dtype)
    return values[torch.as_tensor(coded.codes, dtype=torch.int64)]


def flat(weights: Tensor) -> Float[ndarray, "n"]:
    """The weights in a row, in single precision or, if they are wider, in double."""
    plain = weights.detach().cpu()
    plain = plain if plain.dtype in WIDE else plain.to(torch.float32)
    x: ndarray = plain.contiguous().flatten().numpy()
    return x


def one_of(who: object, **given: object) -> None:
    """Refuse more than one of several arguments, or none.

    Raises:
        UsageError: Not exactly one is given.
    """
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        came = " and ".join(named) or "none"
        raise UsageError(
            f"{type(who).__name__} needs exactly one of {', '.join(given)}, but {came} came"
        )


def check_share(name: str, value: float | None) -> None:
    """Refuse what is no relative squared error.

    Raises:
        UsageError: It lies outside (0, 1).
    """
    if value is not None and not 0 < value < 1:
        raise UsageError(
            f"{name} must be a relative squared error between 0 and 1, such as 0.01, but is {value}"
        )


def check_bits(value: int | None, least: int, most: int) -> None:
    """Refuse a number of bits that no set of levels has.

    Raises:
        UsageError: It is no whole number, or out of range.
    """
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise UsageError(f"bits must be a whole number from {least} to {most}, but is {value!r}")


def relative(weights: Tensor, rounded: Tensor) -> float:
    """Relative squared error |w - q|^2 / |w|^2; 0 for weights that are all zero."""
    lost = energy = 0.0
    pieces = zip(
        *(torch.split(one.detach().flatten(), 1 << 16) for one in (weights, rounded)), strict=True
    )
    for w, q in pieces:
        wide = w.to(torch.float64)
        energy += float(wide.square().sum())
        lost += float((q.to(torch.float64) - wide).square().sum())
    return lost / energy if energy > 0 else 0.0
