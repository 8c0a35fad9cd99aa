"""Bounds against mpmath, scipy, published values, and simulated coverage."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.numerics.bounds import (
    binomial_upper,
    bits_allowed,
    clopper_pearson,
    kl_upper,
    occam,
)


def exact_cdf(errors, n, p):
    """P(Bin(n, p) <= errors) with 60 digits."""
    with mpmath.workdps(60):
        p = mpmath.mpf(p)
        return mpmath.fsum(
            mpmath.binomial(n, j) * p**j * (1 - p) ** (n - j) for j in range(errors + 1)
        )


def exact_kl(q, p):
    with mpmath.workdps(60):
        q, p = mpmath.mpf(q), mpmath.mpf(p)
        hit = q * mpmath.log(q / p) if q else mpmath.mpf(0)
        miss = (1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else mpmath.mpf(0)
        return hit + miss


counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))


@given(counts, st.floats(1e-12, 0.999))
def test_binomial_upper_equals_scipy_and_never_lies_below(count, alpha):
    errors, n = count
    found = binomial_upper(errors, n, math.log(alpha))
    assert found == pytest.approx(stats.beta.ppf(1 - alpha, errors + 1, n - errors), rel=1e-6)
    # outward: at the returned p the exact tail is at most alpha
    assert exact_cdf(errors, n, found) <= alpha * (1 + mpmath.mpf(10) ** -14)


@pytest.mark.parametrize(
    ("errors", "n", "bits"), [(0, 1437, 1000), (32, 1437, 888), (100, 1437, 1000), (7, 50, 3000)]
)
def test_binomial_upper_far_below_the_smallest_float(errors, n, bits):
    log_alpha = math.log(0.05) - bits * math.log(2)
    found = binomial_upper(errors, n, log_alpha)
    with mpmath.workdps(60):
        alpha = mpmath.mpf("0.05") * mpmath.mpf(2) ** -bits
        assert exact_cdf(errors, n, found) <= alpha
        assert exact_cdf(errors, n, found * (1 - 1e-9)) > alpha  # and it is tight


@given(st.floats(0, 1), st.floats(0, 5))
def test_kl_upper_is_outward_and_tight(q, c):
    found = kl_upper(q, c)
    assert found >= q
    if found < 1:
        assert exact_kl(q, found) >= c - 1e-300
    below = found - 1e-7
    if below > q:
        assert exact_kl(q, below) <= c


# Errors, n, bits, delta, then Hoeffding, kl and binomial forms. The last row is a beta quantile:
# scipy.stats.beta.ppf(0.95, 11, 90).
PUBLISHED = [
    ((0, 1437, 1000, 0.05), (0.49216, 0.3839590449, 0.3839590449)),
    ((100, 1437, 1000, 0.05), (0.56175, 0.52475, 0.52356)),
    ((10, 100, 0, 0.05), (0.22238, 0.18883, 0.16372)),
]


@pytest.mark.parametrize(("case", "expected"), PUBLISHED)
def test_occam_reference_values(case, expected):
    found = occam(*case)
    assert (found.hoeffding, found.kl, found.binomial) == pytest.approx(expected, abs=1e-5)


def test_occam_at_zero_errors_is_the_closed_form():
    found = occam(0, 1437, 1000, 0.05)
    with mpmath.workdps(60):
        alpha = mpmath.mpf("0.05") * mpmath.mpf(2) ** -1000
        exact = 1 - alpha ** (mpmath.mpf(1) / 1437)
    assert 0 <= found.binomial - float(exact) < 1e-9


def test_occam_says_one_when_the_code_is_too_long():
    # a library's log cdf underflows here and would give 0.40
    assert occam(5, 1437, 1e6, 0.05).binomial > 1 - 1e-9
    assert occam(0, 10, 3e5, 0.05).hoeffding == 1.0


@given(counts, st.floats(0, 3000), st.floats(1e-6, 0.5))
def test_forms_are_ordered_and_monotone(count, bits, delta):
    errors, n = count
    found = occam(errors, n, bits, delta)
    assert errors / n <= found.binomial <= found.kl + 1e-9
    assert found.kl <= found.hoeffding + 1e-9
    assert occam(errors, n, bits + 10, delta).binomial >= found.binomial
    assert occam(errors, n, bits, delta / 2).binomial >= found.binomial
    assert occam(errors + 1, n, bits, delta).binomial >= found.binomial


@given(counts, st.floats(1e-4, 0.9))
def test_clopper_pearson_equals_scipy(count, delta):
    errors, n = count
    low, high = clopper_pearson(errors, n, delta)
    exact = stats.binomtest(errors, n).proportion_ci(1 - delta, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), rel=1e-6, abs=1e-9)
    level = delta / 2 * (1 + mpmath.mpf(10) ** -14)
    assert exact_cdf(errors, n, high) <= level if errors < n else high == 1
    assert 1 - exact_cdf(errors - 1, n, low) <= level if errors else low == 0


def test_clopper_pearson_at_the_ends():
    assert clopper_pearson(0, 30, 0.05)[0] == 0.0
    assert clopper_pearson(30, 30, 0.05)[1] == 1.0


@given(counts, st.floats(0.001, 0.999), st.floats(0.001, 0.5))
def test_bits_allowed_inverts_occam(count, risk, delta):
    errors, n = count
    bits = bits_allowed(errors, n, risk, delta)
    if bits > 0:
        assert occam(errors, n, bits, delta).binomial <= risk * (1 + 1e-9)
        assert occam(errors, n, bits + 0.01, delta).binomial > risk * (1 - 1e-9)


def test_occam_holds_for_a_searched_hypothesis():
    """2^bits random classifiers, the best on the sample is reported: coverage is kept."""
    bits, n, delta, rounds = 6, 60, 0.1, 4000
    generator = np.random.default_rng(0)
    risks = generator.uniform(0.25, 0.5, size=(rounds, 2**bits))
    errors = generator.binomial(n, risks)
    best = errors.argmin(axis=1)
    bound = {k: occam(k, n, bits, delta) for k in range(n + 1)}
    chosen, true = errors[np.arange(rounds), best], risks[np.arange(rounds), best]
    for form in ("binomial", "kl", "hoeffding"):
        limits = np.array([getattr(bound[k], form) for k in chosen.tolist()])
        assert (true > limits).mean() <= delta
    # the test can fail: without paying for the search the bound is violated far too often
    unpaid = np.array([occam(k, n, 0, delta).binomial for k in chosen.tolist()])
    assert (true > unpaid).mean() > delta


def test_binomial_coverage_is_close_to_its_level():
    n, p, delta = 80, 0.13, 0.1
    errors = stats.binom.rvs(n, p, size=20_000, random_state=1)
    limits = np.array([binomial_upper(k, n, math.log(delta)) for k in range(n + 1)])
    violated = (p > limits[errors]).mean()
    assert delta / 3 < violated <= delta + 0.006  # three standard errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: occam(1, 0, 1, 0.05), "at least one example, but n is 0"),
        (lambda: occam(5, 4, 1, 0.05), "between 0 and n = 4, but is 5"),
        (lambda: occam(-1, 4, 1, 0.05), "between 0 and n = 4, but is -1"),
        (lambda: occam(1, 4, 1, 0.0), "strictly between 0 and 1, but is 0"),
        (lambda: occam(1, 4, 1, 1.0), "strictly between 0 and 1, but is 1"),
        (lambda: occam(1, 4, -1, 0.1), "0 bits or more, but is -1"),
        (lambda: occam(1, 4, math.nan, 0.1), "0 bits or more, but is nan"),
        (lambda: binomial_upper(1, 4, 0.1), "at most 0, but is 0.1"),
        (lambda: kl_upper(1.1, 0.1), r"a share in \[0, 1\]"),
        (lambda: bits_allowed(1, 4, 1.0, 0.1), "strictly between 0 and 1, but is 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
