"""What can be coded: tensors on a grid, raw tensors, and what the decoder knows of them."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.errors import PayloadError, UsageError

MAX_LEVEL = 1 << 20
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")
} | {"bfloat16": np.dtype("<u2"), "bool": np.dtype("uint8")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """A tensor on a uniform grid: value = level x step.

    Attributes:
        levels: Whole numbers, of any shape with at least one axis.
        step: A positive number that bfloat16 can hold.
    """

    levels: Int[ndarray, "*shape"]
    step: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.step < math.inf or round_step(self.step) != self.step:
            raise UsageError(f"a step must be a positive bfloat16 number, but is {self.step}")
        if self.levels.size and int(np.abs(self.levels).max()) > MAX_LEVEL:
            raise UsageError(f"levels must not exceed {MAX_LEVEL} in size")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raw:
    """A tensor stored byte by byte, as it is.

    Attributes:
        data: Little-endian bytes of the elements in row order.
    """

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codebook:
    """A tensor with few different values: value = values[code].

    Attributes:
        codes: Places in ``values``, of any shape with at least one axis.
        values: The values in rising order, each once.
    """

    codes: Int[ndarray, "*shape"]
    values: Float[ndarray, "levels"]

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or not bool(np.isfinite(self.values).all()):
            raise UsageError("the values of a codebook must be finite float32 numbers")
        if bool((np.diff(self.values) <= 0).any()):
            raise UsageError("the values of a codebook must rise")
        if self.codes.size and not 0 <= int(self.codes.min()) <= int(self.codes.max()) < len(
            self.values
        ):
            raise UsageError("a code must be a place in the codebook")


Plain: TypeAlias = Grid | Raw  # what the adaptive stream takes
Coded: TypeAlias = Grid | Codebook | Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the decoder knows of a tensor beforehand.

    Attributes:
        shape: Its shape.
        dtype: Its element type, one of the names in ``DTYPES``.
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise PayloadError(f"elements of type {self.dtype} cannot be stored")
        if any(side < 0 for side in self.shape):
            raise PayloadError(f"{self.shape} is not a shape")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def round_step(step: float) -> float:
    """The nearest bfloat16 number (8 significant bits)."""
    bits = np.array([step], dtype="<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return float(rounded.astype("<u4").view("<f4")[0])


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor seen as a matrix: the first axis by the rest."""
    first = shape[0] if shape else 1
    return first, math.prod(shape[1:])


def matrix(levels: Int[ndarray, "*shape"]) -> Int[ndarray, "r c"]:
    """The levels as that matrix."""
    return levels.reshape(sides(levels.shape)).astype(np.int64)
