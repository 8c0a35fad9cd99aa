"""Views: how a weight tensor is seen as matrices."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Matrices of one tensor whose eigenvalues are pooled into one spectrum.

    Attributes:
        label: Added to the name of the tensor, such as ``"[q]"``; empty for the whole.
        stack: The matrices; complex where the view is.
        copies: How often every eigenvalue stands in the pool by symmetry alone.
    """

    label: str = ""
    stack: Shaped[Tensor, "count rows columns"]
    copies: int = 1


class View(ABC):
    """How a weight tensor is seen as matrices; every spectral number depends on it."""

    @abstractmethod
    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """The parts of a tensor; each becomes one row of an analysis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattened(View):
    """One matrix of shape (outputs, inputs x kernel positions): all axes but the first joined."""

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        return [Part(stack=tensor.reshape(1, tensor.shape[0], -1))]
