"""Upper bounds on a true error rate, computed in the log domain and rounded outward.

Every function returns a number that is **at least** the exact bound: roots are found by
bisection, the end on the safe side is returned, and the rounding error of the log-domain sums
is added on the safe side too.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from tailor.errors import UsageError

LN2 = math.log(2)
EPS = float(np.finfo(np.float64).eps)
STEPS = 200  # bisection stops earlier, when the interval no longer shrinks


@dataclass(frozen=True, slots=True, kw_only=True)
class OccamBound:
    """Three forms of the finite-hypothesis (Occam) bound for one predictor.

    With probability at least 1 - delta over an i.i.d. sample of size n, for all predictors h
    of a prefix-free code at once, the true 0-1 error of h is at most each of these
    (Blumer et al. 1987; Langford 2005 for the binomial form).

    Attributes:
        binomial: Inversion of the binomial tail at level delta * 2^-bits: the tightest.
        kl: Inversion of the relative entropy (Chernoff form).
        hoeffding: Empirical error plus a square root.
        empirical: Observed share of errors.
    """

    binomial: float
    kl: float
    hoeffding: float
    empirical: float


def occam(errors: int, n: int, bits: float, delta: float) -> OccamBound:
    """Bound the true error of a predictor described by ``bits`` bits.

    Args:
        errors: Number of 0-1 errors on the sample.
        n: Sample size.
        bits: Length of the predictor's codeword in a prefix-free code fixed before the data.
        delta: Probability with which the bound may fail.

    Raises:
        UsageError: A number is outside its range.
    """
    _check_counts(errors, n)
    _check_delta(delta)
    if not 0 <= bits < math.inf:
        raise UsageError(f"a code length must be 0 bits or more, but is {bits}")
    nats = _up(bits * LN2 - math.log(delta))
    share = min(1.0, _up(errors / n)) if errors else 0.0
    return OccamBound(
        binomial=binomial_upper(errors, n, -nats),
        kl=kl_upper(share, _up(nats / n)),
        hoeffding=min(1.0, _up(share + _up(math.sqrt(_up(nats / (2 * n)))))),
        empirical=errors / n,
    )


def binomial_upper(errors: int, n: int, log_alpha: float) -> float:
    """Largest p with P(Bin(n, p) <= errors) >= alpha, rounded up.

    This is the one-sided Clopper-Pearson bound at confidence 1 - alpha; ``log_alpha`` may lie
    far below the smallest float's logarithm.

    Args:
        errors: Observed count, 0 to n.
        n: Number of trials.
        log_alpha: Natural logarithm of alpha, at most 0.
    """
    _check_counts(errors, n)
    if not log_alpha <= 0:
        raise UsageError(f"log_alpha must be at most 0, but is {log_alpha}")
    if errors == n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        tail, slack = _log_binomial_cdf(errors, n, middle)
        if tail + slack < log_alpha:
            high = middle
        else:
            low = middle
    return high


def bits_allowed(errors: int, n: int, risk: float, delta: float) -> float:
    """Longest code with which so many errors still give a binomial bound of at most ``risk``.

    Negative if no code is short enough; rounded down.
    """
    _check_counts(errors, n)
    _check_delta(delta)
    if not 0 < risk < 1:
        raise UsageError(f"risk must lie strictly between 0 and 1, but is {risk}")
    if errors == n:
        return -math.inf
    tail, slack = _log_binomial_cdf(errors, n, risk)
    return (math.log(delta) - tail - slack) / LN2


def kl_upper(q: float, c: float) -> float:
    """Largest p with kl(q, p) <= c, rounded up.

    kl is the relative entropy between two coins, in nats.
    """
    if not (0 <= q <= 1 and c >= 0):
        raise UsageError(f"needs a share in [0, 1] and c >= 0, but got {q} and {c}")
    low, high = q, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        entropy, slack = _kl(q, middle)
        if entropy - slack > c:
            high = middle
        else:
            low = middle
    return high


def clopper_pearson(errors: int, n: int, delta: float) -> tuple[float, float]:
    """Two-sided interval for an error rate, at confidence 1 - delta, rounded outward.

    Clopper & Pearson (1934).
    """
    _check_delta(delta)
    tail = math.log(delta / 2)
    low = 1.0 - binomial_upper(n - errors, n, tail) if errors else 0.0
    return max(0.0, math.nextafter(low, -1.0)), binomial_upper(errors, n, tail)


def _log_binomial_cdf(k: int, n: int, p: float) -> tuple[float, float]:
    """(ln P(Bin(n, p) <= k), a bound on its rounding error), for 0 < p < 1 and k < n."""
    j = np.arange(k + 1)
    log_p, log_q = math.log(p), math.log1p(-p)
    factorial = _log_factorial(n)
    choose = factorial[n] - factorial[j] - factorial[n - j]
    terms = choose + j * log_p + (n - j) * log_q
    top = float(terms.max())
    total = top + math.log(float(np.exp(terms - top).sum()))
    size = 3 * float(factorial[n]) + k * -log_p + n * -log_q + abs(total) + k + 8
    return total, 4 * EPS * size


@functools.lru_cache(maxsize=2)
def _log_factorial(n: int) -> np.ndarray:
    """Table of ln(0!), ..., ln(n!)."""
    return np.array([math.lgamma(i + 1) for i in range(n + 1)])


def _kl(q: float, p: float) -> tuple[float, float]:
    """(kl(q, p), a bound on its rounding error), for 0 < p < 1."""
    hit = q * (math.log(q) - math.log(p)) if q > 0 else 0.0
    miss = (1 - q) * (math.log1p(-q) - math.log1p(-p)) if q < 1 else 0.0
    size = abs(hit) + abs(miss) + 2 * abs(math.log(p)) * q + 2 * abs(math.log1p(-p)) + 1
    return hit + miss, 8 * EPS * size


def _up(value: float) -> float:
    """The next float but three: covers the rounding of a few operations."""
    for _ in range(4):
        value = math.nextafter(value, math.inf)
    return value


def _check_counts(errors: int, n: int) -> None:
    if n < 1:
        raise UsageError(f"a bound needs at least one example, but n is {n}")
    if not 0 <= errors <= n:
        raise UsageError(f"errors must lie between 0 and n = {n}, but is {errors}")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie strictly between 0 and 1, but is {delta}")
