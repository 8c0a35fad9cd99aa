"""One description of the stream, which serves encoder and decoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding.arithmetic import Coder, Coin, Decoder, Encoder
from tailor.numerics.coding.length import UNARY, sparse_length
from tailor.numerics.coding.tensors import DTYPES, Grid, Plain, Raw, Spec, matrix, sides

MAX_ELEMENTS = 1 << 24  # of all tensors together; the coder is meant for small models


def encode(tensors: Sequence[Plain]) -> bytes:
    """Encode tensors in order; their shapes and types must be known to the decoder."""
    return _send([_Message.of(t) if isinstance(t, Grid) else t for t in tensors])


def decode(data: bytes, specs: Sequence[Spec]) -> list[Plain]:
    """Invert ``encode``.

    Raises:
        PayloadError: The bytes are no codeword for these shapes, or the shapes claim more
            elements than ``MAX_ELEMENTS``.
    """
    claimed = sum(spec.size for spec in specs)
    if claimed > MAX_ELEMENTS:
        raise PayloadError(f"the file claims {claimed} elements, more than {MAX_ELEMENTS} allowed")
    coder = Decoder(data)
    received: list[_Message | Raw] = []
    for spec in specs:
        if coder.fair():
            received.append(_walk_grid(coder, sides(spec.shape), None))
        else:
            length = spec.size * DTYPES[spec.dtype].itemsize
            received.append(Raw(data=bytes(coder.number(None, 8) for _ in range(length))))
    if _send(received) != data:
        raise PayloadError("the stream is damaged: it does not decode and encode to itself")
    return [
        item if isinstance(item, Raw) else item.grid(spec.shape)
        for item, spec in zip(received, specs, strict=True)
    ]


def _send(items: Sequence["_Message | Raw"]) -> bytes:
    coder = Encoder()
    for item in items:
        coder.fair(int(isinstance(item, _Message)))
        if isinstance(item, _Message):
            _walk_grid(coder, (len(item.matrix), item.matrix.shape[1]), item)
        else:
            for byte in item.data:
                coder.number(byte, 8)
    return coder.finish()


@dataclass(slots=True)
class _Message:
    """A grid tensor on its way through the coder, and the options chosen for it."""

    matrix: ndarray
    step: float = 1.0
    flag_rows: bool = False
    flag_columns: bool = False

    @classmethod
    def of(cls, tensor: Grid) -> "_Message":
        """A message with the options that give the shortest code."""
        levels = matrix(tensor.levels)
        options = [(r, c) for r in (False, True) for c in (False, True)]
        lengths = [sum(sparse_length(levels, r, c).values()) for r, c in options]
        rows, columns = options[int(np.argmin(lengths))]
        return cls(levels, tensor.step, rows, columns)

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """The tensor, in its own shape."""
        try:
            return Grid(levels=self.matrix.reshape(shape), step=self.step)
        except UsageError as error:
            raise PayloadError(f"the stream is damaged: {error}") from error


def _walk_grid(coder: Coder, sides: tuple[int, int], message: _Message | None) -> _Message:
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
    occupied = Coin()
    for i in rows:
        for j in columns:
            level = None if sent is None else int(sent.matrix[i, j])
            if coder.bit(occupied, None if level is None else int(level != 0)):
                got.matrix[i, j] = levels.walk(level)
    return got


def _walk_step(coder: Coder, step: float | None) -> float:
    """One bit for the step 1, else the 16 bits of a bfloat16 number."""
    if coder.fair(None if step is None else int(step != 1.0)) == 0:
        return 1.0
    bits = None if step is None else int(np.array([step], dtype="<f4").view("<u4")[0] >> 16)
    value = coder.number(bits, 16) << 16
    read = float(np.array([value], dtype="<u4").view("<f4")[0])
    if not 0 < read < math.inf:
        raise PayloadError("the stream is damaged: a step is not a positive number")
    return read


def _walk_flags(coder: Coder, flagged: bool, n: int, live: Bool[ndarray, "n"] | None) -> list[int]:
    """Indices of the rows (or columns) that hold anything: all of them if not flagged."""
    if not flagged:
        return list(range(n))
    coins = (Coin(), Coin())  # one for each value of the flag before
    previous, indices = 1, []
    for i in range(n):
        previous = coder.bit(coins[previous], None if live is None else int(live[i]))
        if previous:
            indices.append(i)
    return indices


@dataclass(slots=True)
class _Levels:
    """Signs by a fair coin; sizes 1..top in unary, one adaptive coin for each step."""

    coder: Coder
    top: int
    coins: list[Coin] = field(init=False)

    def __post_init__(self) -> None:
        self.coins = [Coin() for _ in range(min(self.top - 1, UNARY))]

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
