"""Occam's bound and the inverse relative entropy against mpmath, published values, coverage."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.bounds import kl_upper, occam
from tests.numerics.bounds.exact import counts, few, kl


@few
@given(st.floats(0, 1), st.floats(0, 5))
def test_kl_upper_is_outward_and_tight(q, c):
    found = kl_upper(q, c)
    assert found >= q
    if found < 1:
        assert kl(q, found) >= c - 1e-300
    below = found - 1e-7
    if below > q:
        assert kl(q, below) <= c


# Errors, n, bits, delta, then Hoeffding, kl and binomial forms. The third row is a beta quantile:
# scipy.stats.beta.ppf(0.95, 11, 90).
PUBLISHED = [
    ((0, 1437, 1000, 0.05), (0.49216, 0.3839590449, 0.3839590449)),
    ((100, 1437, 1000, 0.05), (0.56175, 0.52475, 0.52356)),
    ((10, 100, 0, 0.05), (0.22238, 0.18883, 0.16372)),
    ((400, 8000, 600, 0.05), (0.211803, 0.152065, 0.151505)),
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
    found = occam(5, 1437, 1e6, 0.05)
    assert (found.binomial, found.kl, found.hoeffding) == (1.0, 1.0, 1.0)
    assert occam(0, 10, 3e5, 0.05).hoeffding == 1.0
    assert occam(10, 10, 0, 0.05).binomial == 1.0


@few
@given(counts, st.floats(0, 3000), st.floats(1e-6, 0.5))
def test_forms_are_ordered_and_monotone(count, bits, delta):
    errors, n = count
    found = occam(errors, n, bits, delta)
    assert errors / n <= found.binomial <= found.kl + 1e-9
    assert found.kl <= found.hoeffding + 1e-9
    least = found.binomial * (1 - 1e-14)  # bounds are rounded up by a few units of the last place
    assert occam(errors, n, bits + 10, delta).binomial >= least
    assert occam(errors, n, bits, delta / 2).binomial >= least
    assert occam(errors + 1, n, bits, delta).binomial >= least
    assert occam(2 * errors, 2 * n, bits, delta).kl <= found.kl + 1e-9


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
    free = np.array([occam(k, n, 0, delta).binomial for k in range(n + 1)])
    assert (true > free[chosen]).mean() > delta


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
        (lambda: kl_upper(1.1, 0.1), r"a share in \[0, 1\]"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
