"""Penalties that make trained weights heavy-tailed; method values for ``train``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.errors import UsageError


class Penalty(ABC):
    """A term that is added to the loss, summed over the matrices of the model."""

    @abstractmethod
    def __call__(self, matrices: Iterable[Float[Tensor, "_ _"]]) -> Float[Tensor, ""]:
        """The penalty of these matrices; differentiable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPrior(Penalty):
    """Each weight has a Student t prior: many small weights, a few that stay large.

    The penalty is coefficient x (tail_index + 1) / 2 x sum log(1 + w^2 / (tail_index scale^2)),
    which is minus the log density up to a constant. With ``coefficient = 1 / n`` and the mean
    loss over n examples, training finds the maximum a posteriori weights. Unlike a Gaussian or
    Laplace prior (L2, L1) it pulls large weights back less and less.

    Attributes:
        coefficient: Weight of the term in the loss.
        tail_index: Degrees of freedom; P(|w| > t) falls like t^-tail_index. 1 is Cauchy.
        scale: Weights well below it are pulled to zero.
    """

    coefficient: float
    tail_index: float = 1.0
    scale: float = 0.3

    def __post_init__(self) -> None:
        if not (self.coefficient >= 0 and self.tail_index > 0 and self.scale > 0):
            raise UsageError(
                "StudentPrior needs coefficient >= 0, tail_index > 0 and scale > 0, but got "
                f"{self.coefficient}, {self.tail_index} and {self.scale}"
            )

    def __call__(self, matrices: Iterable[Float[Tensor, "_ _"]]) -> Float[Tensor, ""]:
        """See ``Penalty.__call__``."""
        inner = 1 / (self.tail_index * self.scale**2)
        logs = [torch.log1p(inner * w * w).sum() for w in matrices]
        return self.coefficient * (self.tail_index + 1) / 2 * torch.stack(logs).sum()
