"""Distances of spectra against scipy, and what shuffling keeps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from tailor.errors import UsageError
from tailor.numerics.distances import jensen_shannon, shuffled, wasserstein


def spectrum(seed, n):
    values = np.random.default_rng(seed).pareto(1.5, n)
    values[: n // 5] = 0
    return values


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_jensen_shannon_equals_scipy(seed, n):
    p, q = spectrum(seed, n), spectrum(seed + 1, n)
    expected = jensenshannon(np.sort(p), np.sort(q))
    assert jensen_shannon(p, q) == pytest.approx(expected, abs=1e-7)


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(2, 60))
def test_wasserstein_equals_scipy(seed, n, m):
    p, q = spectrum(seed, n), spectrum(seed + 1, m)
    expected = wasserstein_distance(p / p.mean(), q / q.mean())
    assert wasserstein(p, q) == pytest.approx(expected, abs=1e-12)
    assert 0 <= wasserstein(p, q) < 2


@pytest.mark.parametrize("distance", [jensen_shannon, wasserstein])
def test_order_and_scale_do_not_matter(distance):
    p, q = spectrum(1, 30), spectrum(2, 30)
    assert distance(p, q) == pytest.approx(distance(1e-6 * p[::-1], 1e6 * q), rel=1e-9)
    assert distance(p, 3 * p) == pytest.approx(0, abs=1e-7)
    assert distance(p, q) > 0.05


def test_a_far_spike_counts_by_its_norm():
    """One of n equal eigenvalues takes the whole norm: 1 - 1/n of it has moved."""
    spike = np.zeros(10)
    spike[3] = 7.0
    assert wasserstein(np.ones(10), spike) == pytest.approx(2 * 0.9)


@pytest.mark.parametrize("distance", [jensen_shannon, wasserstein])
@pytest.mark.parametrize("bad", [np.zeros(3), np.array([1.0, -1, 2]), np.array([1, np.nan, 2])])
def test_what_is_no_spectrum_is_refused(distance, bad):
    with pytest.raises(UsageError, match="finite, not negative and not all zero"):
        distance(np.ones(3), bad)


def test_jensen_shannon_needs_equal_lengths():
    with pytest.raises(UsageError, match="but have 3 and 4 values"):
        jensen_shannon(np.ones(3), np.ones(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_shuffling_keeps_each_matrix_its_entries(dtype):
    stack = torch.arange(3 * 8 * 10).reshape(3, 8, 10).to(dtype)
    before = stack.clone()
    found = shuffled(stack, 0)
    assert torch.equal(stack, before)
    assert (found.dtype, found.shape) == (dtype, stack.shape)
    for matrix, was in zip(found, stack, strict=True):
        assert not torch.equal(matrix, was)
        assert torch.equal(matrix.flatten().sort().values, was.flatten())
    assert not torch.equal(found[0], found[1] - 80)  # each matrix has an order of its own


def test_shuffling_depends_on_the_seed_alone():
    stack = torch.randn(2, 30, 20, generator=torch.Generator().manual_seed(0))
    transposed = stack.transpose(1, 2)  # not contiguous
    state = torch.get_rng_state()
    assert torch.equal(shuffled(stack, 1), shuffled(stack, 1))
    assert not torch.equal(shuffled(stack, 1), shuffled(stack, 2))
    assert torch.equal(shuffled(stack.double(), 1), shuffled(stack, 1).double())
    assert torch.equal(shuffled(transposed, 1), shuffled(transposed.contiguous(), 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_order_is_as_likely():
    """Where the first of six entries lands, over 3000 seeds: uniform within four errors."""
    stack = torch.arange(6.0).reshape(1, 2, 3)
    places = [int((shuffled(stack, seed).flatten() == 0).nonzero()) for seed in range(3000)]
    counts = np.bincount(places, minlength=6)
    assert np.abs(counts - 500).max() < 4 * np.sqrt(500 * 5 / 6)
