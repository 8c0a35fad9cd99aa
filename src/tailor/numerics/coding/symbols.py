"""Whole numbers of any range as few symbols, and bits that are stored as they are.

Numbers below 2^direct in size are symbols of their own. A larger one shares its symbol with
those that agree in sign, in binary exponent and in the ``kept`` bits behind the leading one;
its other bits follow uncoded, as JPEG does with its coefficients (Wallace 1992). So a few far
outliers need few entries in a table.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64, Integer, UInt8, UInt64
from numpy import ndarray

from tailor.errors import PayloadError

COLUMNS = 1024  # of every table
ZERO = 512  # the column of the number 0
LARGEST = (1 << 21) - 1  # size of the numbers
DIRECT = range(2, 9)
KEPT = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A way to make symbols of whole numbers.

    Attributes:
        direct: Numbers of fewer bits than that are symbols themselves.
        kept: Bits behind the leading one that belong to the symbol of a larger number; at
            most ``direct``.
    """

    direct: int
    kept: int

    def columns(self, values: Integer[ndarray, "n"]) -> Int64[ndarray, "n"]:
        """The table's column for each number."""
        size = np.abs(values.astype(np.int64))
        width = self._width(size)
        # (size >> width) has the leading one and the kept bits: 2^kept up to 2^(kept + 1) - 1
        steps = ((width + self.kept - self.direct) << self.kept) - (1 << self.kept)
        bucket = np.where(size >> self.direct, (1 << self.direct) + steps + (size >> width), size)
        columns: ndarray = np.where(values < 0, -bucket, bucket) + ZERO
        return columns

    def rests(self, values: Integer[ndarray, "n"]) -> UInt64[ndarray, "n"]:
        """The bits of each number that its symbol does not say."""
        size = np.abs(values.astype(np.int64))
        rests: ndarray = size & ((1 << self._width(size)) - 1)
        return rests.astype(np.uint64)

    def widths(self) -> Int64[ndarray, "columns"]:
        """How many such bits belong to the symbol of each column."""
        bucket = np.abs(np.arange(COLUMNS) - ZERO)
        octave = (bucket - (1 << self.direct)) >> self.kept
        return np.where(bucket >> self.direct, octave + self.direct - self.kept, 0)

    def firsts(self) -> Int64[ndarray, "columns"]:
        """The number of each column that is nearest to zero; 2^40 where there is none."""
        column = np.arange(COLUMNS) - ZERO
        bucket, width = np.abs(column), self.widths()
        kept = (bucket - (1 << self.direct)) & ((1 << self.kept) - 1)
        known = width + self.kept < LARGEST.bit_length()
        large = ((1 << self.kept) + kept) << np.minimum(width, 20)
        size = np.where(bucket >> self.direct, np.where(known, large, 1 << 40), bucket)
        return np.where(column < 0, -size, size)

    def values(
        self, columns: Integer[ndarray, "n"], rests: UInt64[ndarray, "outer"]
    ) -> Int64[ndarray, "n"]:
        """Invert ``columns`` and ``rests``; rests only where ``widths`` is not zero.

        Raises:
            PayloadError: A column stands for no number.
        """
        values: ndarray = self.firsts()[columns]
        if bool((np.abs(values) > LARGEST).any()):
            raise PayloadError("the stream is damaged: a symbol stands for no number")
        if len(rests):
            outer = (self.widths()[columns] > 0).nonzero()[0]
            values[outer] += np.sign(values[outer]) * rests.astype(np.int64)
        return values

    def _width(self, size: Int64[ndarray, "n"]) -> Int64[ndarray, "n"]:
        exponent = np.frexp(size.astype(np.float64))[1].astype(np.int64) - 1
        return np.where(size >> self.direct, exponent - self.kept, 0)


def pack_bits(rests: Integer[ndarray, "n"], widths: Int[ndarray, "n"]) -> bytes:
    """Numbers of known widths, one width after the other, without gaps.

    Of each number the highest (width mod 8) bits go into one string of bits, and the other
    bytes (lowest first) behind that string.
    """
    bits, rest = [np.zeros(0, dtype=np.uint8)], []
    for width in _present(widths):
        values = rests[widths == width].astype("<u8")
        single, whole = width % 8, width // 8
        high = (values >> np.uint64(8 * whole)).astype(np.uint8)
        bits.append((high[:, None] >> np.arange(single)[::-1].astype(np.uint8)).ravel() & 1)
        rest.append(values.view(np.uint8).reshape(-1, 8)[:, :whole].tobytes())
    return np.packbits(np.concatenate(bits)).tobytes() + b"".join(rest)


def packed_size(widths: Int[ndarray, "n"]) -> int:
    """Bytes that ``pack_bits`` makes of numbers of these widths."""
    counts = np.bincount(widths.astype(np.int64), minlength=1)
    width = np.arange(len(counts))
    return -(-int(counts @ (width % 8)) // 8) + int(counts @ (width // 8))


def unpack_bits(data: memoryview, widths: Int[ndarray, "n"]) -> UInt64[ndarray, "n"]:
    """Invert ``pack_bits``; the data has ``packed_size(widths)`` bytes."""
    counts = np.bincount(widths.astype(np.int64), minlength=1)
    total = int(counts @ (np.arange(len(counts)) % 8))
    string = np.frombuffer(data[: -(-total // 8)], dtype=np.uint8)
    if string.size and int(string[-1]) & ((1 << (-total % 8)) - 1):
        raise PayloadError("the stream is damaged: the bits that fill a byte are not zero")
    bits, place = np.unpackbits(string, count=total), len(string)
    rests, used = np.zeros(len(widths), dtype=np.uint64), 0
    for width in _present(widths):
        which = (widths == width).nonzero()[0]
        single, whole = width % 8, width // 8
        high = bits[used : used + single * len(which)].reshape(len(which), single)
        value = np.zeros((len(which), 8), dtype=np.uint8)
        low = np.frombuffer(data[place : place + whole * len(which)], dtype=np.uint8)
        value[:, :whole] = low.reshape(len(which), whole)
        if single:
            value[:, whole] = _number(high)
        rests[which] = value.view("<u8")[:, 0]
        used, place = used + high.size, place + low.size
    return rests


def _present(widths: Int[ndarray, "n"]) -> list[int]:
    """Widths above zero that occur, rising."""
    return [w for w in np.bincount(widths.astype(np.int64), minlength=1).nonzero()[0].tolist() if w]


def _number(bits: UInt8[ndarray, "n width"]) -> UInt8[ndarray, "n"]:
    """Rows of at most 8 bits, highest first, as numbers."""
    return np.packbits(bits, axis=1)[:, 0] >> np.uint8(8 - bits.shape[1])
