"""The tail that lies closest to its own power law, found exactly without trying every tail.

Each different value can be the xmin of a tail, and each tail has a maximum-likelihood power law
and a Kolmogorov-Smirnov (KS) distance from it: the largest difference, over the values of the
tail, between the model and the share strictly below (Clauset, Shalizi & Newman 2009, equations
3.1 and 3.9; left limits of the empirical distribution, as in their published code and in the
powerlaw package). Computing all distances takes time n^2.

The difference at any single value, the *probe*, bounds a tail's distance from below, and one
probe serves all tails in a few vector operations. So the search keeps a lower bound for each
tail, and again and again computes the true distance of the tail with the lowest bound. Where
that tail is farthest from its model, its neighbours are far from theirs too: the place becomes
the next probe. The search ends when no bound is below the best distance found; then the result
is that of trying every tail. Random samples up to 10^5 values needed at most about twenty true
distances; evenly spaced values, where many tails are alike, up to about 3 sqrt(n).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import positive

PROBES = 6  # first probes, each halving the tail of the one before (tuned by us: 3 to 8 are alike)
SMALL = 10_000  # up to so many (tail, value) pairs, computing them all is faster (tuned by us)
MANY = 2048  # beyond so many tails, dropping those that have lost pays (tuned by us)
SLACK = 1e-12  # rounding error that a bound may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """A sample seen from each of its tails; tail i begins at the i-th different value.

    Attributes:
        log: Logarithm of each different value over the largest; rises to 0.
        count: Number of values at or above each.
        rate: Tail index, alpha - 1, of each tail that is a candidate: with at least the least
            number of values, and with spread. Fewer values above mean a later tail, so that
            the candidates come first.
    """

    log: Float[ndarray, "m"]
    count: Float[ndarray, "m"]
    rate: Float[ndarray, "c"]


class DistanceCurve(NamedTuple):
    """KS distance against xmin, for drawing.

    Attributes:
        xmin: Where each tail begins; rises.
        alpha: Its density exponent, by maximum likelihood.
        D: Its KS distance.
    """

    xmin: Float[ndarray, "k"]
    alpha: Float[ndarray, "k"]
    D: Float[ndarray, "k"]


def different(x: Float[ndarray, "n"]) -> tuple[Float[ndarray, "m"], Int[ndarray, "m"]]:
    """The different values among ``x``, which rises, and how often each comes."""
    if len(x) == 0:
        return x, np.arange(0)
    begin = np.concatenate(([0], np.flatnonzero(x[1:] != x[:-1]) + 1, [len(x)]))
    return x[begin[:-1]], begin[1:] - begin[:-1]


def tails(log: Float[ndarray, "m"], times: Int[ndarray, "m"], least: int) -> Tails:
    """Maximum likelihood for each tail of at least ``least`` values, in time m.

    Args:
        log: Logarithms of the different values, rising.
        times: How often each comes, at least once.
        least: Least number of values in a candidate.
    """
    log = log - log[-1:]
    count = np.cumsum(times[::-1], dtype=np.float64)[::-1]
    # Sum of log(x / xmin) over a tail: each gap counts once for every value above it. All terms
    # are positive, so nothing cancels.
    spread = np.cumsum((np.diff(log) * count[1:])[::-1])[::-1]
    large = len(count) - int(count[::-1].searchsorted(least))
    candidates = int(np.count_nonzero(spread[:large] > 0))
    return Tails(log=log, count=count, rate=count[:candidates] / spread[:candidates])


def closest(tails: Tails) -> tuple[int, float]:
    """The candidate with the least KS distance, and that distance; ties go to the longest tail.

    There has to be a candidate: ``len(tails.rate) > 0``.
    """
    *_, best = _improvements(tails, np.inf)
    return best


def any_closer(tails: Tails, distance: float) -> bool:
    """Whether any candidate's KS distance is below ``distance``; the first one found decides."""
    return next(_improvements(tails, distance), None) is not None


def distance_curve(values: Float[ndarray, "n"], points: int = 200) -> DistanceCurve:
    """Exact KS distance and exponent of at most ``points`` tails of the positive values.

    The tails' sizes, from 2 to all values, are evenly spread in the logarithm; with fewer
    different values than ``points``, each value begins a tail.

    Raises:
        UsageError: A value is NaN or infinite, or there are fewer than 2 points.
    """
    if points < 2:
        raise UsageError(f"a curve needs at least 2 points, but points is {points}")
    x, times = different(positive(values))
    all_tails = tails(np.log(x), times, 2)
    starts = np.arange(len(all_tails.rate))
    if len(starts) > points:
        size = all_tails.count[: len(starts)]
        wanted = np.geomspace(size[0], size[-1], points)
        starts = np.unique(np.minimum(np.searchsorted(-size, -wanted), starts[-1]))
    distances = [float(_difference(all_tails, start).max()) for start in starts.tolist()]
    return DistanceCurve(x[starts], 1 + all_tails.rate[starts], np.array(distances, dtype=float))


def _improvements(tails: Tails, distance: float) -> Iterator[tuple[int, float]]:
    """Candidates and their KS distances, each better than those before and than ``distance``."""
    if len(tails.rate) * len(tails.log) <= SMALL:
        yield from _best_of_all(tails, distance)
        return
    bounds = _Bounds(tails)
    for halving in range(1, PROBES + 1):
        bounds.probe(int(len(tails.log) * (1 - 0.5**halving)))
    best = (distance, -1)
    while (start := bounds.lowest(best[0] + SLACK)) is not None:
        difference = _difference(tails, start)
        farthest = int(difference.argmax())
        found = (float(difference[farthest]), start)
        if found < best:
            best = found
            yield start, found[0]
        bounds.probe(start + farthest)


def _best_of_all(tails: Tails, distance: float) -> Iterator[tuple[int, float]]:
    """The candidate with the least distance if that is below ``distance``: all at once."""
    candidates = len(tails.rate)
    if candidates == 0:
        return
    above = np.maximum(tails.log - tails.log[:candidates, None], 0)  # 0 below xmin
    above *= -tails.rate[:, None]
    model = np.exp(above, out=above)
    model -= np.minimum(tails.count / tails.count[:candidates, None], 1)
    distances = np.abs(model, out=model).max(axis=1)
    start = int(distances.argmin())
    if distances[start] < distance:
        yield start, float(distances[start])


def _difference(tails: Tails, start: int) -> Float[ndarray, "k"]:
    """Difference between model and sample at each value of a tail; its maximum is the distance.

    Both are shares above, which differ as much as the shares below.
    """
    model = tails.log[start:] - tails.log[start]
    model *= -tails.rate[start]
    np.exp(model, out=model)
    model -= tails.count[start:] * (1 / tails.count[start])
    difference: ndarray = np.abs(model, out=model)
    return difference


class _Bounds:
    """Lower bounds of the KS distances of the candidates that are not computed yet."""

    def __init__(self, tails: Tails) -> None:
        candidates = len(tails.rate)
        self.tails = tails
        self.start = np.arange(candidates)
        self.slope = -tails.rate
        self.offset = tails.rate * tails.log[:candidates]
        self.share = 1 / tails.count[:candidates]  # of one value in the tail
        self.bound = np.zeros(candidates)
        self.model, self.sample = np.empty((2, candidates))  # reused: allocation costs time

    def probe(self, at: int) -> None:
        """Raise each bound to the difference at one value, for the tails that hold it."""
        holds = int(self.start.searchsorted(at, side="right"))
        model, sample, bound = self.model[:holds], self.sample[:holds], self.bound[:holds]
        np.multiply(self.slope[:holds], self.tails.log[at], out=model)
        model += self.offset[:holds]
        np.exp(model, out=model)
        model -= np.multiply(self.share[:holds], self.tails.count[at], out=sample)
        np.maximum(bound, np.abs(model, out=model), out=bound)

    def lowest(self, distance: float) -> int | None:
        """The candidate with the lowest bound, which is then taken out; None if all exceed."""
        if len(self.bound) > MANY:
            self._drop(distance)
        if len(self.bound) == 0:
            return None
        place = int(self.bound.argmin())
        if self.bound[place] > distance:
            return None
        self.bound[place] = np.inf
        return int(self.start[place])

    def _drop(self, distance: float) -> None:
        """Forget the candidates whose bounds exceed ``distance``, once they are the majority."""
        kept = np.flatnonzero(self.bound <= distance)
        if 2 * len(kept) < len(self.bound):
            self.start, self.bound = self.start[kept], self.bound[kept]
            self.slope, self.offset = self.slope[kept], self.offset[kept]
            self.share = self.share[kept]
