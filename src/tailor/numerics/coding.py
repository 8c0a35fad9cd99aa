"""Sparse quantised tensors to self-delimiting bytes and back, in integer arithmetic only.

One binary arithmetic coder runs through all tensors. Every decision is coded either with a
fair coin or with an adaptive one (Krichevsky & Trofimov 1981: after c0 zeros and c1 ones, the
next is a one with probability (c1 + 1/2) / (c0 + c1 + 1)), so no table is transmitted. The
decoder knows the shapes and types of the tensors and nothing else. No codeword is the
beginning of another one, hence 2^-(8 x bytes) is a prior over all that can be encoded.

A quantised tensor is seen as a matrix (first axis by the rest) and sent as: step, which rows
and columns hold anything (optional), which entries of those are not zero, then for each such
entry its sign and its level. The encoder tries the options and keeps the shortest.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from tailor.errors import PayloadError, UsageError

LN2 = math.log(2)
WORD = 32  # bits of the coder's registers
TOP, HALF, QUARTER = (1 << WORD) - 1, 1 << (WORD - 1), 1 << (WORD - 2)
UNARY = 15  # levels up to here have an adaptive coin each; larger ones an Elias gamma escape
MAX_LEVEL = 1 << 20
MAX_ELEMENTS = 1 << 24  # of all tensors together; the coder is meant for small models
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


Coded: TypeAlias = Grid | Raw


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


def encode(tensors: Sequence[Coded]) -> bytes:
    """Encode tensors in order; their shapes and types must be known to the decoder."""
    coder = _Encoder()
    for tensor in tensors:
        coder.fair(int(isinstance(tensor, Grid)))
        if isinstance(tensor, Grid):
            matrix = _matrix(tensor.levels)
            _walk_grid(coder, matrix.shape, _Message.of(tensor, matrix))
        else:
            for byte in tensor.data:
                coder.number(byte, 8)
    return coder.finish()


def decode(data: bytes, specs: Sequence[Spec]) -> list[Coded]:
    """Invert ``encode``.

    Raises:
        PayloadError: The bytes are not exactly what ``encode`` writes for these shapes, or
            the shapes claim more elements than ``MAX_ELEMENTS``.
    """
    claimed = sum(spec.size for spec in specs)
    if claimed > MAX_ELEMENTS:
        raise PayloadError(f"the file claims {claimed} elements, more than {MAX_ELEMENTS} allowed")
    coder = _Decoder(data)
    tensors: list[Coded] = []
    for spec in specs:
        if coder.fair():
            rows, columns = _sides(spec.shape)
            read = _walk_grid(coder, (rows, columns), None)
            tensors.append(Grid(levels=read.matrix.reshape(spec.shape), step=read.step))
        else:
            length = spec.size * DTYPES[spec.dtype].itemsize
            tensors.append(Raw(data=bytes(coder.number(None, 8) for _ in range(length))))
    if encode(tensors) != data:
        raise PayloadError("the stream is damaged: it does not decode and encode to itself")
    return tensors


def code_length(tensor: Coded) -> dict[str, float]:
    """Ideal length of one tensor's code in bits, part by part.

    ``encode`` spends the sum over all tensors plus at most two bits, rounded up to bytes.
    """
    if isinstance(tensor, Raw):
        return {"mode": 1.0, "raw": 8.0 * len(tensor.data)}
    matrix = _matrix(tensor.levels)
    parts = min(
        (_sparse_length(matrix, r, c) for r in (False, True) for c in (False, True)),
        key=lambda option: sum(option.values()),
    )
    return {"mode": 3.0, "step": 1.0 if tensor.step == 1.0 else 17.0, **parts}


# One description of the stream serves encoder and decoder


@dataclass(slots=True)
class _Message:
    """A grid tensor on its way through the coder, and the options chosen for it."""

    matrix: ndarray
    step: float = 1.0
    flag_rows: bool = False
    flag_columns: bool = False

    @classmethod
    def of(cls, tensor: Grid, matrix: ndarray) -> "_Message":
        options = [(r, c) for r in (False, True) for c in (False, True)]
        lengths = [sum(_sparse_length(matrix, r, c).values()) for r, c in options]
        rows, columns = options[int(np.argmin(lengths))]
        return cls(matrix, tensor.step, rows, columns)


@dataclass(slots=True)
class _Coin:
    """An adaptive coin: one and a half counts in half units."""

    zeros: int = 1
    ones: int = 1


class _Coder(ABC):
    """Encodes given bits, or decodes when given None; both return the bit."""

    @abstractmethod
    def bit(self, coin: _Coin, value: int | None = None) -> int:
        """One decision under an adaptive coin, which then learns it."""

    @abstractmethod
    def fair(self, value: int | None = None) -> int:
        """One decision under a fair coin."""

    def number(self, value: int | None, width: int) -> int:
        """A whole number of ``width`` bits, highest first, under a fair coin."""
        result = 0
        for place in reversed(range(width)):
            result = 2 * result + self.fair(None if value is None else value >> place & 1)
        return result

    def gamma(self, value: int | None) -> int:
        """A whole number from 1 up, in the code of Elias (1975)."""
        width = 0
        while self.fair(None if value is None else int(value >> (width + 1) > 0)):
            width += 1
            if width > MAX_LEVEL.bit_length():
                raise PayloadError("the stream is damaged: a level is too large")
        return (1 << width) | self.number(value, width)


def _walk_grid(coder: _Coder, sides: tuple[int, int], message: _Message | None) -> _Message:
    """Send ``message``, or receive it when it is None."""
    sent = message
    got = _Message(np.zeros(sides, dtype=np.int64)) if sent is None else sent
    got.step = _walk_step(coder, None if sent is None else sent.step)
    got.flag_rows = bool(coder.fair(None if sent is None else int(sent.flag_rows)))
    got.flag_columns = bool(coder.fair(None if sent is None else int(sent.flag_columns)))
    live = None if sent is None else sent.matrix != 0
    rows = _walk_flags(coder, got.flag_rows, sides[0], None if live is None else live.any(axis=1))
    columns = _walk_flags(
        coder, got.flag_columns, sides[1], None if live is None else live.any(axis=0)
    )
    if len(rows) == 0 or len(columns) == 0:
        return got
    top = None if sent is None else max(1, int(np.abs(sent.matrix).max()))
    levels = _Levels(coder, coder.gamma(top))
    occupied = _Coin()
    for i in rows:
        for j in columns:
            level = None if sent is None else int(sent.matrix[i, j])
            if coder.bit(occupied, None if level is None else int(level != 0)):
                got.matrix[i, j] = levels.walk(level)
    return got


def _walk_step(coder: _Coder, step: float | None) -> float:
    """One bit for the step 1, else the 16 bits of a bfloat16 number."""
    if coder.fair(None if step is None else int(step != 1.0)) == 0:
        return 1.0
    bits = None if step is None else int(np.array([step], dtype="<f4").view("<u4")[0] >> 16)
    value = coder.number(bits, 16) << 16
    read = float(np.array([value], dtype="<u4").view("<f4")[0])
    if not 0 < read < math.inf:
        raise PayloadError("the stream is damaged: a step is not a positive number")
    return read


def _walk_flags(coder: _Coder, flagged: bool, n: int, live: Bool[ndarray, "n"] | None) -> list[int]:
    """Indices of the rows (or columns) that hold anything: all of them if not flagged."""
    if not flagged:
        return list(range(n))
    coins = (_Coin(), _Coin())  # one for each value of the flag before
    previous, indices = 1, []
    for i in range(n):
        previous = coder.bit(coins[previous], None if live is None else int(live[i]))
        if previous:
            indices.append(i)
    return indices


@dataclass(slots=True)
class _Levels:
    """Signs by a fair coin; sizes 1..top in unary, one adaptive coin for each step."""

    coder: _Coder
    top: int
    coins: list[_Coin] = field(init=False)

    def __post_init__(self) -> None:
        self.coins = [_Coin() for _ in range(min(self.top - 1, UNARY))]

    def walk(self, level: int | None) -> int:
        """Send a level other than zero, or receive one when it is None."""
        size = None if level is None else abs(level)
        negative = self.coder.fair(None if level is None else int(level < 0))
        reached = 1
        for coin in self.coins:
            if not self.coder.bit(coin, None if size is None else int(size > reached)):
                break
            reached += 1
        if reached > UNARY and self.top > UNARY:
            reached = UNARY + self.coder.gamma(None if size is None else size - UNARY)
        return -reached if negative else reached


# Arithmetic coder (Witten, Neal & Cleary 1987), 32-bit registers


class _Encoder(_Coder):
    def __init__(self) -> None:
        self.low, self.high, self.pending = 0, TOP, 0
        self.bits: list[int] = []

    def bit(self, coin: _Coin, value: int | None = None) -> int:
        assert value is not None
        span = self.high - self.low + 1
        middle = self.low + span * coin.zeros // (coin.zeros + coin.ones)
        if value:
            self.low = middle
            coin.ones += 2
        else:
            self.high = middle - 1
            coin.zeros += 2
        self._shift()
        return value

    def fair(self, value: int | None = None) -> int:
        return self.bit(_Coin(), value)

    def _shift(self) -> None:
        while True:
            if self.high < HALF:
                self._emit(0)
            elif self.low >= HALF:
                self._emit(1)
                self.low -= HALF
                self.high -= HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                self.pending += 1
                self.low -= QUARTER
                self.high -= QUARTER
            else:
                return
            self.low, self.high = 2 * self.low, 2 * self.high + 1

    def _emit(self, bit: int) -> None:
        self.bits.append(bit)
        self.bits.extend([1 - bit] * self.pending)
        self.pending = 0

    def finish(self) -> bytes:
        """Enough bits to name an interval inside the last one; any bits may follow."""
        if self.bits or self.pending or self.low > 0 or self.high < TOP:
            self.pending += 1
            self._emit(int(self.low >= QUARTER))
        return np.packbits(np.array(self.bits, dtype=np.uint8)).tobytes()


class _Decoder(_Coder):
    def __init__(self, data: bytes) -> None:
        self.data = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()
        self.place = WORD
        self.low, self.high = 0, TOP
        first = (self.data + [0] * WORD)[:WORD]
        self.value = int("".join(map(str, first)), 2)

    def bit(self, coin: _Coin, value: int | None = None) -> int:
        span = self.high - self.low + 1
        middle = self.low + span * coin.zeros // (coin.zeros + coin.ones)
        bit = int(self.value >= middle)
        if bit:
            self.low = middle
            coin.ones += 2
        else:
            self.high = middle - 1
            coin.zeros += 2
        self._shift()
        return bit

    def fair(self, value: int | None = None) -> int:
        return self.bit(_Coin())

    def _shift(self) -> None:
        while True:
            if self.high < HALF:
                drop = 0
            elif self.low >= HALF:
                drop = HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                drop = QUARTER
            else:
                return
            self.low, self.high = 2 * (self.low - drop), 2 * (self.high - drop) + 1
            self.value = 2 * (self.value - drop) + self._next()

    def _next(self) -> int:
        if self.place >= len(self.data) + 2 * WORD:
            raise PayloadError("the stream ends too early")
        bit = self.data[self.place] if self.place < len(self.data) else 0
        self.place += 1
        return int(bit)


# Ideal lengths, in closed form


def _sparse_length(matrix: Int[ndarray, "r c"], by_row: bool, by_column: bool) -> dict[str, float]:
    occupied = matrix != 0
    rows, columns = occupied.any(axis=1), occupied.any(axis=0)
    n_rows = int(rows.sum()) if by_row else len(rows)
    n_columns = int(columns.sum()) if by_column else len(columns)
    lines = (_flags_length(rows) if by_row else 0.0) + (
        _flags_length(columns) if by_column else 0.0
    )
    if n_rows == 0 or n_columns == 0:
        return {"rows and columns": lines}
    sizes = np.abs(matrix[occupied])
    top = max(1, int(sizes.max(initial=1)))
    return {
        "rows and columns": lines,
        "positions": _coin_length(n_rows * n_columns - len(sizes), len(sizes)),
        "signs": float(len(sizes)),
        "levels": _gamma_length(top) + _levels_length(sizes, top),
    }


def _flags_length(flags: Bool[ndarray, "n"]) -> float:
    before = np.concatenate([[True], flags])[: len(flags)]
    return sum(
        _coin_length(int((~flags[before == value]).sum()), int(flags[before == value].sum()))
        for value in (False, True)
    )


def _levels_length(sizes: Int[ndarray, "n"], top: int) -> float:
    bits = 0.0
    for reached in range(1, min(top - 1, UNARY) + 1):
        more = int((sizes > reached).sum())
        bits += _coin_length(int((sizes >= reached).sum()) - more, more)
    if top > UNARY:
        bits += sum(_gamma_length(int(size) - UNARY) for size in sizes[sizes > UNARY])
    return bits


def _coin_length(zeros: int, ones: int) -> float:
    """Bits that an adaptive coin spends on so many zeros and ones, in any order."""
    ratio = math.lgamma(zeros + 0.5) + math.lgamma(ones + 0.5) - math.lgamma(zeros + ones + 1)
    return (math.log(math.pi) - ratio) / LN2


def _gamma_length(value: int) -> float:
    return 2.0 * (value.bit_length() - 1) + 1.0


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    first = shape[0] if shape else 1
    return first, math.prod(shape[1:])


def _matrix(levels: Int[ndarray, "*shape"]) -> Int[ndarray, "r c"]:
    return levels.reshape(_sides(levels.shape)).astype(np.int64)
