"""Hill (1975): maximum likelihood above an order statistic that is chosen beforehand."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit, positive

LEAST_TAIL = 10  # tuned by us, as Clauset.min_tail: below it the normal interval says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Hill(TailFit):
    """Hill (1975): the k largest values, measured against the next one.

    With X_(1) >= X_(2) >= ..., alpha = 1 + k / sum_{i <= k} log(X_(i) / X_(k+1)). Above the
    threshold X_(k+1) the k values of a Pareto law are independent of it, hence the standard
    error (alpha - 1) / sqrt(k). It knows nothing of the bias that a k reaching into the body
    brings; nothing in the estimate warns of it either, so look at D.

    Attributes:
        k: Size of the tail: a number of values (at least 2), or a share of them in (0, 1).
            The default, the top tenth, is tuned by us. A share that comes to fewer than ten
            values gives no fit.

    Raises:
        UsageError: k is neither a number of values nor a share.
    """

    k: int | float = 0.1

    def __post_init__(self) -> None:
        check_tail(self.k, 2)

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``; xmin is the threshold X_(k+1), n_tail is k."""
        x = positive(values)
        k = tail_size(self.k, len(x))
        if isinstance(k, NoFit):
            return k
        xmin = x[-k - 1]
        spread = float(np.log(x[-k:] / xmin).sum())
        if spread <= 0:
            return NoFit(reason=f"the {k + 1} largest values are all equal", n=len(x))
        rate = k / spread
        return tail_fit(x, k, xmin=float(xmin), alpha=1 + rate, sigma=rate / k**0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HillMid(TailFit):
    """Hill's estimate with xmin at the median, the ``alpha`` of TempBalance and AlphaPruning.

    Of N values in rising order, xmin is the one at index int(N / position), and alpha =
    1 + n / sum log(x / xmin) over the n = N - int(N / position) values from xmin on, xmin
    itself among them (Zhou et al. 2023, TempBalance, ``pl_fitting="median"``; Lu et al. 2024,
    AlphaPruning, ``xmin_mid``). Values that are not positive are left out; in those programs
    the numerically zero eigenvalues of a matrix of low rank pull xmin down.

    **It measures the body of the spectrum, not a tail**, so it does not stand on the scale of
    the other fits, where 2 to 6 is the usual range: a 512 x 512 matrix of independent Gaussian
    entries gives 2.12, a 512 x 1024 one 2.71, and Pareto values with alpha 6 that are a quarter
    of the sample, above a uniform body, give 3.7. It ranks layers of equal shape and hardly
    varies between draws. Its standard error takes the upper half for independent Pareto values;
    eigenvalues repel each other and vary far less.

    Attributes:
        position: xmin stands at the share 1 / position of the values; 2 is the median. Larger
            ones begin lower (both programs: ``xmin_pos``).

    Raises:
        UsageError: position is less than 2.
    """

    exponent_of_tail: ClassVar[bool] = False

    position: int = 2

    def __post_init__(self) -> None:
        if self.position < 2:
            raise UsageError(f"position must be at least 2 (the median), but is {self.position}")

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``."""
        x = positive(values)
        tail = len(x) - len(x) // self.position
        if tail < LEAST_TAIL:
            reason = f"{tail} of {len(x)} values from the threshold on, needs {LEAST_TAIL}"
            return NoFit(reason=reason, n=len(x))
        xmin = x[-tail]
        spread = float(np.log(x[-tail:] / xmin).sum())
        if spread <= 0:
            return NoFit(reason=f"the {tail} largest values are all equal", n=len(x))
        rate = tail / spread
        return tail_fit(x, tail, xmin=float(xmin), alpha=1 + rate, sigma=rate / tail**0.5)


def check_tail(k: int | float, least: int) -> None:
    """Refuse a k that is neither a number of values nor a share of them."""
    fits = k >= least if isinstance(k, int) else 0 < k < 1
    if not fits:
        raise UsageError(
            f"k must be a number of values from {least} on or a share between 0 and 1, but is {k}"
        )


def tail_size(k: int | float, n: int) -> int | NoFit:
    """How many of n values are the tail, of which at least one has to stay below."""
    size = k if isinstance(k, int) else round(k * n)
    if size >= n:
        return NoFit(reason=f"{n} values, needs more than k = {size}", n=n)
    if isinstance(k, float) and size < LEAST_TAIL:
        return NoFit(reason=f"the tail of {k:g} x {n} values has {size}, needs {LEAST_TAIL}", n=n)
    return size


def tail_fit(
    x: Float[ndarray, "n"],
    tail: int,
    *,
    xmin: float,
    alpha: float,
    sigma: float,
    interval: tuple[float, float] | None = None,
) -> PowerLawFit:
    """The record of a power law above xmin over the ``tail`` largest values; x rises.

    Without an interval it is alpha +- 1.96 sigma, not below 1.
    """
    margin = NORMAL_975 * sigma
    low, high = interval or (max(alpha - margin, 1.0), alpha + margin)
    return PowerLawFit(
        alpha=float(alpha),
        sigma=float(sigma),
        low=float(low),
        high=float(high),
        interval="asymptotic",
        xmin=float(xmin),
        xmax=float(x[-1]),
        D=ks_distance(x[len(x) - tail :], xmin, alpha),
        n_tail=tail,
        n=len(x),
    )


def ks_distance(tail: Float[ndarray, "m"], xmin: float, alpha: float) -> float:
    """KS distance of a rising tail: model against the share strictly below, as in Clauset."""
    below = np.searchsorted(tail, tail, side="left") / len(tail)
    model = -np.expm1((1 - alpha) * np.log(tail / xmin))
    return float(np.abs(model - below).max())
