"""Press (1972): the index from the characteristic function at two points."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit
from tailor.numerics.stable.characteristic import characteristic, log_minus_log, usable
from tailor.numerics.stable.fit import StableEstimator, StableFit, around, distance, ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPoint(StableEstimator):
    """log(log|phi(u2)| / log|phi(u1)|) / log(u2 / u1), phi the characteristic function.

    Press (1972). The values are first divided by half their interquartile range,
    after the median is subtracted. The modulus |phi| depends on neither location nor skew, so
    the index holds for every stable law. Laplace values, which are not stable, give 1.70.

    Attributes:
        u: The two points; the default is tuned by us, for an index from 1.5 to 2.
    """

    u: tuple[float, float] = (0.2, 0.8)

    def __post_init__(self) -> None:
        if not 0 < self.u[0] < self.u[1]:
            raise UsageError(f"u must be two rising positive numbers, but is {self.u}")

    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """See ``StableEstimator.fit``."""
        x = ordered(values)
        if isinstance(x, NoFit):
            return x
        quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75])
        half = (three_quarters - quarter) / 2
        u = np.array(self.u)
        phi, covariance = characteristic((x - median) / half, u)
        if not usable(phi, len(x)):
            return NoFit(reason="the characteristic function is lost in noise", n=len(x))
        y, spread = log_minus_log(phi, covariance)
        contrast = np.array([-1, 1]) / math.log(u[1] / u[0])
        slope = float(contrast @ y)
        if slope <= 0:
            return NoFit(reason="the characteristic function does not fall", n=len(x))
        index, sigma = min(slope, 2.0), math.sqrt(contrast @ spread @ contrast)
        low, high = around(index, sigma)
        return StableFit(
            index=index,
            sigma=sigma,
            low=low,
            high=high,
            interval="asymptotic",
            scale=float(half / u[0] * (-math.log(abs(phi[0]))) ** (1 / index)),
            location=float(median),
            skew=None,
            D=distance(x, index),
            n=len(x),
            method="two-point",
        )
