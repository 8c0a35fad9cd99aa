"""Inversions of the binomial tail, rounded outward."""

import math
from functools import partial

from tailor.errors import UsageError
from tailor.numerics.bounds.rounding import (
    LN2,
    check_counts,
    check_delta,
    chernoff_guess,
    root_above,
)
from tailor.numerics.bounds.tails import log_binomial_cdf


def held_out_upper(errors: int, n: int, delta: float) -> float:
    """Upper bound on an error rate from examples that had no part in choosing the predictor.

    One-sided Clopper & Pearson (1934); the test-set bound of Langford (2005). To compare M
    predictors on the same examples, give each ``delta / M``.

    Args:
        errors: Number of 0-1 errors on the held-out examples.
        n: Number of held-out examples, i.i.d. and independent of the predictor.
        delta: Probability with which the bound may fail.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(errors, n)
    check_delta(delta)
    return binomial_upper(errors, n, math.log(delta))


def clopper_pearson(errors: int, n: int, delta: float) -> tuple[float, float]:
    """Two-sided interval for an error rate, at confidence 1 - delta, rounded outward.

    Clopper & Pearson (1934).
    """
    check_counts(errors, n)
    check_delta(delta)
    tail = math.log(delta / 2)
    low = 1.0 - binomial_upper(n - errors, n, tail) if errors else 0.0
    return max(0.0, math.nextafter(low, -1.0)), binomial_upper(errors, n, tail)


def binomial_upper(errors: int, n: int, log_alpha: float) -> float:
    """Largest p with P(Bin(n, p) <= errors) >= alpha, rounded up.

    This is the one-sided Clopper-Pearson bound at confidence 1 - alpha; ``log_alpha`` may lie
    far below the smallest float's logarithm.

    Args:
        errors: Observed count, 0 to n.
        n: Number of trials.
        log_alpha: Natural logarithm of alpha, at most 0.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(errors, n)
    if not log_alpha <= 0:
        raise UsageError(f"log_alpha must be at most 0, but is {log_alpha}")
    if errors == n or log_alpha == -math.inf:
        return 1.0
    guess = chernoff_guess(errors / n, -log_alpha / n)
    if guess == 1:
        guess = max(errors / n, -math.expm1(log_alpha / (n - errors)))
    return root_above(partial(_excess, errors, n, log_alpha), 0.0, guess)


def _excess(errors: int, n: int, log_alpha: float, p: float) -> tuple[float, float, float]:
    """How far the tail's logarithm lies below ln alpha.

    Convex in -ln(1 - p): its slope (n - k) / S grows as the sum S of term ratios falls.
    """
    tail = log_binomial_cdf(errors, n, p)
    return log_alpha - tail.log, tail.slack, tail.slope


def bits_allowed(errors: int, n: int, risk: float, delta: float) -> float:
    """Longest code with which so many errors still give a binomial bound of at most ``risk``.

    Negative if no code is short enough; rounded down.
    """
    check_counts(errors, n)
    check_delta(delta)
    if not 0 < risk < 1:
        raise UsageError(f"risk must lie strictly between 0 and 1, but is {risk}")
    if errors == n:
        return -math.inf
    tail = log_binomial_cdf(errors, n, risk)
    return (math.log(delta) - tail.log - tail.slack) / LN2
