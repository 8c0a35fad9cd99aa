"""Which weights to keep; method values for ``compress``."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tailor.errors import UsageError


class Pruner(ABC):
    """Chooses the weights that stay."""

    sparsity: float

    @abstractmethod
    def keep(self, weights: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Bool[Tensor, "..."]]:
        """For each tensor, which entries stay; entries that are zero never do."""

    @abstractmethod
    def at(self, sparsity: float) -> "Pruner":
        """The same rule at another sparsity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Pruner):
    """Keeps the largest weights of all tensors together.

    Sizes are compared in units of each tensor's root mean square over its non-zero entries, so
    that a layer is not emptied because its weights are small as a whole.

    Attributes:
        sparsity: Share of all weights that become zero, in [0, 1).
    """

    sparsity: float

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise UsageError(f"sparsity must lie in [0, 1), but is {self.sparsity}")

    def keep(self, weights: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Bool[Tensor, "..."]]:
        """See ``Pruner.keep``; ties at the threshold are dropped together."""
        sizes = {name: _relative(w.detach()) for name, w in weights.items()}
        every = torch.cat([size.flatten() for size in sizes.values()])
        kept = every.numel() - round(self.sparsity * every.numel())
        threshold = every.sort(descending=True).values[kept] if kept < every.numel() else 0.0
        return {name: size > threshold for name, size in sizes.items()}

    def at(self, sparsity: float) -> "Magnitude":
        """See ``Pruner.at``."""
        return replace(self, sparsity=sparsity)


def _relative(weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    size = weights.abs().to(torch.float64)
    rms = (size[size > 0] ** 2).mean().sqrt() if bool((size > 0).any()) else 1.0
    return size / rms
