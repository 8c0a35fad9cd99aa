"""WeightWatcher's power-law fit, rule by rule, so that old numbers can be compared with new."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit, positive
from tailor.numerics.powerlaw.search import closest, tails

THRESHOLD = 1e-5  # WeightWatcher 0.7.7, EVALS_THRESH
SMALL = 20  # below so many values its rule for small samples holds (SMALL_N_CUTOFF)
SMALL_TAIL = 8  # that rule's least tail (k_min)
FLAT = 1e-12  # that rule's least sum of log(x / xmin)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightWatcherCompat(TailFit):
    """The default power-law fit of WeightWatcher 0.7.7 (``fit="PL"``), its defects included.

    - Values up to 1e-5 are dropped. The limit is absolute, so **alpha depends on the units of
      the weights**: times 1e-4, a matrix can lose all its eigenvalues.
    - Every other value but the largest may be xmin. There is no least tail, so two values can
      make one.
    - The least KS distance wins, the smallest xmin among equals. Equal values count one after
      the other: the j-th value of a tail has the share j / n_tail below it.
    - With fewer than 20 values, alpha = 1 + (n_tail - 1) / sum log(x / xmin) and a tail has at
      least 8 values, or is the whole sample. (The program also computes a penalised distance
      there and then ignores it; so does this.)

    Three things differ, where its numbers say nothing: a tail of equal values, whose exponent is
    infinite, is never chosen; where WeightWatcher reports an alpha of -1 or 0, there is no fit;
    and with fewer than 8 values sigma is (alpha - 1) / sqrt(n), not -1 / sqrt(n). n_tail is its
    ``num_pl_spikes``. The interval is not its own (it has none): alpha +- 1.96 sigma, xmin taken
    as given.
    """

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``; n counts the values above 1e-5."""
        x = positive(values)
        x = x[x > THRESHOLD]
        if len(x) < 2:
            return NoFit(reason=f"{len(x)} values above {THRESHOLD:g}, needs 2", n=len(x))
        found = _search_small(x) if len(x) < SMALL else _search(x)
        if found is None:
            return NoFit(reason=f"the values above {THRESHOLD:g} are all equal", n=len(x))
        start, alpha, distance = found
        sigma = (alpha - 1) / (len(x) - start) ** 0.5
        return PowerLawFit(
            alpha=alpha,
            sigma=sigma,
            low=max(alpha - NORMAL_975 * sigma, 1.0),
            high=alpha + NORMAL_975 * sigma,
            interval="asymptotic",
            xmin=float(x[start]),
            xmax=float(x[-1]),
            D=distance,
            n_tail=int((x >= x[start]).sum()),
            n=len(x),
        )


def _search(x: Float[ndarray, "n"]) -> tuple[int, float, float] | None:
    """(start, alpha, distance) by the rule for 20 values or more; x rises."""
    if (np.diff(x) == 0).any():
        return _try_all(x, range(len(x) - 1), flat=0.0, lost=0)
    every = tails(np.log(x), np.ones(len(x), dtype=np.int64), 2)
    start, distance = closest(every)  # the same minimum, found sooner
    return start, 1 + float(every.rate[start]), distance


def _search_small(x: Float[ndarray, "n"]) -> tuple[int, float, float] | None:
    """(start, alpha, distance) by the rule for fewer than 20 values; x rises."""
    starts = range(len(x) - SMALL_TAIL + 1)
    found = _try_all(x, starts, flat=FLAT, lost=1)
    return found or _try_all(x, range(1), flat=FLAT, lost=1)


def _try_all(
    x: Float[ndarray, "n"], starts: range, *, flat: float, lost: int
) -> tuple[int, float, float] | None:
    """Every start in turn; ``lost`` is taken off the tail's size in alpha. None if all are flat."""
    log = np.log(x)
    best = None
    for start in starts:
        excess, size = log[start:] - log[start], len(x) - start
        spread = float(excess.sum())
        if spread <= flat:
            continue
        rate = (size - lost) / spread
        distance = float(np.abs(-np.expm1(-rate * excess) - np.arange(size) / size).max())
        if best is None or distance < best[2]:
            best = (start, 1 + rate, distance)
    return best
