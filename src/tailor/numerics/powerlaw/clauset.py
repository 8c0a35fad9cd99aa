"""Clauset, Shalizi & Newman (2009): maximum likelihood above the best xmin, searched exactly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit, positive

PROBES = 32  # quantiles of a tail at which its KS distance is bounded from below
BLOCK = 1 << 20  # floats in one block of exact KS rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Clauset(TailFit):
    """Maximum likelihood above the xmin that minimises the KS distance.

    Clauset, Shalizi & Newman (2009), equations 3.1 and 3.9 (continuous case); D compares the
    model with the share of the tail below each value, as in their published code. The search
    for xmin is exact: every candidate's distance is bounded from below at 32 quantiles, and
    only candidates that could still win are computed.

    Attributes:
        min_tail: Least number of values in the tail; with fewer than twice as many different
            values there is no fit. Tuned by us: with fewer than ten, the bootstrap meets tails
            of one repeated value.
        min_fraction: Least share of the values in the tail (tuned by us, with min_tail).
        largest: Consider at most this many of the largest values (None: all).
        bootstrap: Replicates for the interval; 0 gives the asymptotic one.
        seed: Seed of the bootstrap.
    """

    min_tail: int = 10
    min_fraction: float = 0.02
    largest: int | None = None
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_tail < 2:
            raise UsageError(f"min_tail must be at least 2, but is {self.min_tail}")
        if not 0 <= self.min_fraction < 1:
            raise UsageError(f"min_fraction must lie in [0, 1), but is {self.min_fraction}")
        if self.bootstrap < 0 or (self.largest is not None and self.largest < 2 * self.min_tail):
            raise UsageError("bootstrap must not be negative, nor largest below 2 * min_tail")

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``."""
        x = positive(values, self.largest)
        if len(x) < 2 * self.min_tail:
            return NoFit(reason=f"{len(x)} values, needs {2 * self.min_tail}", n=len(x))
        different = 1 + int(np.count_nonzero(np.diff(x)))
        if different < 2 * self.min_tail:  # a quantised sample is no continuous one
            reason = f"{different} different values, needs {2 * self.min_tail}"
            return NoFit(reason=reason, n=len(x))
        least = max(self.min_tail, int(np.ceil(self.min_fraction * len(x))))
        found = _best_tail(x, least)
        if found is None:
            return NoFit(reason="the largest values are all equal", n=len(x))
        start, alpha, distance = found
        n_tail = len(x) - start
        sigma = (alpha - 1) / np.sqrt(n_tail)
        low, high = max(alpha - NORMAL_975 * sigma, 1.0), alpha + NORMAL_975 * sigma
        interval = self._bootstrap(x, least) if self.bootstrap else None
        if interval is not None:
            low, high = interval
        return PowerLawFit(
            alpha=alpha,
            sigma=float(sigma),
            low=float(low),
            high=float(high),
            interval="asymptotic" if interval is None else "bootstrap",
            xmin=float(x[start]),
            xmax=float(x[-1]),
            D=distance,
            n_tail=n_tail,
            n=len(x),
        )

    def _bootstrap(self, x: Float[ndarray, "n"], least: int) -> tuple[float, float] | None:
        """Percentile interval over resamples, xmin chosen anew in each; None if they are no use.

        Eigenvalues repel each other, so resampling them as if independent overstates the
        spread: the interval is conservative for spectra.
        """
        generator = np.random.default_rng(self.seed)
        alphas = []
        for _ in range(self.bootstrap):
            found = _best_tail(np.sort(generator.choice(x, len(x))), least)
            if found is not None:
                alphas.append(found[1])
        if len(alphas) < self.bootstrap / 2:
            return None
        low, high = np.quantile(alphas, [0.025, 0.975])
        return float(low), float(high)


def _best_tail(x: Float[ndarray, "n"], least: int) -> tuple[int, float, float] | None:
    """(start, alpha, KS distance) of the tail with the least distance; x rises.

    Ties in distance go to the longest tail. None if no tail of the least size has spread.
    """
    n = len(x)
    log = np.log(x)
    rank = np.searchsorted(x, x, side="left")  # number of values strictly below
    above = np.arange(n - 1, 0, -1)  # values above each gap
    spread = np.append(np.cumsum((np.diff(log) * above)[::-1])[::-1], 0.0)  # sum of log(x/xmin)
    starts = np.flatnonzero((rank == np.arange(n)) & (n - np.arange(n) >= least) & (spread > 0))
    if len(starts) == 0:
        return None
    rate = (n - starts) / spread[starts]  # alpha - 1
    bound = _distance_bound(log, rank, starts, rate)
    order = np.argsort(bound, kind="stable")
    best = (np.inf, n)  # distance, start
    done, block = 0, 8
    while done < len(order) and bound[order[done]] <= best[0]:
        rows = order[done : done + block]
        for start, slope in zip(starts[rows].tolist(), rate[rows].tolist(), strict=True):
            best = min(best, (_distance(log, rank, start, slope), start))
        done += len(rows)
        block = min(2 * block, max(8, BLOCK // n))
    distance, start = best
    return start, float(1 + (n - start) / spread[start]), float(distance)


def _distance_bound(
    log: Float[ndarray, "n"], rank: ndarray, starts: ndarray, rate: ndarray
) -> ndarray:
    """A lower bound of each candidate's KS distance, from a few quantiles of its tail."""
    n = len(log)
    tail = (n - starts)[:, None]
    probe = starts[:, None] + (np.linspace(0, 1, PROBES) * (tail - 1)).astype(np.int64)
    model = -np.expm1(-rate[:, None] * (log[probe] - log[starts][:, None]))
    bounds: ndarray = np.abs(model - (rank[probe] - starts[:, None]) / tail).max(axis=1)
    return bounds


def _distance(log: Float[ndarray, "n"], rank: ndarray, start: int, rate: float) -> float:
    """KS distance of the tail from ``start``: model against the share strictly below."""
    model = -np.expm1(-rate * (log[start:] - log[start]))
    return float(np.abs(model - (rank[start:] - start) / (len(log) - start)).max())
