"""Sample compression and Pick-to-Learn against the equation summed directly, and mpmath."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from tailor.errors import UsageError
from tailor.numerics.bounds import (
    binomial_upper,
    held_out_upper,
    likely_window,
    pick_to_learn,
    sample_compression,
)
from tests.numerics.bounds.exact import assert_tight, cdf, counts, few, point, survival


def log_sum(k, n, eps):
    """ln of (1/n) sum_{m=k}^{n-1} [C(m,k) / C(n,k)] (1 - eps)^(m - n), term by term."""
    m = np.arange(k, n)
    logs = special.gammaln(m + 1) - special.gammaln(m - k + 1) + (m - n) * math.log1p(-eps)
    logs -= special.gammaln(n + 1) - special.gammaln(n - k + 1)
    return float(special.logsumexp(logs)) - math.log(n)


@few
@given(
    st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
    st.floats(1e-6, 0.5),
)
def test_the_root_solves_the_equation_as_it_is_printed(count, delta):
    k, n = count
    eps = pick_to_learn(k, n, delta)
    assert k / n < eps <= 1
    if eps < 1 - 1e-9:
        assert log_sum(k, n, eps) >= -math.log(delta) - 1e-9
        assert log_sum(k, n, eps - 1e-7) <= -math.log(delta)


CASES = [(0, 1000), (80, 1500), (300, 8000), (326, 27_000), (1000, 60_000), (59_000, 60_000)]


@pytest.mark.parametrize(("k", "n"), [*CASES, (0, 1), (0, 2), (7, 8), (5000, 10**6), (0, 10**6)])
def test_pick_to_learn_is_outward_and_tight(k, n):
    def beyond(eps):
        return n * eps * point(k, n, eps) <= mpmath.mpf(0.05) * survival(k, n, eps)

    assert_tight(pick_to_learn(k, n, 0.05), beyond)


WINDOWS = [(80, 1500, (934, 1292)), (40, 1500, (934, 1292)), (3, 900, (0, 10)), (700, 900, (1, 2))]


@pytest.mark.parametrize(
    ("k", "n", "window"), [*WINDOWS, (300, 8000, (7999, 7999)), (0, 1, (0, 0))]
)
def test_a_window_is_outward_and_tight(k, n, window):
    first, last = window

    def beyond(eps):
        every = survival(k, n, eps) / n
        later = survival(k, last + 1, eps) if last + 1 > k else 0
        sooner = survival(k, first, eps) if first > k else 0
        weighed = mpmath.mpf("0.1") * every + mpmath.mpf("0.9") * (later - sooner) / (
            last + 1 - first
        )
        return eps * point(k, n, eps) <= mpmath.mpf(0.05) * weighed * (1 + mpmath.mpf(10) ** -14)

    assert_tight(pick_to_learn(k, n, 0.05, window), beyond)


@pytest.mark.parametrize(("k", "n", "window"), WINDOWS)
def test_a_window_solves_the_weighed_equation(k, n, window):
    """The proof's own sum: weights that add up to delta, over m = k to n - 1."""
    weights = np.full(n, 0.1 * 0.05 / n)
    weights[window[0] : window[1] + 1] += 0.9 * 0.05 / (window[1] + 1 - window[0])
    assert weights.sum() == pytest.approx(0.05)
    eps, m = pick_to_learn(k, n, 0.05, window), np.arange(k, n)
    logs = special.gammaln(m + 1) - special.gammaln(m - k + 1) + (m - n) * math.log1p(-eps)
    logs += special.gammaln(n - k + 1) - special.gammaln(n + 1) + np.log(weights[k:])
    assert float(special.logsumexp(logs)) == pytest.approx(0.0, abs=1e-8)


def test_the_likely_window_pays_for_half_and_double_too():
    window = likely_window(80, 1500, 0.05)
    for k in (40, 80, 160):
        assert held_out_upper(k, 1500, 0.05) < pick_to_learn(k, 1500, 0.05, window)
        assert pick_to_learn(k, 1500, 0.05, window) < pick_to_learn(k, 1500, 0.05) - 0.001
    assert pick_to_learn(0, 1500, 0.05, window) > pick_to_learn(0, 1500, 0.05)
    assert pick_to_learn(80, 1500, 0.05, (0, 1499)) == pytest.approx(pick_to_learn(80, 1500, 0.05))
    assert likely_window(5, 5, 0.05) == (4, 4)


REFERENCE = [(80, 1500, 0.072788), (300, 8000, 0.044698), (0, 1000, 0.0045009)]


@pytest.mark.parametrize(("k", "n", "expected"), REFERENCE)
def test_reference_values(k, n, expected):
    assert pick_to_learn(k, n, 0.05) == pytest.approx(expected, abs=5e-7)


def test_pick_to_learn_at_the_ends():
    assert pick_to_learn(10, 10, 0.05) == 1.0
    # n = 1: (delta / 1) (1 - eps)^-1 = 1
    assert pick_to_learn(0, 1, 0.05) == pytest.approx(0.95, abs=1e-12)


@settings(max_examples=10)
@given(counts, st.floats(1e-5, 0.5))
def test_pick_to_learn_is_monotone_and_above_the_known_size(count, delta):
    k, n = count
    found = pick_to_learn(k, n, delta)
    assert pick_to_learn(k + 1, n, delta) >= found
    assert pick_to_learn(k, n, delta / 2) >= found
    assert pick_to_learn(k, n + 50, delta) <= found
    assert found >= held_out_upper(k, n, delta) * (1 - 1e-9)  # as if k had been known beforehand


@few
@given(counts, st.integers(0, 40), st.floats(0, 50))
def test_sample_compression_is_the_tail_at_the_divided_level(count, size, message):
    errors, rest = count
    n = rest + size
    found = sample_compression(errors, n, size, message, 0.05)
    with mpmath.workdps(60):
        ways = (n + 1) * mpmath.binomial(n, size)
        level = mpmath.mpf(0.05) * mpmath.mpf(2) ** -mpmath.mpf(message) / ways
        assert found == 1 or cdf(errors, rest, found) <= level
        log_level = float(mpmath.log(level))
    assert found == pytest.approx(binomial_upper(errors, rest, log_level), abs=1e-9)
    assert sample_compression(errors, n + 1, size + 1, message, 0.05) >= found * (1 - 1e-6)
    assert sample_compression(errors, n, size, message + 1, 0.05) >= found


def test_sample_compression_at_the_ends():
    assert sample_compression(0, 10, 10, 0, 0.05) == 1.0
    assert sample_compression(0, 10, 0, 0, 0.05) == pytest.approx(1 - (0.05 / 11) ** 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pick_to_learn(11, 10, 0.05), "between 0 and n = 10, but is 11"),
        (lambda: pick_to_learn(1, 10, 1.0), "strictly between 0 and 1"),
        (lambda: pick_to_learn(1, 10, 0.05, (3, 10)), "within 0 to n - 1 = 9, but is 3 to 10"),
        (lambda: pick_to_learn(1, 10, 0.05, (5, 4)), "within 0 to n - 1 = 9, but is 5 to 4"),
        (lambda: sample_compression(5, 10, 6, 0, 0.05), "between 0 and n - size = 4, but is 5"),
        (lambda: sample_compression(0, 10, 11, 0, 0.05), "between 0 and n = 10, but is 11"),
        (lambda: sample_compression(0, 10, 1, -1, 0.05), "0 bits or more, but is -1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
