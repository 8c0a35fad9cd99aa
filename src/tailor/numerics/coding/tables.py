"""Frequency tables: whole numbers that sum to 2^14, sent as roots of counts.

The square root is the scale on which a count is known equally well wherever it lies: its
standard error is 1/2 for every Poisson count (Anscombe 1948). So a table is sent as small whole
numbers t, with frequencies in proportion to t^2. Why t = sqrt(count / 3): rounding roots of
shares to steps of D makes n symbols longer by 2 n D^2 / 12 nats for each entry, and the entry
itself costs -ln D nats and a constant; the sum is smallest at n D^2 = 3.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from tailor.errors import PayloadError
from tailor.numerics.coding.coins import Coins
from tailor.numerics.coding.entropy import UNIT, fixed_log2

BITS = 14
TOTAL = 1 << BITS  # sum of each table's frequencies
MAX_ROOT = 4096
ROOT_STEP = 3.0  # counts are divided by this before the root is taken


# Length of a symbol by its frequency, in 1/UNIT bits. One that is not there is never worth it.
COST = np.concatenate([[1 << 24], BITS * UNIT - fixed_log2(np.arange(1, TOTAL + 1))])


def roots(counts: Int64[ndarray, "symbols"]) -> Int64[ndarray, "symbols"]:
    """Counts on the scale on which they are sent: from 1 for each symbol that occurs."""
    scale = min(1 / ROOT_STEP, MAX_ROOT**2 / max(1, int(counts.max(initial=0))))
    rounded = np.rint(np.sqrt(counts * scale)).astype(np.int64)
    result: ndarray = np.where(counts > 0, np.maximum(1, rounded), 0)
    return result


def frequencies(roots: Int64[ndarray, "symbols"]) -> Int64[ndarray, "symbols"]:
    """Whole numbers near root^2 2^14 / sum root^2, at least 1 where a root is, that sum to 2^14.

    What would fall below 1 is 1; the others share what is left, by largest remainder (the first
    ones among equals).
    """
    weights = roots * roots
    table: ndarray = np.minimum(weights, 1)
    large = weights > 0
    left, whole = TOTAL, int(weights.sum())
    while True:
        small = large & (weights * left < whole)
        if not small.any():
            break
        large &= ~small
        left -= int(small.sum())
        whole = int(weights[large].sum())
    shares = weights[large] * left
    table[large] = shares // whole
    order = np.argsort(-(shares % whole), kind="stable")
    table[large.nonzero()[0][order[: TOTAL - int(table.sum())]]] += 1
    return table


# How an entry is predicted from those before it; the encoder takes the best for each table.
PREDICTORS = ("last", "line", "mirror at zero", "mirror in the middle", "table before")
NEAR = 8  # entries whose sum says how this table compares with the one before
LEVELS = 8  # of expected entries (by binary length), each with coins of its own
SIZES = 13  # binary lengths of residuals


class RootsCoder:
    """Sends tables one after the other; what it learns of residuals serves the later ones.

    A table has a column for each symbol, and ``zero`` of them come before the symbol 0.
    """

    def __init__(self, coins: Coins, columns: int, zero: int) -> None:
        self.coins, self.columns, self.zero = coins, columns, zero
        self.before = [0] * columns

    def walk(self, roots: Sequence[int] | None) -> list[int]:
        """Send a table, or receive one when it is None.

        Raises:
            PayloadError: The received table is empty, or an entry is out of range.
        """
        sent = (None, None) if roots is None else _ends(roots)
        width = (self.columns - 1).bit_length()
        first = self.coins.number(("first",), sent[0], width)
        last = self.coins.number(("last",), sent[1], width)
        if not first <= last < self.columns:
            raise PayloadError("the stream is damaged: a table has no place for its symbols")
        ends = first, last
        method = None if roots is None else self._best(roots, ends)
        method = self.coins.number(("method",), method, 3)
        if method >= len(PREDICTORS):
            raise PayloadError("the stream is damaged: a table is predicted in no known way")
        found = [0] * self.columns
        for column in range(first, last + 1):
            expected = self._expect(method, found, ends, column)
            residual = None if roots is None else roots[column] - expected
            found[column] = expected + self._residual(method, expected, residual)
            if not 0 <= found[column] <= MAX_ROOT:
                raise PayloadError("the stream is damaged: an entry of a table is out of range")
        if not found[first] or not found[last]:
            raise PayloadError("the stream is damaged: a table does not begin where it says")
        self.before = found
        return found

    def _best(self, roots: Sequence[int], ends: tuple[int, int]) -> int:
        """The predictor with the smallest residuals (by the sum of their lengths)."""
        lengths = []
        for method in range(len(PREDICTORS)):
            residuals = (
                roots[column] - self._expect(method, roots, ends, column)
                for column in range(ends[0], ends[1] + 1)
            )
            lengths.append(sum(2 * abs(r).bit_length() + (r != 0) for r in residuals))
        return lengths.index(min(lengths))

    def _expect(self, method: int, roots: Sequence[int], ends: tuple[int, int], column: int) -> int:
        """The entry foreseen in a column, from those in the columns before."""
        name, first = PREDICTORS[method], ends[0]
        if name == "table before":
            near = slice(max(first, column - NEAR), column)
            known, other = sum(roots[near]) + 1, sum(self.before[near]) + 1
            return min(MAX_ROOT, self.before[column] * known // other)
        if name.startswith("mirror"):
            twin = (2 * self.zero if name.endswith("zero") else sum(ends)) - column
            if first <= twin < column:
                return roots[twin]
        previous = roots[column - 1] if column > first else 0
        if name == "last" or column - 2 < first:
            return previous
        return min(MAX_ROOT, max(0, 2 * previous - roots[column - 2]))

    def _residual(self, method: int, expected: int, value: int | None) -> int:
        """A whole number not below -expected: is it 0, its sign, and its size as 2^k + rest."""
        kind = ("residual", method, min(expected.bit_length(), LEVELS))
        size = None if value is None else abs(value)
        if not self.coins.bit((*kind, "any"), None if size is None else int(size > 0)):
            return 0
        negative = expected and self.coins.bit(
            (*kind, "sign"), None if value is None else int(value < 0)
        )
        length = 0
        while self.coins.bit(
            (*kind, "length", length), None if size is None else int(size >> (length + 1) > 0)
        ):
            length += 1
            if length == SIZES:
                raise PayloadError("the stream is damaged: an entry of a table is out of range")
        rest = None if size is None else size - (1 << length)
        size = (1 << length) + self.coins.coder.number(rest, length)
        return -size if negative else size


def _ends(roots: Sequence[int]) -> tuple[int, int]:
    """Columns of the first and the last symbol that occurs."""
    present = [column for column, root in enumerate(roots) if root]
    return present[0], present[-1]
