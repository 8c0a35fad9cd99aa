"""What a model is made of: layers (matrices) and others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

Loader: TypeAlias = Callable[[], Tensor]
Factors: TypeAlias = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weight tensor that can be seen as a matrix.

    Attributes:
        name: Canonical name, without wrapper prefixes.
        key: Name under which the source stores it.
        shape: Shape of the stored tensor, outputs first.
        dtype: Stored element type, such as ``"float32"``.
        aliases: Other names under which the same tensor is stored.
        load: Brings the tensor into memory, in its stored type unless ``note`` says
            otherwise; picklable, so that another process can load it.
        factors: For a low-rank matrix, brings (left, right) into memory; the matrix is
            left @ right, and ``load`` would form it.
        kind: For people and filters, such as ``"linear"`` or ``"conv2d"``: the class of the
            module where it is known, else the number of axes. No number depends on it.
        note: What was done to the stored numbers on the way, such as a scale that ``load``
            multiplies; empty when nothing was.
    """

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()
    load: Loader = field(repr=False, compare=False)
    factors: Factors | None = field(default=None, repr=False, compare=False)
    kind: str = "matrix"
    note: str = ""


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
        files: Every file that was opened, for ``fingerprint``; empty for tensors in memory.
    """

    source: str
    layers: tuple[Layer, ...]
    others: tuple[Other, ...]
    files: tuple[str, ...] = ()
