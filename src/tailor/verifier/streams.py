"""The streams that are codewords of certificates (versions 1 and 3), read and written again."""

import math
import struct
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from tailor.verifier.said import Mismatch

UNARY = 15  # sizes up to here have a coin each
PLACES = ((8, 2), (4, 1), (4, 1), (4, 1), (4, 1), (4, 1), (4, 1), (6, 1), (6, 2))
LEFT = {2, 3, 6}  # places that look at the entry to the left

Coin: TypeAlias = list[int]


@dataclass(kw_only=True)
class Levels:
    """A tensor on a grid, as the stream has it."""

    matrix: np.ndarray
    step: float = 1.0
    flags: tuple[int, int] = (0, 0)
    place: int = 0
    sign: int = 0
    lag: int = 0


@dataclass
class Carry:
    """What one tensor tells the next."""

    units: list[int] | None = None
    top: int = 0


def read(
    stream: bytes, shapes: list[tuple[tuple[int, ...], int]], version: int
) -> list[bytes | Levels]:
    """Decode a stream, and refuse it if it does not encode to itself.

    Args:
        stream: The bytes.
        shapes: Of each tensor, and the bytes of one of its elements.
        version: 1 or 3.
    """
    found = _walk(Coder(data=stream), shapes, version, None)
    writer = Coder(data=None)
    _walk(writer, shapes, version, found)
    if writer.finish() != stream:
        raise Mismatch("the stream does not decode and encode to itself")
    return found


def written_bits(
    found: list[bytes | Levels], shapes: list[tuple[tuple[int, ...], int]], version: int
) -> int:
    """Length of the stream before the last byte is filled."""
    writer = Coder(data=None)
    _walk(writer, shapes, version, found)
    writer.finish()
    return len(writer.out)


def tensor_bits(item: bytes, shape: tuple[int, ...], width: int) -> float:
    """Ideal bits of a raw tensor in version 3."""
    coder = Costs()
    _walk(coder, [(shape, width)], 3, [item])
    return coder.spent


def _walk(
    coder: "Coder",
    shapes: list[tuple[tuple[int, ...], int]],
    version: int,
    sent: list[bytes | Levels] | None,
) -> list[bytes | Levels]:
    carry = Carry()
    found: list[bytes | Levels] = []
    for i, (shape, width) in enumerate(shapes):
        item = None if sent is None else sent[i]
        if coder.odds(1, 15 if version == 3 else 1, isinstance(item, Levels)):
            rows, columns = (shape[0] if shape else 1), math.prod(shape[1:])
            levels = item if isinstance(item, Levels) else None
            found.append(grid(coder, (rows, columns), levels, version, carry))
        else:
            own = item if isinstance(item, bytes) else bytes(math.prod(shape) * width)
            found.append(bytes(coder.number(8, byte) for byte in own))
    return found


def grid(
    coder: "Coder", sides: tuple[int, int], sent: Levels | None, version: int, carry: Carry
) -> Levels:
    """One tensor on a grid: written if ``sent``, else read."""
    got = Levels(matrix=np.zeros(sides, np.int64)) if sent is None else sent
    got.step = _step(coder, got.step, version)
    _options(coder, got, version)
    occupied: Any = got.matrix != 0
    rows = _runs(coder, occupied.any(1)) if got.flags[0] else [1] * sides[0]
    columns = [1] * sides[1]
    if got.flags[1]:
        columns = _column_flags(coder, occupied, version, carry)
    live = np.flatnonzero(rows).tolist(), np.flatnonzero(columns).tolist()
    if live[0] and live[1]:
        top = _top(coder, max(1, int(abs(got.matrix).max())), version, carry)
        _entries(coder, got, live, top, version)
    if sides[1] > 1 and sides[0]:
        carry.units = [int(one) for one in (got.matrix != 0).any(1)]
    carry.top = max(1, int(abs(got.matrix).max(initial=1)))
    return got


def _step(coder: "Coder", step: float, version: int) -> float:
    half = struct.unpack("<I", struct.pack("<f", step))[0] >> 16
    if version == 1:
        half = coder.number(16, half) if coder.odds(1, 1, step != 1) else 127 << 7
    elif coder.odds(7, 1, step != 1):
        above = (half >> 7) - 127
        code = coder.gamma(1 + (2 * above if above >= 0 else -2 * above - 1)) - 1
        fraction = coder.number(7, half & 127) if coder.odds(1, 1, half & 127 > 0) else 0
        half = ((127 + (-(code + 1) // 2 if code % 2 else code // 2)) << 7) + fraction
    else:
        half = 127 << 7
    if not 0 < half < 255 << 7:
        raise Mismatch("the stream is damaged: a step is not a positive number")
    return float(struct.unpack("<f", struct.pack("<I", half << 16))[0])


def _options(coder: "Coder", got: Levels, version: int) -> None:
    zeros = 7 if version == 3 else 1
    got.flags = (coder.odds(zeros, 1, got.flags[0]), coder.odds(zeros, 1, got.flags[1]))
    if version == 3:
        got.place = 1 + coder.number(3, got.place - 1) if coder.odds(7, 1, got.place > 0) else 0
        got.sign = 1 + coder.number(2, got.sign - 1) if coder.odds(7, 1, got.sign > 0) else 0
        got.lag = coder.gamma(got.lag) if got.place in LEFT or got.sign == 2 else 0


def _runs(coder: "Coder", flags: Any) -> list[int]:
    coins, got = ([1, 1], [1, 1]), [1]
    for flag in flags.tolist():
        got.append(coder.bit(coins[got[-1]], flag))
    return got[1:]


def _column_flags(coder: "Coder", occupied: Any, version: int, carry: Carry) -> list[int]:
    units, columns = carry.units, occupied.shape[1]
    if version == 1 or units is None or not columns or columns % len(units):
        return _runs(coder, occupied.any(0))
    coins = ([8, 2], [2, 8])
    live = occupied.any(0).reshape(len(units), -1).any(1).tolist()
    each = [coder.bit(coins[unit], flag) for unit, flag in zip(units, live, strict=True)]
    return [flag for flag in each for _ in range(columns // len(units))]


def _top(coder: "Coder", top: int, version: int, carry: Carry) -> int:
    if version == 1:
        return coder.gamma(top)
    if carry.top and coder.odds(1, 3, top == carry.top):
        return carry.top
    return 1 + coder.gamma(top - 1) if coder.odds(3, 1, top > 1) else 1


def _entries(
    coder: "Coder", got: Levels, live: tuple[list[int], list[int]], top: int, version: int
) -> None:
    matrix, seen = got.matrix, _Seen(columns=got.matrix.shape[1])
    coins: dict[int, Coin] = {}
    sign_coin, sizes = [1, 1], [[1, 1] for _ in range(min(top - 1, UNARY))]
    start = PLACES[got.place] if version == 3 else (1, 1)
    for n, i in enumerate(live[0]):
        seen.in_row = seen.row_sum = 0
        for j in live[1]:
            left = int(matrix[i, j - got.lag]) if j >= got.lag else 0
            above = int(i > 0 and matrix[i - 1, j] != 0)
            key = seen.key(got.place, n, (i, j), above, int(left != 0))
            level = int(matrix[i, j])
            if not coder.bit(coins.setdefault(key, list(start)), level != 0):
                continue
            expected = (0, 0, left, seen.total[j], seen.row_sum)[got.sign]
            negative = _sign(coder, sign_coin, level < 0, got.sign, expected)
            size = _size(coder, sizes, abs(level))
            matrix[i, j] = -size if negative else size
            seen.add(j, -1 if negative else 1)


def _sign(coder: "Coder", coin: Coin, negative: bool, context: int, expected: int) -> bool:
    if context == 1:
        return bool(coder.bit(coin, negative))
    if expected == 0:
        return bool(coder.bit([1, 1], negative))
    below = expected < 0
    return below != bool(coder.bit(coin, negative != below))


def _size(coder: "Coder", coins: list[Coin], sent: int) -> int:
    size = 1
    for coin in coins:
        if not coder.bit(coin, sent > size):
            break
        size += 1
    if size > UNARY:
        size = UNARY + coder.gamma(sent - UNARY)
    if size > 1 << 20:
        raise Mismatch("the stream is damaged: a level is too large")
    return size


@dataclass
class _Seen:
    """Entries other than 0 that have passed, by column and in this row."""

    columns: int
    in_row: int = 0
    row_sum: int = 0
    count: list[int] = field(init=False)
    total: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.total = [0] * self.columns, [0] * self.columns

    def key(self, place: int, rows: int, at: tuple[int, int], above: int, left: int) -> int:
        """The context of one entry; ``rows`` were visited before this one."""
        s = self.count[at[1]]
        column = 3 + (3 * s >= rows) + (3 * s >= 2 * rows) if s else (rows >= 3) + (rows >= 8)
        keys = (0, above, left, above + left, min(3, self.in_row), column, 2 * column + left, *at)
        return int(keys[place])

    def add(self, column: int, sign: int) -> None:
        """One more entry."""
        self.count[column] += 1
        self.total[column] += sign
        self.in_row += 1
        self.row_sum += sign


class Coder:
    """The arithmetic coder: it reads ``data``, or writes where there are none."""

    def __init__(self, *, data: bytes | None) -> None:
        self.low, self.high, self.at, self.pending = 0, 2**32 - 1, 32, 0
        self.out: list[int] = []
        self.spent = 0.0  # ideal bits, where they are asked for
        self.bits: bytes | None = None
        self.value = 0
        if data is not None:
            self.bits = np.unpackbits(np.frombuffer(data, np.uint8)).tobytes()
            self.value = int.from_bytes((data + bytes(4))[:4], "big")

    def bit(self, coin: Coin, value: bool | int = 0) -> int:
        """One decision with an adaptive coin."""
        zeros, ones = coin
        middle = self.low + (self.high - self.low + 1) * zeros // (zeros + ones)
        value = int(value) if self.bits is None else int(self.value >= middle)
        self.low, self.high = (middle, self.high) if value else (self.low, middle - 1)
        coin[value] += 2
        while (drop := self._settled()) is not None:
            self._shift(drop)
        return value

    def odds(self, zeros: int, ones: int, value: bool | int) -> int:
        """One decision with a fresh coin."""
        return self.bit([zeros, ones], value)

    def number(self, width: int, value: int) -> int:
        """A number of so many fair bits, the highest first."""
        got = 0
        for place in range(width - 1, -1, -1):
            got = 2 * got + self.bit([1, 1], value >> place & 1)
        return got

    def gamma(self, value: int) -> int:
        """A number from 1 up (Elias 1975)."""
        width = 0
        while self.bit([1, 1], value >> (width + 1) > 0):
            width += 1
            if width > 21:
                raise Mismatch("the stream is damaged: a number is too large")
        return (1 << width) | self.number(width, value)

    def finish(self) -> bytes:
        """The bytes that were written."""
        if self.out or self.pending or (self.low, self.high) != (0, 2**32 - 1):
            self.pending += 1
            self._emit(int(self.low >= 2**30))
        return np.packbits(np.array(self.out, np.uint8)).tobytes()

    def _settled(self) -> int | None:
        if self.high < 2**31:
            return 0
        if self.low >= 2**31:
            return 2**31
        return 2**30 if self.low >= 2**30 and self.high < 3 * 2**30 else None

    def _shift(self, drop: int) -> None:
        self.low, self.high = 2 * (self.low - drop), 2 * (self.high - drop) + 1
        if self.bits is None:
            if drop == 2**30:
                self.pending += 1
            else:
                self._emit(int(drop > 0))
            return
        if self.at >= len(self.bits) + 64:
            raise Mismatch("the stream is damaged: it ends too early")
        coming = self.bits[self.at] if self.at < len(self.bits) else 0
        self.value = 2 * (self.value - drop) + coming
        self.at += 1

    def _emit(self, bit: int) -> None:
        self.out += [bit] + [1 - bit] * self.pending
        self.pending = 0


class Costs(Coder):
    """Adds up ideal bits, and writes nothing."""

    def __init__(self) -> None:
        super().__init__(data=None)

    def bit(self, coin: Coin, value: bool | int = 0) -> int:
        """See ``Coder.bit``."""
        value = int(value)
        self.spent += math.log2((coin[0] + coin[1]) / coin[value])
        coin[value] += 2
        return value
