"""Tails, entropies and roots with 60 digits, for whatever a bound must not fall below."""

import mpmath
from hypothesis import settings
from hypothesis import strategies as st

DIGITS = 60
few = settings(max_examples=25)  # where one example takes milliseconds
NOTHING = mpmath.mpf(10) ** -35

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))


def point(k, n, p):
    """P(Bin(n, p) = k)."""
    p = mpmath.mpf(p)
    return mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k)


def cdf(k, n, p):
    """P(Bin(n, p) <= k), of the terms from k downwards, or of those above k, that matter."""
    with mpmath.workdps(DIGITS):
        if k >= (n + 1) * p:
            return 1 - cdf(n - k - 1, n, 1 - mpmath.mpf(p))
        odds = (1 - mpmath.mpf(p)) / mpmath.mpf(p)
        term = total = point(k, n, p)
        for j in range(k, 0, -1):
            term *= odds * j / (n - j + 1)
            total += term
            if term < total * NOTHING:
                break
        return total


def survival(k, n, p):
    """P(Bin(n, p) > k)."""
    with mpmath.workdps(DIGITS):
        return cdf(n - k - 1, n, 1 - mpmath.mpf(p))


def kl(q, p):
    with mpmath.workdps(DIGITS):
        q, p = mpmath.mpf(q), mpmath.mpf(p)
        hit = q * mpmath.log(q / p) if q else mpmath.mpf(0)
        miss = (1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else mpmath.mpf(0)
        return hit + miss


def assert_tight(found, holds, gap=1e-9):
    """``holds`` at the number found, and no longer a gap below it."""
    with mpmath.workdps(DIGITS):
        assert holds(mpmath.mpf(found))
        below = mpmath.mpf(found) - gap
        assert below <= 0 or not holds(below)
