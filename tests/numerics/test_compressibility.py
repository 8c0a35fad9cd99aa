"""Compressibility against plain loops, scipy's integrals, published limits, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from tailor.errors import UsageError
from tailor.numerics.compressibility import (
    KAPPA,
    best_k_error,
    compressibility,
    gaussian_best_k_error,
    gaussian_kept,
    gini,
    hoyer,
    lp_norm,
    pq_index,
)

weights = arrays(
    np.float64,
    st.integers(2, 60),
    elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3)),  # no denormal numbers
).filter(np.any)


def best_error_by_trial(values, k, p):
    """Keep each entry in turn, always the one that lowers the error most."""
    rest = list(np.abs(values))
    for _ in range(k):
        rest.remove(max(rest))
    return lp(rest, p) / lp(values, p)


def lp(values, p):
    return sum(abs(v) ** p for v in values) ** (1 / p)


@given(weights, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_error_is_that_of_keeping_the_largest(values, p):
    shares = [0.1, 0.29, 0.5, 0.99, 1.0]
    expected = [
        best_error_by_trial(values, math.floor(round(share * len(values), 9)), p)
        for share in shares
    ]
    assert best_k_error(values, p, shares) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_share_of_29_in_100_is_29_entries():
    """Though 0.29 * 100 is 28.999999999999996."""
    values = np.ones(100)
    assert best_k_error(values, 2.0, [0.29])[0] == pytest.approx(0.71**0.5, rel=1e-12)


def test_no_other_choice_of_entries_is_better():
    values = np.random.default_rng(0).standard_normal(8)
    best = best_k_error(values, 2.0, [3 / 8])[0]
    for mask in range(256):
        kept = [bool(mask >> i & 1) for i in range(8)]
        if sum(kept) == 3:
            assert best <= lp(values[np.logical_not(kept)], 2) / lp(values, 2) + 1e-12


@pytest.mark.parametrize("kappa", [0.001, 0.1, 0.5, 0.9, 1.0])
def test_gaussian_error_is_its_integral(kappa):
    t = stats.norm.isf(kappa / 2)
    for p in (1, 2):
        part, _ = integrate.quad(lambda x, p=p: 2 * x**p * stats.norm.pdf(x), 0, t)
        whole, _ = integrate.quad(lambda x, p=p: 2 * x**p * stats.norm.pdf(x), 0, np.inf)
        assert gaussian_best_k_error(kappa, p) == pytest.approx((part / whole) ** (1 / p), abs=1e-7)


def test_published_gaussian_figures():
    assert gaussian_best_k_error(0.1) == pytest.approx(0.749, abs=5e-4)
    assert 1 - gaussian_kept(0.1) == pytest.approx(0.265, abs=5e-4)
    assert gaussian_best_k_error(gaussian_kept(0.3)) == pytest.approx(0.3, rel=1e-9)


def test_gaussian_values_reach_the_gaussian_curve():
    found = compressibility(np.random.default_rng(1).standard_normal(200_000))
    assert found.error == pytest.approx(found.gaussian, abs=0.003)
    assert found.kept == pytest.approx(found.kept_gaussian, abs=0.003)
    assert found.gini == pytest.approx(math.sqrt(2) - 1, abs=0.002)  # of the half-normal law
    assert found.kappa == KAPPA
    assert found.n == 200_000


def test_infinite_variance_is_compressible():
    """Gribonval et al. (2012): with infinite E X^2 the error falls with n, else it does not."""
    generator = np.random.default_rng(2)
    heavy = [best_k_error(generator.standard_cauchy(n), 2.0, [0.01])[0] for n in (10**3, 10**6)]
    light = [best_k_error(generator.laplace(size=n), 2.0, [0.01])[0] for n in (10**3, 10**6)]
    assert heavy[1] < 0.05 < heavy[0]
    assert light[1] == pytest.approx(light[0], abs=0.05)
    assert light[1] > 0.8


@given(weights)
def test_indices_equal_their_definitions(values):
    n, size = len(values), np.sort(np.abs(values))
    expected = 1 - 2 * sum(
        c / size.sum() * (n - k + 0.5) / n for k, c in enumerate(size.tolist(), start=1)
    )
    assert gini(values) == pytest.approx(expected, abs=1e-12)
    assert pq_index(values, 1, 2) == pytest.approx(
        1 - n ** (1 / 2 - 1) * lp(values, 1) / lp(values, 2), abs=1e-9
    )
    assert pq_index(values) == pytest.approx(
        1 - n ** (1 - 2) * lp(values, 0.5) / lp(values, 1), abs=1e-9
    )
    root = math.sqrt(n)
    assert hoyer(values) == pytest.approx(
        (root - lp(values, 1) / lp(values, 2)) / (root - 1), abs=1e-9
    )


@given(weights, st.sampled_from([0.5, 1.0, 2.0, 3.5]))
def test_norm_equals_its_definition(values, p):
    assert lp_norm(values, p) == pytest.approx(lp(values, p), rel=1e-9)


def test_norms_of_extreme_values():
    assert lp_norm(np.array([3e300, 4e300]), 2) == pytest.approx(5e300)
    assert lp_norm(np.array([3.0, -4.0]), math.inf) == 4
    assert lp_norm(np.zeros(3), 2) == 0
    assert lp_norm(np.array([]), 2) == 0


@given(weights)
def test_equal_sizes_and_one_spike_are_the_ends(values):
    n = len(values)
    flat, spike = np.where(values < 0, -2.0, 2.0), np.zeros(n)
    spike[n // 2] = -7.0
    for index in (gini, hoyer, pq_index):
        assert index(flat) == pytest.approx(0, abs=1e-7)
        assert -1e-7 < index(values) <= index(spike) + 1e-7
    assert gini(spike) == pytest.approx(1 - 1 / n)
    assert hoyer(spike) == pytest.approx(1)
    assert pq_index(spike, 1, 2) == pytest.approx(1 - n**-0.5)


@given(weights, st.sampled_from([1e-8, 7.0, 1e12]))
def test_order_sign_and_scale_do_not_matter(values, factor):
    other = -factor * np.random.default_rng(0).permutation(values)
    one, two = compressibility(values), compressibility(other)
    assert two.error == pytest.approx(one.error, abs=1e-9)
    assert (two.gini, two.pq_index, two.hoyer) == pytest.approx(
        (one.gini, one.pq_index, one.hoyer), abs=1e-9
    )


@given(weights)
def test_least_kept_share(values):
    k = round(compressibility(values).kept * len(values))
    assert best_error_by_trial(values, k, 2) <= 0.1 + 1e-9
    assert best_error_by_trial(values, k - 1, 2) > 0.1 - 1e-9


def test_one_value():
    found = compressibility(np.array([-3.0]), [1.0])
    assert (found.gini, found.hoyer, found.pq_index, found.kept, found.error) == (0, 0, 0, 1, (0,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([]), "none among 0"),
        (np.zeros(7), "none among 7"),
        (np.array([1.0, np.nan]), "NaN or infinite"),
        (np.array([1.0, -np.inf]), "NaN or infinite"),
    ],
)
def test_values_that_cannot_be_measured(values, message):
    for measure in (compressibility, gini, hoyer, pq_index, best_k_error):
        with pytest.raises(UsageError, match=message):
            measure(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: best_k_error(x, 0.0), "order p of a norm must be above 0"),
        (lambda x: best_k_error(x, 2.0, [0.0]), r"must lie in \(0, 1\]"),
        (lambda x: compressibility(x, [1.5]), r"must lie in \(0, 1\]"),
        (lambda x: lp_norm(x, -1.0), "order p of a norm must be above 0"),
        (lambda x: pq_index(x, 2, 1), "needs 0 < p < q"),
        (lambda x: gaussian_best_k_error(0.0), r"must lie in \(0, 1\]"),
        (lambda x: gaussian_best_k_error(0.5, 3), "p = 1 and p = 2"),
        (lambda x: gaussian_kept(1.0), r"tolerance must lie in \(0, 1\)"),
    ],
)
def test_settings_are_checked(call, message):
    with pytest.raises(UsageError, match=message):
        call(np.arange(1.0, 5.0))
