"""k-means in one dimension (Lloyd 1982): each value is the mean of the numbers nearest to it."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.numerics.codebooks.partition import Start
from tailor.numerics.codebooks.ranked import Cells, Ranked

MAX_VALUES = 4096
ROUNDS, REPAIRS = 200, 8  # of Lloyd's iteration; of splits of the worst cells for empty ones
GAIN = 1e-5  # relative; an iteration that gains less is the last
CHUNK = 1 << 16  # fits the cache


def kmeans(ranked: Ranked, levels: int) -> Float[ndarray, "k"]:
    """At most so many values, in rising order, with (locally) least squared error.

    Lloyd's iteration on the ranked values, exact in every step and without chance. Up to 64
    levels it begins with the best partition of at most 384 groups of values, so that the result
    is the optimum for few values and close to it for many; beyond, with quantiles of the density
    to the power 1/3 (Panter & Dite 1951). So outliers get their share of the levels, not all of
    them. If some values are exactly zero, 0.0 is one of the levels and stays there. Fewer values
    than levels are given if there are no more different ones.

    Args:
        ranked: At least one value.
        levels: At least 1.
    """
    return _kmeans(ranked, levels, Start(ranked))


def kmeans_within(ranked: Ranked, error: float) -> Float[ndarray, "k"] | None:
    """The fewest values that keep the relative squared error; None if 4096 do not suffice.

    The fewest in the sense of a bisection: one level less has a larger error.
    """
    lost, start = error * ranked.energy(), Start(ranked)
    tried = dict[int, Float[ndarray, "k"]]()
    low, high = 0, min(MAX_VALUES, ranked.distinct) + 1  # low fails; high is not known to do
    guess = start.levels_for(lost)
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        tried[guess] = _kmeans(ranked, guess, start)
        found = kmeans_error(ranked, tried[guess])
        if found <= error:
            high = guess
        else:
            low = guess
        # The error falls about with the square of the levels; in doubt halve what is open.
        guess = math.ceil(guess * math.sqrt(found / error))
        if not low < guess < high or len(tried) > 6:
            guess = (low + high) // 2
    return tried.get(high)


def kmeans_error(ranked: Ranked, values: Float[ndarray, "k"]) -> float:
    """Relative squared error of the ranked numbers when each becomes the nearest of the values."""
    energy = ranked.energy()
    lost = float(ranked.cells(_cuts(ranked, values)).error(values.astype(np.float64)).sum())
    return lost / energy if energy > 0 else 0.0


def nearest(numbers: Float[ndarray, "n"], values: Float[ndarray, "k"]) -> Int[ndarray, "n"]:
    """Place of the nearest value for each number; half way between two, the lower one."""
    middles = _middles(values, numbers.dtype)
    codes = np.zeros(len(numbers), dtype=np.int16)
    for start in range(0, len(numbers), CHUNK):
        piece = numbers[start : start + CHUNK]
        if len(values) > 64:
            codes[start : start + CHUNK] = np.searchsorted(middles, piece, side="left")
            continue
        for middle in middles:  # for few values faster than a binary search for each number
            codes[start : start + CHUNK] += piece > middle
    return codes


def _middles(values: Float[ndarray, "k"], dtype: np.dtype[Any]) -> Float[ndarray, "k-1"]:
    centres = values.astype(np.float64)
    return ((centres[1:] + centres[:-1]) / 2).astype(dtype)


def _cuts(ranked: Ranked, values: Float[ndarray, "k"]) -> Int[ndarray, "k+1"]:
    """Where the cells of the values begin and end among the ranked numbers."""
    inner = np.searchsorted(ranked.values, _middles(values, ranked.values.dtype), side="right")
    return np.concatenate([[0], inner, [len(ranked.values)]])


def _kmeans(ranked: Ranked, levels: int, start: Start) -> Float[ndarray, "k"]:
    if ranked.distinct <= levels:
        return np.unique(ranked.values).astype(np.float64) + 0.0  # -0.0 becomes 0.0
    first, end = ranked.zeros
    pinned = end > first
    if pinned and levels == 1:
        return np.zeros(1)
    centres = _with_zero(start.centres(levels), pinned)
    for _ in range(REPAIRS):
        centres, cells = _lloyd(ranked, centres, pinned)
        missing = levels - len(centres)
        if missing <= 0:
            return centres
        centres = _split_worst(ranked, centres, cells, missing, pinned)
    return _lloyd(ranked, centres, pinned)[0]


def _lloyd(
    ranked: Ranked, centres: Float[ndarray, "k"], pinned: bool
) -> tuple[Float[ndarray, "m"], Cells]:
    """Iterate until nothing is gained; cells that get empty are left out."""
    before = math.inf
    for _ in range(ROUNDS):
        cells = ranked.cells(_cuts(ranked, centres))
        lost = float(cells.error(centres).sum())
        if lost >= before * (1 - GAIN) and bool(cells.counts.all()):
            break
        before = lost
        held = (centres == 0) & pinned
        full = (cells.counts > 0) | held
        means = cells.sums[full] / np.maximum(cells.counts[full], 1)
        centres = np.where(held[full], 0.0, means)
    return centres, ranked.cells(_cuts(ranked, centres))


def _split_worst(
    ranked: Ranked, centres: Float[ndarray, "k"], cells: Cells, more: int, pinned: bool
) -> Float[ndarray, "m"]:
    """Replace the centres of the cells that lose most by the means of their two halves."""
    lost = np.where((centres == 0) & pinned, 0.0, cells.error(centres))
    worst = np.argsort(-lost, kind="stable")[:more]
    worst = np.sort(worst[lost[worst] > 0])
    edges = _cuts(ranked, centres)
    halves = np.searchsorted(ranked.values, centres[worst].astype(ranked.values.dtype), "right")
    ends = np.concatenate([edges, np.clip(halves, edges[worst], edges[worst + 1])])
    parts = ranked.cells(np.sort(ends))
    means = parts.sums[parts.counts > 0] / parts.counts[parts.counts > 0]
    return _with_zero(np.unique(means), pinned)


def _with_zero(centres: Float[ndarray, "k"], pinned: bool) -> Float[ndarray, "k"]:
    """Rising centres, the one next to zero moved there."""
    if pinned:
        centres = centres.copy()
        centres[int(np.abs(centres).argmin())] = 0.0
    return np.unique(centres)
