"""Rank correlation against scipy; coverage of its interval by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.numerics.ranks import rank_correlation

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=7)


def columns(pairs):
    x, y = np.array(pairs, dtype=float).T
    return x, y


@given(PAIRS.filter(lambda p: len({a for a, _ in p}) > 1 < len({b for _, b in p})))
def test_correlation_and_exact_p_equal_scipy(pairs):
    x, y = columns(pairs)
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)

    def strength(order):
        return abs(stats.spearmanr(order, y).statistic)

    if len(pairs) <= 5:  # scipy counts the same permutations, slowly
        exact = stats.permutation_test(
            (x,), strength, permutation_type="pairings", n_resamples=np.inf, alternative="greater"
        )
        assert found.p == pytest.approx(exact.pvalue, abs=1e-12)
    assert found.low <= found.rho + 1e-9
    assert found.rho - 1e-9 <= found.high
    assert found.least_p <= found.p


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120), (6, 2 / 720)])
def test_a_perfect_order_is_as_likely_as_counting_says(n, p):
    x = np.arange(n, dtype=float)
    found = rank_correlation(x, -x)
    assert (found.rho, found.high < 1, found.low) == (pytest.approx(-1), True, -1)
    assert found.p == found.least_p == pytest.approx(p)


def test_many_pairs_agree_with_the_t_test():
    generator = np.random.default_rng(3)
    x = generator.standard_normal(50)
    y = 0.3 * x + generator.standard_normal(50)
    found, reference = rank_correlation(x, y), stats.spearmanr(x, y)
    assert found.rho == pytest.approx(reference.statistic)
    assert found.p == pytest.approx(reference.pvalue, rel=0.1)
    variance = (1 + found.rho**2 / 2) / 47  # Bonett & Wright (2000)
    ends = np.tanh(np.arctanh(found.rho) + np.array([-1, 1]) * 1.96 * math.sqrt(variance))
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-4)


@pytest.mark.parametrize(("n", "r"), [(5, 0.0), (5, 0.8), (7, -0.6), (9, 0.5)])
def test_the_interval_covers_the_correlation_of_normal_pairs(n, r):
    generator = np.random.default_rng(n)
    true, runs, hits = 6 / math.pi * math.asin(r / 2), 400, 0
    for _ in range(runs):
        x = generator.standard_normal(n)
        y = r * x + math.sqrt(1 - r * r) * generator.standard_normal(n)
        found = rank_correlation(x, y)
        hits += found.low <= true <= found.high
    assert stats.binomtest(hits, runs, 0.95, alternative="less").pvalue > 0.01


@pytest.mark.parametrize("x", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_too_few_or_equal_values_are_refused(x):
    with pytest.raises(UsageError, match="needs three pairs that differ, but got"):
        rank_correlation(np.array(x), np.arange(len(x), dtype=float))
