"""What a fit of an alpha-stable law to a sample is, and what it gives.

The number here is the **tail index** a of a stable law, 0 < a <= 2: for a < 2 its tails fall as
P(|X| > x) ~ x^-a. It is no density exponent (that would be a + 1).

**An index below 2 is no evidence of infinite variance.** Every method here looks mostly at the
shape of the centre and only asks which stable law comes closest. A million Laplace values, whose
variance is finite, give 1.4 to 1.75, and Student values with three degrees of freedom 1.5 to
1.74, depending on the method. Whether a stable law describes the sample at all is told by ``D``
next to the index; whether the tail is a power law by a fit of the tail alone, such as
``tailor.numerics.powerlaw.Clauset``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit
from tailor.numerics.stable.law import LEAST_INDEX, tabulate

LEAST_VALUES = 100  # tuned by us: with fewer values the standard errors are mere guesses
_KS_POINTS = 1 << 16  # order statistics at which D is taken; it is exact up to one in so many


@dataclass(frozen=True, slots=True, kw_only=True)
class StableFit:
    """The stable law closest to a sample, in the sense of one method.

    Attributes:
        index: Tail index, 0 < index <= 2; 2 is the normal law. See the module's warning.
        sigma: Standard error of the index, for independent values.
        low: Lower end of its 95 % interval, cut off at 0 and 2 like the upper end. Between 1.8
            and 2, and with fewer than some thousand values, where the rare large values decide,
            it covers the true index 85 to 95 times in a hundred.
        high: Upper end.
        interval: How sigma and the interval were made.
        scale: Scale g, in the units of the values: the characteristic function has modulus
            exp(-|g t|^index), so a normal law of deviation s has g = s / sqrt(2). None where
            the method gives none.
        location: Location in Nolan's parametrisation S0, the centre if the law is symmetric.
        skew: Skewness in [-1, 1]. It means little close to index 2, and is None at 2.
        D: Kolmogorov-Smirnov distance between the sample and the symmetric stable law of this
            index with the sample's median and interquartile range; the same measure for every
            method. It is large also if the sample is skewed. None below index 0.5. Of
            independent values from a symmetric stable law, 19 samples in 20 stay below
            1 / sqrt(n).
        n: Number of values.
        method: Name of the method.
    """

    index: float
    sigma: float
    low: float
    high: float
    interval: str
    scale: float | None
    location: float | None
    skew: float | None
    D: float | None
    n: int
    method: str


class StableEstimator(ABC):
    """An estimator of the index of a stable law."""

    @abstractmethod
    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """Fit all values, taken as independent; at least 100, and not half of them equal.

        An index below 2 does not show that the variance is infinite; see the module's warning.

        Raises:
            UsageError: A value is NaN or infinite.
        """


def ordered(values: Float[ndarray, "n"]) -> Float[ndarray, "n"] | NoFit:
    """The values in rising order, or why no stable law can be fitted to them.

    Raises:
        UsageError: A value is NaN or infinite.
    """
    x = finite(values)
    if len(x) < LEAST_VALUES:
        return NoFit(reason=f"{len(x)} values, needs {LEAST_VALUES}", n=len(x))
    x = np.sort(x)
    quarter, three_quarters = np.quantile(x, [0.25, 0.75])
    if not three_quarters > quarter:
        return NoFit(reason="half of the values are equal", n=len(x))
    return x


def finite(values: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """The values in double precision.

    Raises:
        UsageError: A value is NaN or infinite.
    """
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise UsageError("a stable fit needs finite values, but some are NaN or infinite")
    return x


def distance(x: Float[ndarray, "n"], index: float) -> float | None:
    """KS distance between rising values and the symmetric stable law with their quartiles."""
    if index < LEAST_INDEX:
        return None
    law = tabulate(index)
    quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75])
    scale = (three_quarters - quarter) / (2 * law.quantile(0.75))
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _KS_POINTS)).round().astype(np.intp))
    model = law.cdf((x[chosen] - median) / scale)
    over = np.abs((chosen + 1) / len(x) - model)
    under = np.abs(model - chosen / len(x))
    return float(max(over.max(), under.max()))


def around(index: float, sigma: float) -> tuple[float, float]:
    """The interval index +- 1.96 sigma, cut off at 0 and 2."""
    return max(index - NORMAL_975 * sigma, 0.0), min(index + NORMAL_975 * sigma, 2.0)
