"""One stored tensor as a reader sees it, and the loaders that several formats share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.layer import Factors, Loader

# Types with arithmetic; a matrix of any other type is no layer.
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

# The scale of an adapter: (name of the layer, name of the adapter, rank) -> scale, if known.
Scale: TypeAlias = Callable[[str, str, int], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored tensor.

    Attributes:
        name: As the source has it.
        shape: Of what ``load`` gives.
        dtype: As stored.
        identity: Equal for tied weights.
        load: Brings the tensor into memory.
        kind: What the reader knows about its use; empty if nothing.
        reason: Why it must not be analyzed, where the reader knows.
        note: What ``load`` does to the stored numbers.
        factors: See ``Layer.factors``.
        file: Where the numbers lie, if in another file than the one that was read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    identity: object
    load: Loader = field(repr=False)
    kind: str = ""
    reason: str = ""
    note: str = ""
    factors: Factors | None = field(default=None, repr=False)
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a reader gives.

    Attributes:
        entries: All tensors.
        label: What to call the source.
        files: Every file that was opened.
        scale: Scales of low-rank adapters, if the source knows them.
    """

    entries: Sequence[Entry]
    label: str
    files: tuple[str, ...] = ()
    scale: Scale | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """A loader that reorders the axes of what another loads, then reshapes it."""

    load: Loader
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self) -> Tensor:
        """The tensor with its new axes."""
        return self.load().permute(self.axes).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Refused:
    """The loader of a tensor that is listed but cannot be read."""

    sentence: str

    def __call__(self) -> Tensor:
        """Never a tensor."""
        raise SourceError(self.sentence)


def turned(load: Loader, shape: tuple[int, ...], axes: tuple[int, ...]) -> Turned:
    """A loader with reordered axes; ``shape`` is the stored one."""
    return Turned(load, axes, tuple(shape[axis] for axis in axes))


def torch_dtype(name: str) -> torch.dtype | None:
    """The type of torch with this name, if it has one."""
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else None


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
