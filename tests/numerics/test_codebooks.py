"""Codebooks: published optima, brute force, and the promises about steps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailor.numerics.codebooks import (
    Ranked,
    kmeans,
    kmeans_error,
    kmeans_within,
    least_squares_step,
    nearest,
    nearest_levels,
    relative_error,
    step_at_entropy,
    step_below,
    step_within,
)
from tailor.numerics.coding import MAX_LEVEL, round_step

NORMAL = stats.norm.ppf((np.arange(40_000) + 0.5) / 40_000)
T2 = stats.t.ppf((np.arange(40_000) + 0.5) / 40_000, 2)


def multiples(seed, n, most):
    """Quarters up to a size, each several times if there are many."""
    drawn = np.random.default_rng(seed).integers(-most, most + 1, n)
    return (0.25 * drawn).astype(np.float32)


samples = st.builds(multiples, st.integers(0, 999), st.integers(1, 400), st.integers(0, 40))


def brute_error(x, values):
    x, values = x.astype(np.float64), values.astype(np.float64)
    lost = np.abs(x[:, None] - values).min(axis=1)
    return float((lost**2).sum() / (x**2).sum())


def optimum(x, levels):
    """Least relative error of any partition, by dynamic programming (Bellman 1973)."""
    x = np.sort(x)
    n = len(x)
    sums = np.concatenate([[0], np.cumsum(x)])
    squares = np.concatenate([[0], np.cumsum(x**2)])
    i, j = np.arange(n + 1)[:, None], np.arange(n + 1)[None]
    count = np.maximum(j - i, 1)
    cost = np.where(j > i, squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / count, np.inf)
    best = cost[0]
    for _ in range(levels - 1):
        best = np.minimum(best, (best[:, None] + cost).min(axis=0))
    return float(best[-1] / squares[-1])


# k-means


@pytest.mark.parametrize(
    ("levels", "error"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)]
)
def test_the_optimal_quantizers_of_the_normal_law(levels, error):
    """Max (1960), table I."""
    ranked = Ranked.of(NORMAL)
    values = kmeans(ranked, levels)
    assert len(values) == levels
    assert kmeans_error(ranked, values) == pytest.approx(error, rel=0.005)
    np.testing.assert_allclose(values, -values[::-1], rtol=0.02)


@pytest.mark.parametrize("index", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("levels", [3, 6, 12])
def test_few_numbers_are_cut_at_the_optimum(index, levels):
    x = np.random.default_rng(0).standard_t(index, 300)
    found, least = kmeans_error(Ranked.of(x), kmeans(Ranked.of(x), levels)), optimum(x, levels)
    assert found == pytest.approx(least)


@settings(max_examples=40)
@given(samples, st.integers(1, 12))
def test_each_value_is_the_mean_of_the_numbers_nearest_to_it(x, levels):
    ranked = Ranked.of(x)
    values = kmeans(ranked, levels)
    assert 1 <= len(values) <= levels
    assert (np.diff(values) > 0).all()
    zero = bool((x == 0).any())
    assert not zero or 0.0 in values
    error = kmeans_error(ranked, values)
    if (x != 0).any():
        assert error == pytest.approx(brute_error(x, values), abs=1e-9)
    codes = nearest(x, values)
    means = [x[codes == k].mean(dtype=np.float64) for k in range(len(values))]
    moved = np.where((values == 0) & zero, 0.0, means)
    better = kmeans_error(ranked, np.unique(moved))
    assert better >= error * (1 - 1e-3) - 1e-12  # one more step gains next to nothing


@settings(max_examples=40)
@given(samples, st.integers(81, 100))
def test_few_different_numbers_are_all_kept(x, levels):
    np.testing.assert_array_equal(kmeans(Ranked.of(x), levels), np.unique(x))


@pytest.mark.parametrize("number", [1, 7, 64, 65, 300])
def test_nearest_is_the_nearest(number, monkeypatch):
    monkeypatch.setattr("tailor.numerics.codebooks.lloyd.CHUNK", 1000)
    rng = np.random.default_rng(number)
    values = np.unique(rng.standard_normal(number)).astype(np.float32)
    x = rng.standard_normal(3_000).astype(np.float32)
    codes = nearest(x, values)
    far = np.abs(x[:, None].astype(np.float64) - values)
    np.testing.assert_allclose(far[np.arange(len(x)), codes], far.min(axis=1), atol=5e-7)


@pytest.mark.parametrize("x", [NORMAL, T2, T2.astype(np.float32)])
@pytest.mark.parametrize("error", [0.1, 0.01, 0.001])
def test_the_fewest_values_within_an_error(x, error):
    ranked = Ranked.of(x)
    values = kmeans_within(ranked, error)
    assert brute_error(x, values) <= error
    assert kmeans_error(ranked, kmeans(ranked, len(values) - 1)) > error


def test_no_table_is_long_enough_for_a_tiny_error():
    ranked = Ranked.of(NORMAL)
    assert kmeans_within(ranked, 1e-12) is None
    assert len(kmeans_within(Ranked.of(NORMAL[::1000]), 1e-12)) == 40  # as many as there are


@pytest.mark.parametrize("n", [1, 255, 256, 257, 70_001])
def test_sums_over_stretches(n):
    x = np.random.default_rng(n).standard_t(2, n)
    ranked = Ranked.of(x)
    cuts = np.unique(np.concatenate([[0, n], np.random.default_rng(0).integers(0, n + 1, 20)]))
    cells = ranked.cells(cuts)
    ordered = np.sort(x)
    for i, (a, b) in enumerate(itertools.pairwise(cuts)):
        assert cells.counts[i] == b - a
        assert cells.sums[i] == pytest.approx(ordered[a:b].sum(), abs=1e-9 * np.abs(x).sum())
        assert cells.squares[i] == pytest.approx((ordered[a:b] ** 2).sum(), abs=1e-9 * (x @ x))


# Steps


@settings(max_examples=40)
@given(samples, st.floats(0.01, 3), st.integers(1, 50))
def test_levels_and_error_of_a_step(x, step, top):
    levels = np.clip(np.rint(x.astype(np.float64) / step), -top, top)
    np.testing.assert_array_equal(nearest_levels(x, step, top), levels)
    if (x != 0).any():
        error = ((levels * step - x) ** 2).sum() / (x.astype(np.float64) ** 2).sum()
        assert relative_error(x, step, top) == pytest.approx(error)
    assert relative_error(np.zeros(3), step, top) == 0


def above(step):
    """The next larger bfloat16 number."""
    return float((np.array([step], "<f4").view("<u4") + 0x10000).view("<f4")[0])


@pytest.mark.parametrize("x", [NORMAL, T2, 1e-6 * NORMAL, 1e9 * T2, 1e-30 * NORMAL])
@pytest.mark.parametrize("error", [0.3, 0.01, 1e-4])
def test_the_largest_step_within_an_error(x, error):
    step = step_within(x, error)
    assert round_step(step) == step
    assert step_below(above(step)) == step
    assert relative_error(x, step) <= error
    assert relative_error(x, above(step)) > error


@pytest.mark.parametrize("bits", [0.3, 1.0, 3.0, 7.5])
@pytest.mark.parametrize("x", [NORMAL, T2])
def test_the_smallest_step_at_an_entropy(x, bits):
    def entropy(step):
        return stats.entropy(np.unique(np.rint(x / step), return_counts=True)[1], base=2)

    step = step_at_entropy(x, bits)
    assert entropy(step) <= bits < entropy(step_below(step))


def test_steps_of_odd_samples():
    assert step_within(np.zeros(5), 0.01) == 1.0
    assert step_at_entropy(np.zeros(5), 1.0) == 1.0
    assert least_squares_step(Ranked.of(np.zeros(5)), 3) == 1.0
    outlier = np.concatenate([[1e9], np.ones(1000)])
    assert np.count_nonzero(nearest_levels(outlier, step_within(outlier, 0.01))) == 1
    assert step_within(outlier, 1e-17) is None  # the ones would need more than 2^20 levels
    few = np.array([-1.0, 0.0, 1.0])  # at most log2(3) bits, whatever the step
    assert np.abs(nearest_levels(few, step_at_entropy(few, 2.0))).max() <= MAX_LEVEL


@pytest.mark.parametrize("x", [NORMAL, T2])
@pytest.mark.parametrize("top", [1, 3, 7, 127])
def test_the_least_squares_step_beats_every_other(x, top):
    step = least_squares_step(Ranked.of(x), top)
    assert round_step(step) == step
    others = np.geomspace(np.abs(x).max() / top / 300, 2 * np.abs(x).max() / top, 300)
    least = min(relative_error(x, float(other), top) for other in others)
    assert relative_error(x, step, top) <= least * 1.001  # bfloat16 has 128 steps an octave
