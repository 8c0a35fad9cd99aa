"""Estimates of the extreme-value index gamma, which can also say that there is no power tail.

P(X > x) ~ x^(-1/gamma) for gamma > 0, so the density exponent is alpha = 1 + 1/gamma. Laws with
lighter tails have gamma = 0 (exponential, normal, lognormal), bounded ones gamma < 0.

A fit is reported only if the whole 95 % interval of gamma lies above 0. Otherwise the sample
cannot be told from one without a power tail, and no finite upper end of alpha is honest. The
price: small tails are refused often. With Dekkers, Einmahl & de Haan that is gamma < 2 / sqrt(k)
or so, that is alpha > 1 + sqrt(k) / 2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit, positive
from tailor.numerics.powerlaw.hill import check_tail, tail_fit, tail_size


@dataclass(frozen=True, slots=True, kw_only=True)
class DekkersEinmahlDeHaan(TailFit):
    """The moment estimator of Dekkers, Einmahl & de Haan (1989).

    With M_r = 1/k sum_{i <= k} log(X_(i) / X_(k+1))^r,
    gamma = M_1 + 1 - 1 / (2 (1 - M_1^2 / M_2)), and sqrt(k) (gamma_k - gamma) tends to a normal
    law of variance 1 + gamma^2 for gamma >= 0 (their theorem 3.1). sigma is that error carried
    over to alpha = 1 + 1/gamma to first order; the interval of alpha is the image of gamma's, so
    it is longer above than below.

    Attributes:
        k: Size of the tail: a number of values (at least 2), or a share of them in (0, 1). The
            default is Hill's; a share that comes to fewer than ten values gives no fit.

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
        if x[-k] == x[-1]:
            return NoFit(reason=f"the {k} largest values are all equal", n=len(x))
        excess = np.log(x[-k:] / x[-k - 1])
        first, second = float(excess.mean()), float((excess**2).mean())
        gamma = first + 1 - 0.5 / (1 - first**2 / second)
        error = (_moment_variance(gamma) / k) ** 0.5
        return _gamma_fit(x, k, float(x[-k - 1]), gamma, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickands(TailFit):
    """The estimator of Pickands (1975), from three quantiles of the tail.

    With m = k // 4, gamma = log2((X_(m) - X_(2m)) / (X_(2m) - X_(4m))), and
    sqrt(m) (gamma_m - gamma) tends to a normal law of variance
    gamma^2 (2^(2 gamma + 1) + 1) / (2 (2^gamma - 1) ln 2)^2 (Dekkers & de Haan 1989, theorem
    2.3). Its other virtue is that adding a constant to all values changes nothing; the price is
    that for alpha = 3 the error of gamma is 3.5 times that of Dekkers, Einmahl & de Haan from the
    same tail, so that some 250 values in the tail are needed before a fit is reported.

    Attributes:
        k: Size of the tail: a number of values (at least 4), or a share of them in (0, 1). The
            default is Hill's; a share that comes to fewer than ten values gives no fit.

    Raises:
        UsageError: k is neither a number of values nor a share.
    """

    k: int | float = 0.1

    def __post_init__(self) -> None:
        check_tail(self.k, 4)

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``; xmin is X_(4m), n_tail is 4m."""
        x = positive(values)
        k = tail_size(self.k, len(x))
        if isinstance(k, NoFit):
            return k
        m = k // 4
        upper, lower = float(x[-m] - x[-2 * m]), float(x[-2 * m] - x[-4 * m])
        if upper <= 0 or lower <= 0:
            return NoFit(reason="too many of the largest values are equal", n=len(x))
        gamma = float(np.log2(upper / lower))
        error = (_quantile_variance(gamma) / m) ** 0.5
        return _gamma_fit(x, 4 * m, float(x[-4 * m]), gamma, error)


def _moment_variance(gamma: float) -> float:
    """Asymptotic variance, times k, of the moment estimator."""
    if gamma >= 0:
        return 1 + gamma**2
    one, two, three, four = (1 - times * gamma for times in (1, 2, 3, 4))
    inner = 4 - 8 * two / three + (5 - 11 * gamma) * two / (three * four)
    return one**2 * two * inner


def _quantile_variance(gamma: float) -> float:
    """Asymptotic variance, times m, of Pickands' estimator."""
    ln2 = float(np.log(2))
    ratio = gamma / float(np.expm1(gamma * ln2)) if gamma else 1 / ln2
    return ratio**2 * (2 ** (2 * gamma + 1) + 1) / (2 * ln2) ** 2


def _gamma_fit(
    x: Float[ndarray, "n"], tail: int, xmin: float, gamma: float, error: float
) -> PowerLawFit | NoFit:
    """The fit with alpha = 1 + 1/gamma, unless gamma or its 95 % interval reaches down to 0."""
    margin = NORMAL_975 * error
    if gamma <= margin:
        what = "no power tail" if gamma <= 0 else "a power tail is not certain"
        return NoFit(reason=f"{what}: gamma = {gamma:.2g} +- {margin:.2g}", n=len(x))
    return tail_fit(
        x,
        tail,
        xmin=xmin,
        alpha=1 + 1 / gamma,
        sigma=error / gamma**2,
        interval=(1 + 1 / (gamma + margin), 1 + 1 / (gamma - margin)),
    )
