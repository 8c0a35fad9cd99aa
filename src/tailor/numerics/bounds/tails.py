"""Logarithms of binomial probabilities, each with a bound on its own rounding error.

The slacks take the C library's logarithm and exponential to be right within one unit in the
last place, and then charge every operation at least twice what IEEE arithmetic can lose.
"""

import math
from dataclasses import dataclass

import numpy as np

from tailor.numerics.bounds.rounding import EPS

FEW = 16  # below this, ln n! is taken from n! itself; above, Stirling's series is exact to 2e-16
TINY = 1e-300  # more than what an underflow loses
FIRST, BLOCK = 48, 128  # terms summed one by one, then at once; the block doubles as it goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """ln P(Bin(n, p) <= k).

    Attributes:
        log: The logarithm.
        slack: A bound on the rounding error of ``log``.
        slope: Minus the derivative of ``log`` by -ln(1 - p), to a few digits.
    """

    log: float
    slack: float
    slope: float


def log_binomial_cdf(k: int, n: int, p: float) -> Tail:
    """Ln P(Bin(n, p) <= k) for 0 < p < 1 and 0 <= k < n."""
    return _tail(k, n, p, 1 - p)


def log_binomial_sf(k: int, n: int, p: float) -> Tail:
    """Ln P(Bin(n, p) > k) for 0 < p < 1 and 0 <= k < n; ``slope`` is by -ln p."""
    return _tail(n - k - 1, n, 1 - p, p)


def _tail(k: int, n: int, p: float, q: float) -> Tail:
    """Ln P(Bin(n, p) <= k), q = 1 - p, where either may carry one rounding.

    Sums the terms from k downwards, or those above k where they are the smaller part. Either way
    the ratios of neighbours are below one and fall, so that about nine standard deviations of
    terms are all that matter, and a geometric series bounds the rest.
    """
    if k < (n + 1) * p:
        point, slack = log_binomial_point(k, n, p, q)
        total, loss = _falling_sum(k, n - k, q / p)
        log = point + math.log(total)
        return Tail(log=log, slack=slack + loss + 2 * EPS * abs(log), slope=(n - k) / total)
    point, slack = log_binomial_point(k + 1, n, p, q)
    total, loss = _falling_sum(n - k - 1, k + 1, p / q)
    first = math.exp(point)
    above = min(first * total, 0.5)  # k is no less than the mean, so no less than the median
    lost = 2 * above * (slack + loss + 4 * EPS)
    return Tail(
        log=math.log1p(-above),
        slack=2 * lost + 4 * EPS * above + TINY,
        slope=(k + 1) * (q / p) * first / (1 - above),
    )


def log_binomial_point(k: int, n: int, p: float, q: float) -> tuple[float, float]:
    """(ln P(Bin(n, p) = k), a bound on its rounding error), q = 1 - p.

    In the form of Loader (2000): the Stirling errors and two deviances, which are as small as the
    result, where the logarithms of factorials would be as large as n ln n.
    """
    if k in (0, n):
        log = n * (_log(q, p) if k == 0 else _log(p, q))
        return log, 8 * EPS * abs(log)
    hit = -k * math.log(k / (n * p))
    miss = -(n - k) * math.log((n - k) / (n * q))
    level = 0.5 * math.log(n / (2 * math.pi * k * (n - k)))
    stirling = stirling_error(n) - stirling_error(k) - stirling_error(n - k)
    return hit + miss + level + stirling, EPS * (
        4 * n + 8 * (abs(hit) + abs(miss) + abs(level)) + 64
    )


def log_choose(n: int, k: int) -> tuple[float, float]:
    """(ln of the binomial coefficient, a bound on its rounding error), 0 <= k <= n."""
    if k in (0, n):
        return 0.0, 0.0
    first = k * math.log(n / k)
    second = (n - k) * math.log(n / (n - k))
    level = 0.5 * math.log(n / (2 * math.pi * k * (n - k)))
    stirling = stirling_error(n) - stirling_error(k) - stirling_error(n - k)
    return first + second + level + stirling, EPS * (4 * n + 8 * (first + second + abs(level)) + 64)


def stirling_error(n: int) -> float:
    """Ln n! minus Stirling's (n + 1/2) ln n - n + ln(2 pi) / 2, for n >= 1; within 10 EPS.

    The series alternates and brackets its limit: what is left out is below its first term left
    out, 691 / 360360 n^-11.
    """
    if n < FEW:
        return _SMALL[n]
    square = n * n
    series = 1 / 1680 - 1 / (1188 * square)
    series = 1 / 1260 - series / square
    series = 1 / 360 - series / square
    return (1 / 12 - series / square) / n


def _falling_sum(top: int, bottom: int, odds: float) -> tuple[float, float]:
    """(sum over i of the first i factors' product, a bound on its relative error).

    The factors are odds * (top - i) / (bottom + 1 + i) for i = 0, ..., top - 1; they fall from 1 or
    less, so a geometric series bounds what is left out.
    """
    total, last = 1.0, 1.0
    for place in range(min(top, FIRST)):
        factor = odds * (top - place) / (bottom + 1 + place)
        last *= factor
        total += last
        if last * factor <= EPS * total * (1 - factor):  # the rest is below EPS * total
            return total, 4 * EPS * (place + 2)
    return _long_sum(top, bottom, odds, total, last)


def _long_sum(top: int, bottom: int, odds: float, total: float, last: float) -> tuple[float, float]:
    """The same, once its first terms are summed."""
    start, size = min(top, FIRST), BLOCK
    while start < top:
        i = np.arange(start, min(start + size, top), dtype=np.float64)
        factors = (top - i) / (bottom + 1 + i) * odds
        terms = last * np.cumprod(factors)
        total += float(terms.sum())
        last, factor = float(terms[-1]), float(factors[-1])
        start, size = start + len(i), 2 * size
        if last * factor <= EPS * total * (1 - factor):
            break
    return total, 4 * EPS * (start + 1)


def _log(x: float, rest: float) -> float:
    """Ln x for x = 1 - rest, to full relative precision."""
    return math.log1p(-rest) if rest < 0.5 else math.log(x)


# Of sums near 30 at most, so within a few units of 1e-15.
_SMALL = (
    0.0,
    *(
        math.log(math.factorial(n)) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi)
        for n in range(1, FEW)
    ),
)
