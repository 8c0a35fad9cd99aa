"""What a model is made of: layers (matrices), others, and views of tensors as matrices."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from jaxtyping import Shaped
from torch import Tensor

Loader: TypeAlias = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weight tensor that can be seen as a matrix.

    Attributes:
        name: Canonical name, without wrapper prefixes.
        key: Name under which the source stores it.
        shape: Shape of the stored tensor, outputs first.
        dtype: Stored element type, such as ``"float32"``.
        aliases: Other names under which the same tensor is stored.
        load: Brings the tensor into memory, in its stored type.
    """

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()
    load: Loader = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A stored tensor that is not a matrix, and why.

    Attributes:
        name: Canonical name.
        shape: Shape of the stored tensor.
        dtype: Stored element type.
        reason: Why it is not analyzed.
        load: Brings the tensor into memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: str
    load: Loader = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The whole state of a model: every tensor is in ``layers`` or in ``others``.

    Attributes:
        source: Where it was read from, for people.
        layers: Matrices in natural order (``layers.10`` after ``layers.9``).
        others: Everything else.
    """

    source: str
    layers: tuple[Layer, ...]
    others: tuple[Other, ...]


class View(ABC):
    """How a weight tensor is seen as matrices; every spectral number depends on it."""

    @abstractmethod
    def split(self, tensor: Shaped[Tensor, "out *rest"]) -> list[Shaped[Tensor, "_ _"]]:
        """The matrices of a tensor."""

    @abstractmethod
    def join(
        self, matrices: list[Shaped[Tensor, "_ _"]], shape: tuple[int, ...]
    ) -> Shaped[Tensor, "out *rest"]:
        """The tensor of given shape whose matrices these are; inverse of ``split``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattened(View):
    """One matrix of shape (outputs, inputs x kernel positions)."""

    def split(self, tensor: Shaped[Tensor, "out *rest"]) -> list[Shaped[Tensor, "_ _"]]:
        """The tensor with all axes but the first flattened."""
        return [tensor.reshape(tensor.shape[0], -1)]

    def join(
        self, matrices: list[Shaped[Tensor, "_ _"]], shape: tuple[int, ...]
    ) -> Shaped[Tensor, "out *rest"]:
        """The single matrix in the given shape."""
        return matrices[0].reshape(shape)
