"""Where k-means begins: density for many levels, dynamic programming for few."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.numerics.codebooks.ranked import Ranked

PIECES = 1024  # pieces of equal count in which the density is taken
GROUPS = 384  # groups of values that dynamic programming does not take apart
MOST = 64  # levels up to which it is quick


class Start:
    """First centres for any number of levels."""

    def __init__(self, ranked: Ranked) -> None:
        self.ranked = ranked
        self.places, self.weights = _density(ranked)
        self.cuts: Int[ndarray, m] | None = None
        self.cost = np.zeros((0, 0))
        self.best: list[ndarray] = []  # by levels: least error of all values before each group
        self.back: list[ndarray] = []  # where the last of the cells begins

    def centres(self, levels: int) -> Float[ndarray, "k"]:
        """At most so many centres, in rising order; fewer if there are fewer groups."""
        if levels > MOST:
            return self._quantiles((np.arange(levels) + 0.5) / levels)
        edges = self._partition(levels)
        cells = self.ranked.cells(edges)
        means: ndarray = cells.sums / cells.counts
        return means

    def levels_for(self, lost: float) -> int:
        """About how many levels lose that much (Panter & Dite 1951, for many levels)."""
        integral = float(self.weights.sum()) ** 3 * len(self.ranked.values)
        ratio = integral / (12 * lost) if lost > 0 else math.inf
        return max(1, round(math.sqrt(min(ratio, 1e9))))

    def _quantiles(self, shares: Float[ndarray, "k"]) -> Float[ndarray, "k"]:
        """Of the density to the power 1/3, which is best for many levels (Panter & Dite 1951)."""
        total = np.concatenate([[0.0], np.cumsum(self.weights)])
        if total[-1] <= 0:  # few different values, each often: any of them
            index = (shares * len(self.ranked.values)).astype(np.intp)
            found: ndarray = self.ranked.values[index].astype(np.float64)
        else:
            found = np.interp(shares * total[-1], total, self.places)
        return found

    def _partition(self, levels: int) -> Int[ndarray, "edges"]:
        """The partition into neighbouring cells with the least squared error (Bellman 1973)."""
        if self.cuts is None:
            self.cuts = self._groups()
            self.cost = _cost(self.ranked, self.cuts)
            self.best = [self.cost[0]]
        levels = min(levels, len(self.cuts) - 1)
        while len(self.best) < levels:
            sums = self.best[-1][:, None] + self.cost
            self.back.append(sums.argmin(axis=0))
            self.best.append(np.take_along_axis(sums, self.back[-1][None], axis=0)[0])
        ends = [len(self.cuts) - 1]
        for back in reversed(self.back[: levels - 1]):
            ends.append(int(back[ends[-1]]))
        edges: ndarray = self.cuts[np.array([*ends, 0])[::-1]]
        return edges

    def _groups(self) -> Int[ndarray, "m"]:
        """Ranks between groups; single values if there are few."""
        n = len(self.ranked.values)
        if n <= GROUPS:
            return np.arange(n + 1)
        bounds = self._quantiles(np.arange(1, GROUPS) / GROUPS).astype(self.ranked.values.dtype)
        inner = np.searchsorted(self.ranked.values, bounds, side="right")
        return np.unique(np.concatenate([[0], inner, self.ranked.zeros, [n]]))


def _cost(ranked: Ranked, cuts: Int[ndarray, "m"]) -> Float[ndarray, "m m"]:
    """Squared error of one cell from each cut to each later one; infinite if it is no later."""
    cells = ranked.cells(cuts)
    before = [
        np.concatenate([[0.0], np.cumsum(part)])
        for part in (cells.counts, cells.sums, cells.squares)
    ]
    counts, sums, squares = (part[None] - part[:, None] for part in before)
    spread = np.square(sums) / np.maximum(counts, 1)
    cost: ndarray = np.where(counts > 0, np.maximum(squares - spread, 0.0), np.inf)
    return cost


def _density(ranked: Ranked) -> tuple[Float[ndarray, "g"], Float[ndarray, "pieces"]]:
    """Edges of pieces of the values, and the integral of the density to the power 1/3 over each.

    Pieces have about equal counts, fewer and fewer towards both ends. None reaches over zero
    where values are exactly zero: pruning leaves a gap there.
    """
    x, n = ranked.values, len(ranked.values)
    first, end = ranked.zeros
    ends = 2 ** np.arange(max(n - 1, 1).bit_length())
    equal = np.linspace(0, n - 1, min(n, PIECES)).astype(np.intp)
    inner = np.array([first - 1, first, end - 1, end]) if end > first else np.zeros(0, np.intp)
    ranks = np.unique(np.concatenate([equal, ends - 1, n - ends, inner]))
    ranks = ranks[(ranks >= 0) & (ranks < n)]
    places = x[ranks].astype(np.float64)
    width, share = np.diff(places), np.diff(ranks) / n
    if end > first:
        width[(places[:-1] == 0) | (places[1:] == 0)] = 0.0
    return places, np.cbrt(share) * np.cbrt(width) ** 2
