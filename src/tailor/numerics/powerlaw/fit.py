"""What a fit of a power law to the upper tail of positive numbers is, and what it gives.

Exponents here are **density exponents** ``alpha``: p(x) ~ x^-alpha above ``xmin``. The tail
index (of P(X > x) ~ x^-(alpha - 1)) is ``alpha - 1``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError

NORMAL_975 = 1.959963984540054  # 97.5 % point of the standard normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLawFit:
    """A power law above ``xmin``.

    Attributes:
        alpha: Density exponent.
        sigma: Standard error of alpha, xmin taken as given; (alpha - 1) / sqrt(n_tail) unless
            the method says otherwise.
        low: Lower end of the 95 % interval of alpha.
        high: Upper end.
        interval: ``"bootstrap"`` (xmin refitted) or ``"asymptotic"`` (xmin taken as given,
            so somewhat too short).
        xmin: Where the tail begins, in the units of the values.
        xmax: Largest value.
        D: Kolmogorov-Smirnov distance between tail and fit.
        n_tail: Number of values in the tail: those at or above xmin, or above it for the methods
            that put xmin at the order statistic below their tail (Hill, DekkersEinmahlDeHaan).
        n: Number of positive values that were considered.
    """

    alpha: float
    sigma: float
    low: float
    high: float
    interval: str
    xmin: float
    xmax: float
    D: float
    n_tail: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """No exponent, and why.

    Attributes:
        reason: What the sample lacks.
        n: Number of positive values that were considered.
    """

    reason: str
    n: int


class TailFit(ABC):
    """An estimator of the density exponent of a sample's upper tail.

    Attributes:
        exponent_of_tail: Whether alpha can be read as the exponent of a tail; not so for methods
            that fit the body of the sample as well and only put samples in order.
    """

    exponent_of_tail: ClassVar[bool] = True

    @abstractmethod
    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """Fit the upper tail of the positive values; order does not matter."""


def positive(values: Float[ndarray, "n"], largest: int | None = None) -> Float[ndarray, "m"]:
    """Positive values in rising order, at most ``largest`` of the largest.

    Raises:
        UsageError: A value is NaN or infinite.
    """
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise UsageError("a tail fit needs finite values, but some are NaN or infinite")
    x = x[x > 0]
    if largest is not None and x.size > largest:
        x = np.partition(x, x.size - largest)[-largest:]
    return np.sort(x)
