"""Asymptotic laws of the largest stable values, against the exact law and against samples."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import zeta

from tailor.errors import UsageError
from tailor.numerics.compressibility import best_k_error
from tailor.numerics.stable import sample_stable, tabulate
from tailor.numerics.stable.largest import (
    expected_count,
    k_for_error,
    removed_variance,
    tail_constant,
    topk_relative_error,
)


@pytest.mark.parametrize("index", [0.6, 1.0, 1.5, 1.8])
def test_the_constant_is_that_of_the_exact_tail(index):
    far = 1e4
    assert tail_constant(index) * far**-index == pytest.approx(
        1 - float(tabulate(index).cdf(np.array([far]))[0]), rel=2e-3
    )


def test_constants_that_are_known():
    assert tail_constant(1.0) == pytest.approx(1 / math.pi)  # Cauchy
    assert tail_constant(2.0) == 0.0
    assert tail_constant(0.5) == pytest.approx(1 / math.sqrt(2 * math.pi))  # Gamma(1/2) / ...


@pytest.mark.parametrize("index", [0.8, 1.0, 1.5, 1.8])
def test_the_count_beyond_twenty_scales(index):
    exact = 2 * stats.levy_stable.sf(60.0 / 3, index, 0)
    assert expected_count(index, 3.0, 60.0, 10_000) == pytest.approx(10_000 * exact, rel=0.1)
    assert expected_count(index, 3.0, 0.01, 10_000) == 10_000


def test_the_variance_below_twenty_scales():
    """Cauchy: E[X^2; |X| <= t] = (2 / pi)(t - arctan t) times the square of the scale."""
    for t, worst in ((20.0, 0.1), (1e4, 1e-3)):
        exact = 9 * 2 / math.pi * (t - math.atan(t))
        assert removed_variance(1.0, 3.0, 3 * t) == pytest.approx(exact, rel=worst)


def test_published_errors():
    assert topk_relative_error(1.2, 50) ** 2 == pytest.approx(0.052, abs=5e-4)
    assert topk_relative_error(1.8, 200) ** 2 == pytest.approx(0.521, abs=5e-4)
    assert topk_relative_error(1.0, 7) == pytest.approx((1 / 7 / zeta(2)) ** 0.5)
    assert topk_relative_error(1.9, 1) <= 1


@pytest.mark.parametrize("index", [0.8, 1.2])
def test_samples_lie_within_a_factor_of_two(index):
    n, k = 100_000, 50
    found = [
        best_k_error(sample_stable(n, index, generator=generator).double().numpy(), kappa=[k / n])
        for generator in (torch.Generator().manual_seed(seed) for seed in range(15))
    ]
    assert 0.5 < float(np.median(found)) / topk_relative_error(index, k) < 2


def test_how_many_to_keep():
    assert k_for_error(1.0, 0.1, 10**6) == 61
    assert k_for_error(1.5, 0.1, 10**7) == pytest.approx(6e5, rel=0.05)
    assert k_for_error(1.99, 0.1, 10**6) == 10**6
    assert k_for_error(0.1, 0.5, 10) == 1


@pytest.mark.parametrize("index", [0.7, 1.0, 1.3])
def test_the_two_are_inverse(index):
    k = k_for_error(index, 0.2, 10**9)
    assert topk_relative_error(index, k) <= 0.2
    assert k == 1 or topk_relative_error(index, k - 1) > 0.2


def test_bad_input():
    for index in (0.0, 2.1, math.nan):
        with pytest.raises(UsageError, match="a stable law has an index"):
            tail_constant(index)
    for call in (
        lambda: removed_variance(2.0, 1.0, 1.0),
        lambda: topk_relative_error(2.0, 5),
        lambda: k_for_error(2.5, 0.1, 10),
    ):
        with pytest.raises(UsageError, match="keep a fixed share"):
            call()
    for scale, threshold in ((0.0, 1.0), (1.0, math.inf)):
        with pytest.raises(UsageError, match="must be positive and finite"):
            expected_count(1.0, scale, threshold, 10)
    with pytest.raises(UsageError, match="must not be negative"):
        expected_count(1.0, 1.0, 1.0, -1)
    with pytest.raises(UsageError, match="at least one value"):
        topk_relative_error(1.0, 0)
    with pytest.raises(UsageError, match=r"an error in \(0, 1\)"):
        k_for_error(1.0, 1.0, 10)
