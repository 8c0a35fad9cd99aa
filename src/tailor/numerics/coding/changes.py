"""What each single entry would change in the length of a code, for all entries at once."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from tailor.numerics.coding.context_length import (
    Lines,
    coin_length,
    given_length,
    known_length,
    runs_length,
    unary_length,
)
from tailor.numerics.coding.contexts import FIRST, OCCUPANCY, Before, Options
from tailor.numerics.coding.tensors import Grid

SIMPLE = Options()


def flip_lengths(
    levels: Int64[ndarray, "r c"], options: Options = SIMPLE, before: Before = FIRST
) -> Float64[ndarray, "r c"]:
    """Bits that the code grows by when an entry becomes zero, or 1 or -1 where it is zero.

    Exact for one coin of "occupied" and fair signs, with or without flags. Under other contexts
    it is what the simple code would change: a guide to the changes worth an exact look.
    """
    occupied = levels != 0
    ones = int(np.count_nonzero(occupied))
    if ones <= 1:
        return _one_by_one(levels, options, before)
    live = Lines.of(levels, options, before)
    rows, row_bits = _rows(occupied, options)
    columns, column_bits = _columns(occupied, options, before)
    n_rows, n_columns = int(live.rows.sum()), int(live.columns.sum())
    visited = (n_rows + rows) * (n_columns + columns)
    adds = np.where(occupied, -1, 1)
    kinds, inverse = np.unique(2 * visited + (adds > 0), return_inverse=True)
    now = _places(n_rows * n_columns, ones)
    bits = [_places(kind // 2, ones + 2 * (kind % 2) - 1) - now for kind in kinds.tolist()]
    result: ndarray = np.array(bits)[inverse].reshape(levels.shape)
    result += adds + row_bits + column_bits + _sizes(levels, before.top)
    return result


def _places(visited: int, ones: int) -> float:
    return coin_length(OCCUPANCY["one"], visited - ones, ones)


def _one_by_one(
    levels: Int64[ndarray, "r c"], options: Options, before: Before
) -> Float64[ndarray, "r c"]:
    """By the definition; for matrices that are almost empty."""

    def length(changed: Int64[ndarray, "r c"]) -> float:
        return sum(given_length(Grid(levels=changed), options, before).values())

    result, now = np.zeros(levels.shape), length(levels)
    for place in np.ndindex(levels.shape):
        changed = levels.copy()
        changed[place] = int(levels[place] == 0)
        result[place] = length(changed) - now
    return result


def _rows(
    occupied: Bool[ndarray, "r c"], options: Options
) -> tuple[Int64[ndarray, "r #c"], Float64[ndarray, "r #c"]]:
    """By entry: rows visited more, and bits of their flags."""
    if not options.rows:
        return np.zeros((len(occupied), 1), dtype=np.int64), np.zeros((len(occupied), 1))
    counts = occupied.sum(axis=1)
    number, bits = _lines(counts, runs_length)
    touched = occupied | (counts == 0)[:, None]
    return number[:, None] * touched, bits[:, None] * touched


def _columns(
    occupied: Bool[ndarray, "r c"], options: Options, before: Before
) -> tuple[Int64[ndarray, "#r c"], Float64[ndarray, "#r c"]]:
    """By entry: columns visited more, and bits of their flags."""
    n = occupied.shape[1]
    if not options.columns:
        return np.zeros((1, n), dtype=np.int64), np.zeros((1, n))
    expected = before.expected(n)
    flags = n if expected is None else len(expected)
    counts = occupied.sum(axis=0).reshape(flags, -1).sum(axis=1)
    number, bits = _lines(
        counts, runs_length if expected is None else lambda live: known_length(live, expected)
    )
    wide = n // flags
    touched = occupied | np.repeat(counts == 0, wide)
    return wide * np.repeat(number, wide) * touched, np.repeat(bits, wide) * touched


def _lines(
    counts: Int64[ndarray, "n"], length: Callable[[Bool[ndarray, "n"]], float]
) -> tuple[Int64[ndarray, "n"], Float64[ndarray, "n"]]:
    """Of lines with one entry, what its loss changes; of empty ones, what a first one does."""
    live, bits = counts > 0, np.zeros(len(counts))
    now = length(live)
    for i in np.flatnonzero(counts <= 1).tolist():
        changed = live.copy()
        changed[i] = not live[i]
        bits[i] = length(changed) - now
    return np.where(counts == 0, 1, np.where(counts == 1, -1, 0)), bits


def _sizes(levels: Int64[ndarray, "r c"], top_before: int) -> Float64[ndarray, "r c"]:
    """By entry: bits of the sizes."""
    sizes = np.abs(levels[levels != 0])
    now, result = unary_length(sizes, top_before), np.zeros(levels.shape)
    result[levels == 0] = unary_length(np.append(sizes, 1), top_before) - now
    for size in np.unique(sizes).tolist():
        fewer = np.delete(sizes, int(np.argmax(sizes == size)))
        result[np.abs(levels) == size] = unary_length(fewer, top_before) - now
    return result
