"""A tensor as a piece of a file: where it starts, and of what type and shape it is."""

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.source.entry import torch_dtype
from tailor.weights.source.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A loader that reads exactly the bytes of one tensor, and nothing before that.

    Attributes:
        place: The file.
        name: Of the tensor, for messages.
        start: First byte.
        dtype: Element type, by the name that torch has for it.
        shape: Shape.
        swapped: Whether the bytes are in the other order than this machine's.
    """

    place: Place
    name: str
    start: int
    dtype: str
    shape: tuple[int, ...]
    swapped: bool = False

    def length(self) -> int:
        """Bytes of the tensor; none of a type that torch lacks."""
        dtype = torch_dtype(self.dtype)
        return 0 if dtype is None else math.prod(self.shape) * dtype.itemsize

    def __call__(self) -> Tensor:
        """The tensor."""
        dtype, length = torch_dtype(self.dtype), self.length()
        if dtype is None:
            raise SourceError(f"{self.place} holds {self.name} as {self.dtype}, which torch lacks")
        try:
            if self.start + length > self.place.size():  # before anything is allocated
                raise OSError(f"it ends before byte {self.start + length}")
            if length == 0:
                return torch.empty(self.shape, dtype=dtype)
            raw = self.place.piece(self.start, length)
        except (OSError, SourceError) as error:
            raise SourceError(
                f"{self.place} lost the tensor {self.name} while it was read: {error}"
            ) from error
        return typed(raw, dtype, self.shape, self.swapped)


def typed(raw: Tensor, dtype: torch.dtype, shape: tuple[int, ...], swapped: bool) -> Tensor:
    """Bytes as a tensor of a type and shape."""
    if swapped:
        raw = raw.reshape(-1, dtype.itemsize).flip(1).flatten()
    if raw.data_ptr() % dtype.itemsize:  # some files put numbers anywhere
        raw = raw.clone()
    return raw.view(dtype).reshape(shape)


def foreign(order: str) -> bool:
    """Whether bytes in the order ``"<"`` or ``">"`` have to be swapped here."""
    return order in "<>" and order != ("<" if sys.byteorder == "little" else ">")
