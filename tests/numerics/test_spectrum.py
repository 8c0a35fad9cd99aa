"""Singular values against numpy and known matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.numerics.spectrum import eigenvalues, singular_values, stable_rank


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_equals_numpy(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    expected = np.linalg.svd(matrix.numpy().astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix).numpy(), expected, rtol=1e-10, atol=1e-13)


def test_small_singular_values_keep_their_accuracy():
    """A Gram matrix in float64 would lose everything below 1e-8 of the largest."""
    left, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    true = torch.logspace(0, -11, 8, dtype=torch.float64)
    found = singular_values(left @ torch.diag(true) @ right)
    torch.testing.assert_close(found, true, rtol=1e-3, atol=0)


def test_low_precision_and_gradients_are_accepted():
    matrix = torch.nn.Parameter(torch.randn(4, 6).to(torch.bfloat16))
    found = singular_values(matrix)
    assert found.dtype == torch.float64
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0], 1.0), ([1.0] * 7, 7.0), ([3.0, 0.0], 1.0), ([2.0, 1.0], 1.25), ([0.0, 0.0], 0.0)],
)
def test_stable_rank_of_known_spectra(values, expected):
    assert stable_rank(torch.tensor(values, dtype=torch.float64)) == pytest.approx(expected)


@given(st.floats(1e-200, 1e200), st.integers(0, 100))
def test_stable_rank_is_scale_free_and_bounded(scale, seed):
    values = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = values.sort(descending=True).values
    rank = stable_rank(values)
    assert 1 <= rank <= 9
    assert stable_rank(scale * values) == pytest.approx(rank, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_eigenvalues_are_those_of_the_gram_matrix_without_rounding_error(scale):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(30, 5, dtype=torch.float64, generator=generator)
    right = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    matrix = scale * left @ right  # rank 5
    found = eigenvalues(singular_values(matrix), 30, 12)
    expected = torch.linalg.eigvalsh(matrix.T @ matrix).flip(0)[:5]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_zero_matrix_has_no_eigenvalues():
    assert len(eigenvalues(torch.zeros(4, dtype=torch.float64), 4, 9)) == 0
    assert len(eigenvalues(torch.zeros(0, dtype=torch.float64), 0, 9)) == 0
