"""One run of whole numbers as an encoder sees it: symbols, classes, counts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt16
from numpy import ndarray

from tailor.numerics.coding.classes import ENTRY_BITS, Classes, bins, find_classes
from tailor.numerics.coding.entropy import UNIT, chunks, histogram
from tailor.numerics.coding.symbols import (
    COLUMNS,
    DIRECT,
    Split,
    pack_bits,
    packed_size,
    unpack_bits,
)
from tailor.numerics.coding.tables import COST, frequencies, roots

TABLE_BITS = 24  # about what a table costs beside its entries
GROUPS = 16  # of symbols, for finding classes
TRIED = (0, 2)  # bits kept of numbers that share a symbol
FEW = 256  # occurrences of a number on average, below which sharing symbols may pay


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Whole numbers of one matrix, and the options that make them short.

    Attributes:
        split: How they become symbols.
        classes: Which of them share a table.
        symbols: Column of the tables for each number.
        rest: Bits that the symbols do not say.
        counts: How often each symbol occurs in each pair of classes.
        bits: Expected length, without the gain by classes.
    """

    split: Split
    classes: Classes
    symbols: UInt16[ndarray, "n"]
    rest: bytes
    counts: Int64[ndarray, "pairs columns"]
    bits: float

    @classmethod
    def of(cls, values: Integer[ndarray, "n"], sides: tuple[int, int]) -> "Stretch":
        """The numbers of a matrix of these sides, in row order."""
        distinct, numbers = histogram(values)
        split, bits = _best_split(distinct, numbers)
        symbols, rest = np.empty(len(values), dtype=np.uint16), []
        for part in chunks(len(values)):
            symbols[part] = split.columns(values[part])
            rest.append(_rest(split, values[part], symbols[part]))
        counts = _total(split, distinct, numbers)
        groups = bins(counts, GROUPS)
        classes = find_classes(groups[symbols].reshape(sides), GROUPS)
        return cls(
            split=split,
            classes=classes,
            symbols=symbols,
            rest=b"".join(rest),
            counts=_by_pair(symbols, classes) if classes.pairs > 1 else counts[None],
            bits=bits,
        )

    def plain(self) -> "Stretch":
        """The same with one class for all."""
        return Stretch(
            split=self.split,
            classes=Classes.trivial((len(self.classes.rows), len(self.classes.columns))),
            symbols=self.symbols,
            rest=self.rest,
            counts=self.counts.sum(axis=0)[None],
            bits=self.bits,
        )


def read_values(
    split: Split, symbols: UInt16[ndarray, "n"], data: memoryview
) -> tuple[Integer[ndarray, "n"], int]:
    """The numbers that the symbols and the bytes of ``Stretch.rest`` stand for.

    Returns:
        The numbers, in the smallest of the signed types that holds them; and how many bytes
        were read. Where the data ends too early, that is more than it has.

    Raises:
        PayloadError: A symbol stands for no number.
    """
    present = np.bincount(symbols, minlength=COLUMNS).nonzero()[0]
    largest = int(np.abs(split.values(present, np.zeros(0, dtype=np.uint64))).max(initial=0))
    outer = bool(split.widths()[present].any())
    kind = _smallest(2 * largest + 1 if outer else largest)
    values, place = np.empty(len(symbols), dtype=kind), 0
    for part in chunks(len(symbols)):
        widths = split.widths()[symbols[part]] if outer else np.zeros(0, dtype=np.int64)
        widths = widths[widths > 0]
        size = packed_size(widths)
        if place + size > len(data):
            return values, place + size
        rests = unpack_bits(data[place : place + size], widths)
        values[part] = split.values(symbols[part], rests)
        place += size
    return values, place


def _rest(split: Split, values: Integer[ndarray, "n"], symbols: UInt16[ndarray, "n"]) -> bytes:
    widths = split.widths()[symbols]
    outer = widths > 0
    return pack_bits(split.rests(values[outer]), widths[outer]) if outer.any() else b""


def _best_split(
    distinct: Int64[ndarray, "kinds"], numbers: Int64[ndarray, "kinds"]
) -> tuple[Split, float]:
    """The split with the shortest symbols, tables and other bits together."""
    largest = int(np.abs(distinct).max(initial=0))
    narrow = next((d for d in DIRECT if largest < 1 << d), None)
    options = [] if narrow is None else [Split(direct=narrow, kept=0)]
    if narrow is None or int(numbers.sum()) < FEW * len(distinct):
        options += [
            Split(direct=direct, kept=kept)
            for direct in DIRECT
            for kept in TRIED
            if kept <= direct and largest >> direct
        ]
    lengths = [_length(split, distinct, numbers) for split in options]
    best = lengths.index(min(lengths))
    return options[best], lengths[best] / UNIT


def _length(
    split: Split, distinct: Int64[ndarray, "kinds"], numbers: Int64[ndarray, "kinds"]
) -> int:
    counts = _total(split, distinct, numbers)
    present = counts.nonzero()[0]
    counts, widths = counts[present], split.widths()[present]
    if not len(present):
        return 0
    coded = counts @ (COST[frequencies(roots(counts))] + UNIT * widths)
    return int(coded) + UNIT * (TABLE_BITS + ENTRY_BITS * len(present))


def _total(
    split: Split, distinct: Int64[ndarray, "kinds"], numbers: Int64[ndarray, "kinds"]
) -> Int64[ndarray, "columns"]:
    """How often each symbol occurs."""
    counts = np.zeros(COLUMNS, dtype=np.int64)
    np.add.at(counts, split.columns(distinct), numbers)
    return counts


def _by_pair(symbols: UInt16[ndarray, "n"], classes: Classes) -> Int64[ndarray, "pairs columns"]:
    """How often each symbol occurs in each pair of classes."""
    counts = np.zeros(classes.pairs * COLUMNS, dtype=np.int64)
    contexts = classes.contexts()
    for part in chunks(len(symbols)):
        index = contexts[part].astype(np.int64) * COLUMNS + symbols[part]
        counts += np.bincount(index, minlength=len(counts))
    return counts.reshape(classes.pairs, COLUMNS)


def _smallest(largest: int) -> np.dtype[np.signedinteger]:
    """The smallest signed type for numbers of that size."""
    return next(np.dtype(t) for t in (np.int8, np.int16, np.int32) if largest <= np.iinfo(t).max)
