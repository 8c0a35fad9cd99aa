"""Matrices of low rank: the optimum, against numpy's decomposition and against competitors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import NonFinite, UsageError
from tailor.numerics.truncation import Directions, truncate


def heavy(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return matrix * torch.rand(rows, 1, generator=generator, dtype=torch.float64) ** -1


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 12),
    st.sampled_from([torch.float64, torch.float32]),
    st.integers(0, 5),
)
def test_the_error_is_that_of_eckart_and_young(rows, columns, rank, dtype, seed):
    matrix = heavy(rows, columns, seed).to(dtype)
    rank = min(rank, rows, columns)
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    found = truncate(matrix, rank)
    expected = np.sqrt((values[rank:] ** 2).sum() / (values**2).sum())
    assert found.error == pytest.approx(expected, abs=1e-5)
    difference = np.linalg.norm((matrix - found.matrix).double().numpy())
    assert difference / np.linalg.norm(values) == pytest.approx(expected, abs=1e-5)
    assert found.matrix.dtype == dtype
    assert np.linalg.matrix_rank(found.matrix.double().numpy(), tol=1e-4 * values[0]) <= rank
    assert found.cost == rank * (rows + columns)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_a_median_is_subtracted_and_added_back(shape):
    """As Barsbey et al. do it, with numpy."""
    matrix = heavy(*shape).float() + 3
    kept = 20 - int(20 * 0.7)
    middle = np.median(matrix.numpy(), axis=0)
    left, values, right = np.linalg.svd(matrix.numpy() - middle, full_matrices=False)
    expected = (left[:, :kept] * values[:kept]) @ right[:kept] + middle
    found = truncate(matrix, kept, center="median")
    np.testing.assert_allclose(found.matrix.numpy(), expected, atol=1e-3)
    assert found.error != pytest.approx(truncate(matrix, kept).error, rel=1e-3)
    assert found.cost == kept * 50


def test_all_of_the_rank_is_the_matrix_and_none_is_nothing():
    matrix = heavy(6, 9)
    torch.testing.assert_close(truncate(matrix, 6).matrix, matrix)
    assert truncate(matrix, 6).error < 1e-7
    assert not truncate(matrix, 0).matrix.any()
    assert truncate(matrix, 0).error == pytest.approx(1)
    assert truncate(torch.zeros(3, 4), 1).error == 0


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_does_not_matter(scale):
    matrix = heavy(8, 5).float()
    small = truncate((matrix * scale), 2)
    assert small.error == pytest.approx(truncate(matrix, 2).error, rel=1e-4)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_outputs_are_approximated_best(shape):
    """The loss is the dropped part of the singular values of W X, which no other matrix beats."""
    rows, columns = shape
    W = heavy(rows, columns)
    X = heavy(columns, 40, seed=1)
    values = np.linalg.svd((W @ X).numpy(), compute_uv=False)
    U = Directions.of(W, X @ X.T).leading(2)
    low = U @ (U.T @ W)
    loss = float(torch.linalg.matrix_norm((W - low) @ X))
    assert loss == pytest.approx(np.sqrt((values[2:] ** 2).sum()), rel=1e-6)
    plain = float(torch.linalg.matrix_norm((W - truncate(W, 2).matrix) @ X))
    assert loss < 0.99 * plain
    generator = torch.Generator().manual_seed(2)
    for step in (1e-3, 0.1, 1.0):
        for _ in range(20):
            moved = U + step * torch.randn(U.shape, generator=generator, dtype=torch.float64)
            best = moved @ torch.linalg.lstsq(moved, W).solution
            assert float(torch.linalg.matrix_norm((W - best) @ X)) >= loss * (1 - 1e-9)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_it_is_the_closed_form_with_a_root_of_the_gram_matrix(shape):
    """U_r S_r V_r' L^-1 with X X' = L L' by Cholesky, and the decomposition of W L."""
    W = heavy(*shape)
    X = heavy(shape[1], 40, seed=1)
    L = torch.linalg.cholesky(X @ X.T)
    left, values, right = torch.linalg.svd(W @ L, full_matrices=False)
    expected = (left[:, :3] * values[:3]) @ right[:3] @ torch.linalg.inv(L)
    found = Directions.of(W, X @ X.T)
    U = found.leading(3)
    torch.testing.assert_close(U @ (U.T @ W), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.energies[:5], values**2, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.dropped()[3], (values[3:] ** 2).sum(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_fewer_inputs_than_columns_are_enough(shape):
    """Where Cholesky fails; then so few directions reproduce all outputs."""
    W, X = heavy(*shape), heavy(shape[1], 2, seed=1)
    U = Directions.of(W, X @ X.T).leading(2)
    torch.testing.assert_close(U @ (U.T @ W) @ X, W @ X, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_truncated_is_refused():
    matrix = heavy(4, 3)
    with pytest.raises(UsageError, match="side 3 has no rank 4"):
        truncate(matrix, 4)
    with pytest.raises(UsageError, match="no rank -1"):
        truncate(matrix, -1)
    with pytest.raises(UsageError, match="no entries"):
        truncate(torch.zeros(0, 3), 0)
    matrix[1, 1] = torch.nan
    with pytest.raises(NonFinite, match="NaN or infinite"):
        truncate(matrix, 1)
