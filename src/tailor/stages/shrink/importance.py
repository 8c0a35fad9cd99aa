"""Which units matter: rules that give each unit of a chain a number."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """The weights around the units of one chain, in float64.

    Attributes:
        incoming: For each layer that makes them, the weights of every unit, without bias. A gated
            unit is made by two layers, which are multiplied.
        gain: By how much layers between multiply each unit, such as a BatchNorm.
        outgoing: For each layer that reads them, outputs by units by features (taps, pixels).
        squares: For each of these the mean squares of what it reads, where there are data.
    """

    incoming: tuple[Float[Tensor, "units _"], ...]
    gain: Float[Tensor, "units"]
    outgoing: tuple[Float[Tensor, "_ units _"], ...]
    squares: tuple[Float[Tensor, "units _"], ...] | None = None


class Importance(ABC):
    """Gives every unit a number; those with the smallest are removed.

    Attributes:
        needs_data: Whether it asks for the mean squares of the activations.
    """

    needs_data: ClassVar[bool] = False

    @abstractmethod
    def of(self, units: Units) -> Float[Tensor, "units"]:
        """A number for each unit; comparable within one chain only.

        Args:
            units: The weights around them.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PathScore(Importance):
    """Norm of the incoming weights times norm of the outgoing ones: ||W1[j, :]|| ||W2[:, j]||.

    A ReLU unit can be scaled by s before and by 1/s after without any effect; this product does
    not change then, while either norm alone does. (For one output it is the path norm of
    Neyshabur et al. 2015, arXiv 1503.00036, of the unit.)
    """

    def of(self, units: Units) -> Float[Tensor, "units"]:
        """See ``Importance.of``."""
        strength = units.gain * _column_norms(units)
        for weights in units.incoming:
            strength = strength * weights.square().sum(dim=1).sqrt()
        return strength


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationScore(Importance):
    """Root mean square of the unit on data times norm of its outgoing weights.

    It is the root mean square of what the unit adds to the next layer: for structured removal
    what Wanda (Sun et al. 2024) is for single weights.
    """

    needs_data: ClassVar[bool] = True

    def of(self, units: Units) -> Float[Tensor, "units"]:
        """See ``Importance.of``."""
        total = torch.zeros_like(units.gain)
        for weight, squares in zip(units.outgoing, units.squares or (), strict=True):
            total = total + (weight.square().sum(dim=0) * squares).sum(dim=1)
        return total.sqrt()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowNorm(Importance):
    """Norm of the incoming weights."""

    def of(self, units: Units) -> Float[Tensor, "units"]:
        """See ``Importance.of``."""
        return torch.cat(units.incoming, dim=1).square().sum(dim=1).sqrt()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnNorm(Importance):
    """Norm of the outgoing weights (node pruning of Barsbey et al. 2021, arXiv 2106.03795)."""

    def of(self, units: Units) -> Float[Tensor, "units"]:
        """See ``Importance.of``."""
        return _column_norms(units)


def _column_norms(units: Units) -> Float[Tensor, "units"]:
    squares = [weight.square().sum(dim=(0, 2)) for weight in units.outgoing]
    return torch.stack(squares).sum(dim=0).sqrt()
