"""Koutrouvelis (1980): a straight line through the logarithms of the characteristic function."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit
from tailor.numerics.stable.characteristic import characteristic, log_minus_log, usable
from tailor.numerics.stable.fit import StableEstimator, StableFit, around, distance, ordered

_THINNED = 1 << 15  # order statistics that stand for the sample until the last round


@dataclass(frozen=True, slots=True, kw_only=True)
class Koutrouvelis(StableEstimator):
    """Regression of log(-log|phi(u)|^2) on log u; the slope is the index.

    Koutrouvelis (1980): phi is the empirical characteristic function of
    the standardised values at u = pi k / 25, k = 1, 2, ...; skew and location come from a
    second regression, of its argument (here in the parametrisation S0, as Kogon & Williams
    1998 advise). Location and scale start from the median and from the quantile range of Fama &
    Roll (1971), and are refined in each round. It holds for every stable law, and the index is
    nearly as precise as by maximum likelihood. Laplace values, which are not stable, give 1.69.

    Attributes:
        points: Number of points u (tuned by us for an index from 1.5 to 2).
        rounds: How often the values are standardised and fitted.
    """

    points: int = 10
    rounds: int = 3

    def __post_init__(self) -> None:
        if self.points < 2 or self.rounds < 1:
            raise UsageError(
                "a line needs points of at least 2 and rounds of at least 1, but they are "
                f"{self.points} and {self.rounds}"
            )

    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """See ``StableEstimator.fit``."""
        x = ordered(values)
        if isinstance(x, NoFit):
            return x
        step = -(-len(x) // _THINNED)
        thinned = x[step // 2 :: step]
        below, median, above = np.quantile(x, [0.28, 0.5, 0.72])
        location, scale = float(median), float(above - below) / 1.654  # Fama & Roll (1971)
        if scale <= 0:
            return NoFit(reason="nearly half of the values are equal", n=len(x))
        for left in reversed(range(self.rounds)):
            found = self._round((x if left == 0 else thinned) - location, scale)
            if found is None:
                return NoFit(reason="the characteristic function is no stable law's", n=len(x))
            index, sigma, factor, shift, skew = found
            location, scale = location + scale * shift, scale * factor
        low, high = around(index, sigma)
        return StableFit(
            index=index,
            sigma=sigma,
            low=low,
            high=high,
            interval="asymptotic",
            scale=scale,
            location=location,
            skew=skew,
            D=distance(x, index),
            n=len(x),
            method="Koutrouvelis",
        )

    def _round(
        self, centred: Float[ndarray, "n"], scale: float
    ) -> tuple[float, float, float, float, float | None] | None:
        """(index, its error, scale, location, skew) of the standardised values, if they exist."""
        u = math.pi * np.arange(1, self.points + 1) / 25
        phi, covariance = characteristic(centred / scale, u)
        if not usable(phi, len(centred)):
            return None
        y, spread = log_minus_log(phi, covariance)
        log = np.log(u) - np.log(u).mean()
        contrast = log / (log @ log)
        slope = float(contrast @ y)
        if slope <= 0:
            return None
        index = min(slope, 2.0)
        intercept = float((y - index * np.log(u)).mean())  # log(2 scale^index)
        factor = (math.exp(intercept) / 2) ** (1 / index)
        shift, skew = _location_and_skew(phi, u, index)
        return index, math.sqrt(contrast @ spread @ contrast), factor, shift, skew


def _location_and_skew(
    phi: Complex[ndarray, "k"], u: Float[ndarray, "k"], index: float
) -> tuple[float, float | None]:
    """Least squares of arg phi = location u + skew (its function of u), parametrisation S0.

    The scale is taken for 1, which it is after the first round, up to noise.
    """
    argument = np.unwrap(np.angle(phi))
    if index == 2:
        return float(argument @ u / (u @ u)), None
    if abs(index - 1) < 1e-6:
        lean = -(2 / math.pi) * u * np.log(u)
    else:
        lean = math.tan(math.pi * index / 2) * (u**index - u)
    both = np.stack([u, lean], axis=1)
    (_, skew), *_ = np.linalg.lstsq(both, argument, rcond=None)
    skew = min(max(float(skew), -1.0), 1.0)
    return float((argument - skew * lean) @ u / (u @ u)), skew
