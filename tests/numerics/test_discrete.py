"""Power laws of whole numbers against scipy's zeta and optimizer, value by value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from tailor import DiscreteClauset, NoFit, UsageError


def by_brute_force(x, least):
    """Every xmin, a bounded search for alpha, every whole number up to the largest value."""
    best = None
    for xmin in np.unique(x)[:-1]:
        tail = x[x >= xmin]
        if len(tail) < least:
            continue
        total = np.log(tail).sum()

        def loss(alpha, total=total, xmin=xmin, size=tail.size):
            return size * np.log(zeta(alpha, xmin)) + alpha * total

        alpha = minimize_scalar(loss, bounds=(1.0001, 60), options={"xatol": 1e-9}).x
        whole = np.arange(xmin, x.max() + 1)
        model = 1 - zeta(alpha, whole + 1) / zeta(alpha, xmin)
        sample = np.searchsorted(np.sort(tail), whole, side="right") / len(tail)
        distance = np.abs(model - sample).max()
        if best is None or distance < best[2]:
            best = (alpha, xmin, distance, len(tail))
    return best


@pytest.mark.parametrize("alpha", [1.7, 2.5, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_trying_everything_finds(alpha, seed):
    x = np.minimum(np.random.default_rng(seed).zipf(alpha, 400), 3000).astype(float)
    found = DiscreteClauset(min_tail=20, min_fraction=0).fit(x)
    expected = by_brute_force(x, 20)
    assert found.xmin == expected[1]
    assert found.n_tail == expected[3]
    assert found.alpha == pytest.approx(expected[0], abs=1e-6)
    assert pytest.approx(expected[2], abs=1e-7) == found.D


def test_its_interval_covers_as_often_as_it_says():
    """xmin is 1 in truth, and the whole sample is the only tail that is long enough."""
    method = DiscreteClauset(min_fraction=1)
    draws = [np.random.default_rng(seed).zipf(2.5, 300).astype(float) for seed in range(400)]
    fits = [method.fit(x) for x in draws]
    inside = sum(fit.low <= 2.5 <= fit.high for fit in fits)
    assert 0.92 <= inside / 400 <= 0.98  # binomial: 0.95 +- 2.75 standard errors
    spread = np.std([fit.alpha for fit in fits])
    assert np.mean([fit.sigma for fit in fits]) == pytest.approx(spread, rel=0.1)


def test_large_values_do_not_underflow():
    x = np.array([10**6] * 30 + [10**6 + k for k in range(1, 40)], dtype=float)
    found = DiscreteClauset().fit(x)
    assert np.isfinite([found.alpha, found.sigma, found.D]).all()
    assert found.alpha > 40


@given(st.lists(st.integers(1, 9), max_size=60))
def test_few_or_equal_values_are_refused_and_others_fitted(numbers):
    found = DiscreteClauset().fit(np.array(numbers, dtype=float))
    if len(numbers) < 20 or len(set(numbers)) < 2:
        assert isinstance(found, NoFit)
        assert found.n == len(numbers)
    if not isinstance(found, NoFit):
        assert found.alpha > 1
        assert 0 <= found.D <= 1
        assert found.n_tail >= 10


def test_what_is_no_whole_number_is_refused():
    with pytest.raises(UsageError, match="a discrete fit needs whole numbers; for others use Cl"):
        DiscreteClauset().fit(np.array([1.0, 2.5]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tail": 1}, "min_tail must be at least 2, but is 1"),
        ({"min_fraction": 1.1}, r"min_fraction must be from 0 to 1, but is 1\.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        DiscreteClauset(**settings)
