"""Rows and columns of a matrix in a few classes, so that one table serves what is alike.

Weights of one matrix differ in scale from row to row and from column to column, and pruning
leaves whole rows and columns empty. With the rows in K classes, the columns in L, and a table
for each pair of them, such structure is paid for once, by the sequence of classes. The classes
are found by turns: each row joins the class under whose tables it is shortest, then each column,
and so on (Chakrabarti, Papadimitriou, Modha & Faloutsos 2004, "Fully automatic
cross-associations").
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray

from tailor.errors import PayloadError
from tailor.numerics.coding.arithmetic import Coder, Coin
from tailor.numerics.coding.entropy import CHUNK, UNIT, fixed_log2

MAX_CLASSES = 16  # of rows, and of columns
MAX_PAIRS = 64
SIZES = (2, 4, 8, 16)
ROUNDS = 4
SMALLEST = 1 << 10  # entries of a matrix worth the search
MAX_LINES = 1 << 18  # rows and columns together
FEWEST = 4  # entries for each row and column, on average, at least
ENTRY_BITS = 4  # about what an entry of a table costs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """A class for each row and each column; every class has a member.

    Attributes:
        rows: Class of each row.
        columns: Class of each column.
        n_rows: Number of classes of rows.
        n_columns: Number of classes of columns.
    """

    rows: UInt8[ndarray, "r"]
    columns: UInt8[ndarray, "c"]
    n_rows: int
    n_columns: int

    @classmethod
    def trivial(cls, sides: tuple[int, int]) -> "Classes":
        """One class for all."""
        rows, columns = (np.zeros(side, dtype=np.uint8) for side in sides)
        return cls(rows=rows, columns=columns, n_rows=1, n_columns=1)

    @property
    def pairs(self) -> int:
        """Number of pairs of classes."""
        return self.n_rows * self.n_columns

    def same(self, other: "Classes") -> bool:
        """Is every line in the same class?"""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.columns, other.columns)

    def contexts(self) -> UInt8[ndarray, "n"]:
        """Number of the pair of each entry, in row order."""
        pairs: ndarray = self.rows[:, None] * np.uint8(self.n_columns) + self.columns
        return pairs.ravel()


def allowed(sides: tuple[int, int]) -> bool:
    """May a matrix of these sides have classes? Each row and column costs the coder steps."""
    lines = sum(sides)
    return lines <= MAX_LINES and FEWEST * lines <= sides[0] * sides[1]


def walk_classes(coder: Coder, classes: Classes | None, sides: tuple[int, int]) -> Classes:
    """Send classes, or receive them when they are None.

    Raises:
        PayloadError: A received class is out of range.
    """
    if not allowed(sides):
        raise PayloadError("the stream is damaged: a matrix has too many rows for classes")
    n_rows = coder.number(None if classes is None else classes.n_rows - 1, 4) + 1
    n_columns = coder.number(None if classes is None else classes.n_columns - 1, 4) + 1
    if n_rows * n_columns > MAX_PAIRS:
        raise PayloadError("the stream is damaged: a matrix has too many classes")
    rows = _walk_line(coder, n_rows, sides[0], None if classes is None else classes.rows)
    columns = _walk_line(coder, n_columns, sides[1], None if classes is None else classes.columns)
    return Classes(rows=rows, columns=columns, n_rows=n_rows, n_columns=n_columns)


def _walk_line(
    coder: Coder, count: int, length: int, classes: UInt8[ndarray, "length"] | None
) -> UInt8[ndarray, "length"]:
    """Classes one by one, highest bit first, with coins for each class before."""
    found = np.zeros(length, dtype=np.uint8)
    if count == 1:
        return found
    width = (count - 1).bit_length()
    coins = [[Coin() for _ in range(1 << width)] for _ in range(count)]
    before = 0
    for place, sent in enumerate([None] * length if classes is None else classes.tolist()):
        node = 1
        for bit in reversed(range(width)):
            value = None if sent is None else sent >> bit & 1
            node = 2 * node + coder.bit(coins[before][node], value)
        before = node - (1 << width)
        if before >= count:
            raise PayloadError("the stream is damaged: a class is out of range")
        found[place] = before
    return found


def find_classes(matrix: UInt8[ndarray, "r c"], kinds: int) -> Classes:
    """Classes that make the matrix short; trivial ones if no others help.

    Args:
        matrix: Entries below ``kinds``, what the classes are to tell apart.
        kinds: Number of different entries; a handful.
    """
    sides = matrix.shape[0], matrix.shape[1]
    best = Classes.trivial(sides)
    if not allowed(sides) or matrix.size < SMALLEST:
        return best
    search = _Search(matrix, kinds)
    shortest = search.length(best)
    for size in SIZES:
        found = search.classes(size)
        if found.pairs > MAX_PAIRS:
            break
        length = search.length(found)
        if length >= shortest:
            break
        best, shortest = found, length
    return best


class _Search:
    """One matrix, and how its lines differ in length under a single table."""

    def __init__(self, matrix: UInt8[ndarray, "r c"], kinds: int) -> None:
        self.matrix, self.kinds = matrix, kinds
        counts = np.bincount(matrix.ravel(), minlength=kinds)
        costs = fixed_log2(matrix.size) - fixed_log2(np.maximum(counts, 1))
        mean = float(costs @ counts) / matrix.size
        spread = float((costs * costs) @ counts) / matrix.size - mean**2
        self.lines = []
        for axis, sums in zip((1, 0), self._sums(costs), strict=True):
            even = spread * matrix.shape[axis]
            noise = even * (1 + 4 * math.sqrt(2 / len(sums)))
            self.lines.append((sums, len(sums) > 1 and float(sums.var()) > noise))

    def _sums(
        self, costs: Int64[ndarray, "kinds"]
    ) -> tuple[Int64[ndarray, "r"], Int64[ndarray, "c"]]:
        """Length of each row and of each column."""
        rows, columns = self.matrix.shape
        by_row, by_column = np.zeros(rows, dtype=np.int64), np.zeros(columns, dtype=np.int64)
        step = max(1, CHUNK // columns)
        for a in range(0, rows, step):
            lengths = costs[self.matrix[a : a + step]]
            by_row[a : a + step] = lengths.sum(axis=1)
            by_column += lengths.sum(axis=0)
        return by_row, by_column

    def classes(self, size: int) -> Classes:
        """``size`` classes along each axis whose lines differ by more than chance."""
        rows, columns = (_even(sums, size if differ else 1) for sums, differ in self.lines)
        found = Classes(rows=rows, columns=columns, n_rows=_top(rows), n_columns=_top(columns))
        for _ in range(ROUNDS):
            before = found
            found = _used(self._assign(found, axis=0), found.columns)
            found = _used(found.rows, self._assign(found, axis=1))
            if found.pairs == 1 or found.same(before):
                break
        return found

    def length(self, classes: Classes) -> int:
        """Expected length in 1/UNIT bits: entries, tables and classes."""
        counts = self._counts(classes, axis=0)
        whole = _tables(counts, classes.rows, classes.n_rows)
        entries = int((whole.sum(axis=2) * fixed_log2(np.maximum(whole.sum(axis=2), 1))).sum())
        entries -= int((whole * fixed_log2(np.maximum(whole, 1))).sum())
        side = sum(_sequence(line) for line in (classes.rows, classes.columns))
        return entries + UNIT * ENTRY_BITS * int((whole > 0).sum()) + side

    def _assign(self, classes: Classes, axis: int) -> UInt8[ndarray, "lines"]:
        """For each row (or column) the class under whose tables it is shortest."""
        own, number = (
            (classes.rows, classes.n_rows) if axis == 0 else (classes.columns, classes.n_columns)
        )
        if number == 1:
            return own
        counts = self._counts(classes, axis)
        smooth = 2 * _tables(counts, own, number) + 1  # what is not seen yet may be met
        costs = fixed_log2(smooth.sum(axis=2))[:, :, None] - fixed_log2(smooth)
        lengths = counts.reshape(len(counts), -1) @ costs.reshape(number, -1).T.astype(np.float64)
        best: ndarray = lengths.argmin(axis=1).astype(np.uint8)
        return best

    def _counts(self, classes: Classes, axis: int) -> Float64[ndarray, "lines others kinds"]:
        """How often each row meets each entry in each class of columns (or the reverse)."""
        rows, columns = self.matrix.shape
        others = (classes.n_columns, classes.n_rows)[axis]
        counts = np.zeros((rows, columns)[axis] * others * self.kinds, dtype=np.int64)
        step = max(1, CHUNK // columns)
        for a in range(0, rows, step):
            part = self.matrix[a : a + step].astype(np.int64)
            if axis == 0:
                part += np.arange(a, a + len(part))[:, None] * (others * self.kinds)
                part += classes.columns.astype(np.int64) * self.kinds
            else:
                part += np.arange(columns) * (others * self.kinds)
                part += classes.rows[a : a + step].astype(np.int64)[:, None] * self.kinds
            counts += np.bincount(part.ravel(), minlength=len(counts))
        return counts.reshape(-1, others, self.kinds).astype(np.float64)


def _tables(
    counts: Float64[ndarray, "lines others kinds"], classes: UInt8[ndarray, "lines"], number: int
) -> Int64[ndarray, "number others kinds"]:
    """Sums of counts over the lines of each class."""
    member = (classes == np.arange(number)[:, None]).astype(np.float64)
    sums = member @ counts.reshape(len(counts), -1)  # whole numbers: exact in any order
    tables: ndarray = sums.astype(np.int64).reshape(number, *counts.shape[1:])
    return tables


def _even(sums: Int64[ndarray, "lines"], size: int) -> UInt8[ndarray, "lines"]:
    """``size`` classes of equal numbers of lines, in the order of their lengths."""
    order = np.argsort(sums, kind="stable")
    classes = np.empty(len(sums), dtype=np.uint8)
    classes[order] = np.arange(len(sums)) * min(size, len(sums)) // len(sums)
    return classes


def _used(rows: UInt8[ndarray, "r"], columns: UInt8[ndarray, "c"]) -> Classes:
    """The same classes, numbered without gaps."""
    rows, columns = (
        ((np.bincount(line) > 0).cumsum() - 1).astype(np.uint8)[line] for line in (rows, columns)
    )
    return Classes(rows=rows, columns=columns, n_rows=_top(rows), n_columns=_top(columns))


def _top(classes: UInt8[ndarray, "lines"]) -> int:
    return int(classes.max(initial=0)) + 1


def _sequence(classes: UInt8[ndarray, "lines"]) -> int:
    """Expected length of a sequence of classes in 1/UNIT bits, each after the one before."""
    number = _top(classes)
    if number == 1:
        return 0
    pairs = np.bincount(number * classes[:-1].astype(np.int64) + classes[1:], minlength=number**2)
    after = pairs.reshape(number, number)
    whole = after.sum(axis=1)
    entries = int((whole * fixed_log2(np.maximum(whole, 1))).sum())
    entries -= int((after * fixed_log2(np.maximum(after, 1))).sum())
    return entries + UNIT * ENTRY_BITS * number * (number - 1)


def bins(counts: Int64[ndarray, "symbols"], number: int = 32) -> UInt8[ndarray, "symbols"]:
    """Neighbouring symbols in ``number`` groups, finer where symbols are many.

    Groups have about equal sums of roots of counts, so a very frequent symbol stays alone.
    """
    roots = np.rint(16 * np.sqrt(counts)).astype(np.int64)
    before = roots.cumsum() - roots
    whole = max(1, int(roots.sum()))
    middle: ndarray = (before + roots // 2) * number // whole
    return middle.clip(0, number - 1).astype(np.uint8)
