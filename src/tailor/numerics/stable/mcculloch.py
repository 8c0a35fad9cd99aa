"""McCulloch (1986): the stable law whose five quantiles are spread like the sample's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NoFit
from tailor.numerics.stable.fit import StableEstimator, StableFit, around, distance, ordered
from tailor.numerics.stable.quantiles import FINE_SKEWS, LEVELS, TABLE, curves

_INDICES = np.linspace(0.5, 2.0, 601)  # where the table is interpolated before it is inverted
_RESAMPLES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class McCulloch(StableEstimator):
    """(q95 - q05) / (q75 - q25) tells the index, (q95 + q05 - 2 q50) / (q95 - q05) the skew.

    McCulloch (1986), with a table computed anew; the index is at least
    0.5. The fastest method, blind to what lies beyond the 5 % and 95 % quantiles: to it a tail
    of any kind that starts further out does not exist. The standard error is that of resampled
    quantiles. Laplace values, which are not stable, give 1.44.

    Attributes:
        seed: Seed of the resampling.
    """

    seed: int = 0

    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """See ``StableEstimator.fit``."""
        x = ordered(values)
        if isinstance(x, NoFit):
            return x
        quantile = np.quantile(x, LEVELS)
        spread, lean = _shape(quantile[None])
        index, skew = _invert(float(spread[0]), float(lean[0]))
        if index <= _INDICES[0]:
            return NoFit(reason="the index is below 0.5", n=len(x))
        width, middle = _width_and_middle(index, abs(skew))
        scale = float(quantile[3] - quantile[1]) / width
        sigma = self._error(x, index, abs(skew))
        low, high = around(index, sigma)
        return StableFit(
            index=index,
            sigma=sigma,
            low=low,
            high=high,
            interval="bootstrap",
            scale=scale,
            location=float(quantile[2]) - float(np.sign(skew)) * scale * middle,
            skew=None if index == 2 else skew,
            D=distance(x, index),
            n=len(x),
            method="McCulloch",
        )

    def _error(self, x: Float[ndarray, "n"], index: float, skew: float) -> float:
        """Standard error of the index: that of the spread, times the slope of the table.

        A bootstrap without resampling all values: the ranks in the sample of the five quantiles
        of a resample are order statistics of uniform values, which are sums of exponential ones.
        """
        generator = np.random.default_rng(self.seed)
        ranks = np.array(LEVELS) * (len(x) - 1) + 1
        gaps = np.diff(ranks, prepend=0, append=len(x) + 1)
        sums = np.cumsum(generator.standard_gamma(gaps, size=(_RESAMPLES, len(gaps))), axis=1)
        place = (sums[:, :-1] / sums[:, -1:] * len(x)).astype(np.intp)
        quantile = x[np.minimum(place, len(x) - 1)]
        spread, _ = _shape(quantile[quantile[:, 3] > quantile[:, 1]])
        near = float(np.clip(index, 0.55, 1.95))
        beside = np.array([near - 0.05, near + 0.05])
        low, high = (np.interp(skew, FINE_SKEWS, row) for row in curves(_SPREAD, beside))
        return float(np.std(spread, ddof=1) * 0.1 / (low - high))


def _shape(quantile: Float[ndarray, "m 5"]) -> tuple[Float[ndarray, "m"], Float[ndarray, "m"]]:
    """Logarithm of the spread, which tells the index, and the lean, which tells the skew."""
    q05, q25, q50, q75, q95 = quantile.T
    return np.log((q95 - q05) / (q75 - q25)), (q95 + q05 - 2 * q50) / (q95 - q05)


_QUANTILES = np.array(list(TABLE.values()))  # (indices, skews, levels)
_SPREAD, _LEAN = (
    part.reshape(_QUANTILES.shape[:2]) for part in _shape(_QUANTILES.reshape(-1, len(LEVELS)))
)


def _invert(spread: float, lean: float) -> tuple[float, float]:
    """(index, skew) of the law with this shape; the nearest one in the table if there is none."""
    spreads, leans = curves(_SPREAD, _INDICES), curves(_LEAN, _INDICES)
    columns = range(len(FINE_SKEWS))
    index = [float(np.interp(-spread, -spreads[:, j], _INDICES)) for j in columns]
    at_index = [float(np.interp(index[j], _INDICES, leans[:, j])) for j in columns]
    if at_index[-1] <= 1e-9:  # at index 2 all skews are one law
        return index[0], 0.0
    skew = float(np.interp(abs(lean), at_index, FINE_SKEWS))
    return float(np.interp(skew, FINE_SKEWS, index)), skew if lean > 0 else -skew


def _width_and_middle(index: float, skew: float) -> tuple[float, float]:
    """q75 - q25 and q50 of the standard law with this index and this skew, not negative."""
    at = np.array([index])
    width = curves(_QUANTILES[:, :, 3] - _QUANTILES[:, :, 1], at)[0]
    middle = curves(_QUANTILES[:, :, 2], at)[0]
    return float(np.interp(skew, FINE_SKEWS, width)), float(np.interp(skew, FINE_SKEWS, middle))
