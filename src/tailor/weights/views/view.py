"""What a view is, and the plain one: all axes but the outputs joined."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from tailor.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Matrices of one tensor whose eigenvalues are pooled into one spectrum.

    Attributes:
        label: Added to the name of the tensor, such as ``"[q]"``; empty for the whole.
        stack: The matrices; complex where the view is.
        copies: How often at most every eigenvalue stands in the pool by symmetry alone. The
            stack already holds these copies; a statistic that takes the pooled eigenvalues
            for separate observations has to divide their number by it.
    """

    label: str = ""
    stack: Shaped[Tensor, "count rows columns"]
    copies: int = 1


class View(ABC):
    """How a weight tensor is seen as matrices; every spectral number depends on it.

    Views are for weights as they are and for weights in training: nothing is detached, and
    nothing is copied where a stride can do.
    """

    @abstractmethod
    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """The parts of a tensor; each becomes one row of an analysis.

        Args:
            name: Canonical name of the tensor, for views that go by names and for errors.
            tensor: The weight, as it is stored.

        Returns:
            At least one part; labels differ.

        Raises:
            UsageError: The view does not fit this tensor.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattened(View):
    """One matrix of shape (outputs, inputs x kernel positions): all axes but one joined.

    For a convolution this is the matrix that multiplies image patches (im2col), the layer as
    compression and bounds count it.

    Attributes:
        outputs: Axis of the outputs: 0, or 1 for a transposed convolution, which is stored as
            (inputs, outputs, kernel positions ...).
    """

    outputs: int = 0

    def __post_init__(self) -> None:
        if self.outputs < 0:
            raise UsageError(f"outputs must be an axis from 0 on, but is {self.outputs}")

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        if self.outputs >= tensor.ndim:
            raise UsageError(
                f"{described(name, tensor)} has no axis {self.outputs} for its outputs; "
                f"choose one below {tensor.ndim}"
            )
        first = tensor.movedim(self.outputs, 0)
        return [Part(stack=first.reshape(1, len(first), math.prod(first.shape[1:])))]


def described(name: str, tensor: Shaped[Tensor, "..."]) -> str:
    """A tensor as error messages speak of it: its name and shape."""
    return f"{name or 'the tensor'} of shape {'x'.join(map(str, tensor.shape)) or '()'}"
