"""Maximum likelihood for symmetric stable laws."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit
from tailor.numerics.stable.fit import StableEstimator, StableFit, distance, ordered
from tailor.numerics.stable.law import LEAST_INDEX, SymmetricStable, tabulate

_BINS = 4096  # larger samples are replaced by the means of so many bins
_TOLERANCE = 1e-4  # of the index, far below its standard error
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StableMLE(StableEstimator):
    """Maximum likelihood over index, scale and location of a symmetric stable law.

    The most precise method if the values are independent and symmetric stable (DuMouchel 1973),
    with an interval of the index from the profile likelihood (those indices whose likelihood
    is within exp(-1.92) of the best), which holds at the boundary 2 too. Skewed values are
    outside the model; ``D`` shows it. The index is at least 0.5. Laplace values, which are not
    stable, give 1.61, with a narrow interval: that interval only speaks of stable laws.
    """

    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """See ``StableEstimator.fit``."""
        x = ordered(values)
        if isinstance(x, NoFit):
            return x
        profile = _Profile(x)
        index = _highest(profile, LEAST_INDEX, 2.0)
        if index - LEAST_INDEX < 2 * _TOLERANCE:
            return NoFit(reason=f"the index is below {LEAST_INDEX}", n=len(x))
        least = profile(index) - NORMAL_975**2 / 2
        low = _crossing(profile, least, inside=index, outside=LEAST_INDEX)
        high = _crossing(profile, least, inside=index, outside=2.0)
        interior = high < 2
        sigma = (high - low) / (2 * NORMAL_975) if interior else (index - low) / NORMAL_975
        scale, location = profile.fitted[index]
        return StableFit(
            index=index,
            sigma=sigma,
            low=low,
            high=high,
            interval="profile likelihood",
            scale=scale,
            location=location,
            skew=None if index == 2 else 0.0,
            D=distance(x, index),
            n=len(x),
            method="maximum likelihood",
        )


class _Profile:
    """The log-likelihood of an index, at the best scale and location for it.

    Attributes:
        fitted: That scale and location for each index asked for so far.
    """

    def __init__(self, x: Float[ndarray, "n"]) -> None:
        quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75])
        self._center, self._unit = float(median), float(three_quarters - quarter) / 2
        self._values, self._counts = _binned((x - median) / self._unit)
        self._best = (0.0, 0.0)  # log scale and location, in these units, of the last index
        self.fitted: dict[float, tuple[float, float]] = {}

    def __call__(self, index: float) -> float:
        law = tabulate(index)
        log_scale, location = self._best
        for _ in range(30):
            before = (log_scale, location)
            log_scale, location = self._improved(law, log_scale, location)
            if max(abs(log_scale - before[0]), abs(location - before[1])) < 1e-5:
                break
        self._best = (log_scale, location)
        scale = self._unit * math.exp(log_scale)
        self.fitted[index] = (scale, self._center + self._unit * location)
        return self._likelihood(law, log_scale, location)

    def _improved(
        self, law: SymmetricStable, log_scale: float, location: float
    ) -> tuple[float, float]:
        """One step in the scale, then one in the location: they are orthogonal by symmetry."""
        log_scale = _newton(lambda s: self._likelihood(law, s, location), log_scale)
        return log_scale, _newton(lambda d: self._likelihood(law, log_scale, d), location)

    def _likelihood(self, law: SymmetricStable, log_scale: float, location: float) -> float:
        log_pdf = law.log_pdf((self._values - location) * math.exp(-log_scale))
        return float(self._counts @ (log_pdf - log_scale))


def _binned(z: Float[ndarray, "n"]) -> tuple[Float[ndarray, "bins"], Float[ndarray, "bins"]]:
    """Means and counts of bins that are narrow in the centre and wide in the tails."""
    if len(z) <= _BINS:
        return z, np.ones(len(z))
    y = np.arcsinh(z)
    place = ((y - y[0]) * (_BINS / (y[-1] - y[0]))).astype(np.intp).clip(0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS).astype(np.float64)
    sums = np.bincount(place, weights=z, minlength=_BINS)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0]


def _newton(function: Callable[[float], float], start: float) -> float:
    """One step of Newton's method for a maximum, at most 0.5 long."""
    h = 1e-3
    below, here, above = function(start - h), function(start), function(start + h)
    slope, curvature = (above - below) / (2 * h), (above - 2 * here + below) / h**2
    step = -slope / curvature if curvature < 0 else math.copysign(0.5, slope)
    return start + min(max(step, -0.5), 0.5)


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one peak is highest, by golden section; the upper end is tried too."""
    end = high
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _TOLERANCE:
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    best = max((at_left, left), (at_right, right))
    if end - best[1] < 2 * _TOLERANCE:
        best = max(best, (function(end), end))
    return best[1]


def _crossing(
    function: Callable[[float], float], least: float, *, inside: float, outside: float
) -> float:
    """Where the function falls below ``least`` on the way out; the end if it never does."""
    if function(outside) >= least:
        return outside
    while abs(outside - inside) > _TOLERANCE:
        middle = (inside + outside) / 2
        if function(middle) >= least:
            inside = middle
        else:
            outside = middle
    return inside
