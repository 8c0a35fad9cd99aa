"""Inverted binomial tails against mpmath, scipy and published values."""

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
    held_out_upper,
    occam,
)
from tailor.numerics.bounds.tails import log_binomial_cdf, log_binomial_point, log_choose
from tests.numerics.bounds.exact import assert_tight, cdf, counts, few, point

UNSEEN = 1e-33  # what the reference leaves out


@few
@given(counts, st.floats(1e-12, 0.999))
def test_binomial_upper_equals_scipy(count, alpha):
    errors, n = count
    found = binomial_upper(errors, n, math.log(alpha))
    assert found == pytest.approx(stats.beta.ppf(1 - alpha, errors + 1, n - errors), rel=1e-6)


# Errors, n, bits: empty, full, single and large samples, and levels far below the smallest float.
OUTWARD = [
    *[(0, 1437, 1000), (32, 1437, 888), (100, 1437, 1000), (7, 50, 3000), (0, 1, 0), (0, 1, 60)],
    *[(1436, 1437, 10), (0, 60_000, 2000), (1000, 60_000, 1500), (59_999, 60_000, 5)],
    *[(30_000, 60_000, 0), (30_000, 1_000_000, 5000), (999_000, 1_000_000, 20), (1, 1_000_000, 0)],
]


@pytest.mark.parametrize(("errors", "n", "bits"), OUTWARD)
def test_binomial_upper_is_outward_and_tight(errors, n, bits):
    with mpmath.workdps(60):
        alpha = mpmath.mpf("0.05") * mpmath.mpf(2) ** -bits
    log_alpha = math.log(0.05) - bits * math.log(2)
    found = binomial_upper(errors, n, log_alpha)
    slip = 1 + 1e-15 * (1 - log_alpha)  # log_alpha itself is rounded
    assert_tight(found, lambda p: p == 1 or cdf(errors, n, p) <= alpha * slip)


@few
@given(counts, st.floats(1e-9, 1 - 1e-9))
def test_logarithms_lie_within_their_slack(count, p):
    k, n = count
    tail = log_binomial_cdf(k, n, p)
    single, slack = log_binomial_point(k, n, p, 1 - p)
    choices, room = log_choose(n, k)
    with mpmath.workdps(60):
        assert abs(mpmath.log(cdf(k, n, p)) - tail.log) <= tail.slack + UNSEEN
        assert abs(mpmath.log(point(k, n, p)) - single) <= slack
        assert abs(mpmath.log(mpmath.binomial(n, k)) - choices) <= room


@pytest.mark.parametrize("n", [60_000, 1_000_000])
@pytest.mark.parametrize(
    ("share", "p"),
    [
        (0.0, 1e-5),
        (1e-4, 0.021),
        (0.02, 0.021),
        (0.02, 0.0199),
        (0.3, 0.31),
        (0.5, 0.97),
        (0.9, 0.3),
    ],
)
def test_large_samples_stay_within_their_slack(n, share, p):
    k = int(share * n)
    tail = log_binomial_cdf(k, n, p)
    with mpmath.workdps(60):
        off = abs(mpmath.log(cdf(k, n, p)) - tail.log)
    assert off <= tail.slack + UNSEEN
    assert tail.slack <= 1e-13 * (n - tail.log)


def test_the_slope_is_the_derivative():
    for k, n, p in [(3, 50, 0.2), (40, 50, 0.2), (200, 9000, 0.03)]:
        step = 1e-6
        u = -math.log1p(-p)
        up, down = (log_binomial_cdf(k, n, -math.expm1(-v)).log for v in (u + step, u - step))
        assert log_binomial_cdf(k, n, p).slope == pytest.approx((down - up) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(("errors", "n", "expected"), [(0, 300, 0.009936), (3, 30, 0.238598)])
def test_held_out_reference_values(errors, n, expected):
    assert held_out_upper(errors, n, 0.05) == pytest.approx(expected, abs=5e-7)


def test_held_out_at_the_ends():
    assert held_out_upper(30, 30, 0.05) == 1.0
    assert held_out_upper(0, 1, 0.05) == pytest.approx(0.95)
    assert held_out_upper(0, 1000, 0.05) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-12)


@few
@given(counts, st.floats(1e-4, 0.9))
def test_clopper_pearson_equals_scipy(count, delta):
    errors, n = count
    low, high = clopper_pearson(errors, n, delta)
    exact = stats.binomtest(errors, n).proportion_ci(1 - delta, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), rel=1e-6, abs=1e-9)
    level = delta / 2 * (1 + mpmath.mpf(10) ** -14)
    assert cdf(errors, n, high) <= level
    assert 1 - cdf(errors - 1, n, low) <= level if errors else low == 0


def test_clopper_pearson_at_the_ends():
    assert clopper_pearson(0, 30, 0.05)[0] == 0.0
    assert clopper_pearson(30, 30, 0.05)[1] == 1.0


@few
@given(counts, st.floats(0.001, 0.999), st.floats(0.001, 0.5))
def test_bits_allowed_inverts_occam(count, risk, delta):
    errors, n = count
    bits = bits_allowed(errors, n, risk, delta)
    if bits > 0:
        assert occam(errors, n, bits, delta).binomial <= risk * (1 + 1e-9)
        assert occam(errors, n, bits + 0.01, delta).binomial > risk * (1 - 1e-9)


def test_no_code_is_short_enough_when_all_is_wrong():
    assert bits_allowed(4, 4, 0.9, 0.05) == -math.inf


def test_binomial_coverage_is_close_to_its_level():
    n, p, delta = 80, 0.13, 0.1
    errors = stats.binom.rvs(n, p, size=20_000, random_state=1)
    limits = np.array([binomial_upper(k, n, math.log(delta)) for k in range(n + 1)])
    violated = (p > limits[errors]).mean()
    assert delta / 3 < violated <= delta + 0.006  # three standard errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: held_out_upper(5, 4, 0.05), "between 0 and n = 4, but is 5"),
        (lambda: held_out_upper(1, 4, 0.0), "strictly between 0 and 1, but is 0"),
        (lambda: clopper_pearson(1, 0, 0.05), "at least one example, but n is 0"),
        (lambda: binomial_upper(1, 4, 0.1), "at most 0, but is 0.1"),
        (lambda: binomial_upper(1, 4, math.nan), "at most 0, but is nan"),
        (lambda: bits_allowed(1, 4, 1.0, 0.1), "strictly between 0 and 1, but is 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
