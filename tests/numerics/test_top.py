"""The followed top pair against a full decomposition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.numerics.spectrum.top import VECTORS, follow, start_block


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
def test_iterated_it_is_the_top_of_the_decomposition(p, q, seed):
    W = torch.randn(p, q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    top, block = follow(W, start_block(W, "W"), 400)
    assert float(top.value) == pytest.approx(float(S[0]), rel=1e-6)
    assert float(top.left @ W @ top.right) == pytest.approx(float(top.value), rel=1e-9)
    assert float(top.left.norm()) == pytest.approx(1)
    assert float(top.right.norm()) == pytest.approx(1)
    assert block.shape == (min(p, q), min(VECTORS, p, q))
    if len(S) == 1 or S[1] < 0.97 * S[0]:
        assert abs(float(top.left @ U[:, 0])) == pytest.approx(1, abs=1e-5)
        assert abs(float(top.right @ Vt[0])) == pytest.approx(1, abs=1e-5)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 1000), st.integers(1, 5))
def test_it_never_overestimates(p, q, seed, iterations):
    W = torch.randn(p, q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    top, _ = follow(W, start_block(W, "W"), iterations)
    assert float(top.value) <= float(torch.linalg.svdvals(W)[0]) * (1 + 1e-12)


def test_the_start_depends_on_the_name_alone():
    W = torch.randn(20, 30)
    first = start_block(W, "a")
    torch.manual_seed(7)
    assert torch.equal(first, start_block(2 * W, "a"))
    assert not torch.equal(first, start_block(W, "b"))
    assert first.shape == (20, 4)
    torch.testing.assert_close(first.T @ first, torch.eye(4))


@pytest.mark.parametrize("W", [torch.zeros(6, 9), torch.ones(6, 1), torch.ones(1, 9), torch.eye(5)])
def test_degenerate_matrices_stay_finite(W):
    top, block = follow(W, start_block(W, "W"), 20)
    assert float(top.value) == pytest.approx(float(torch.linalg.matrix_norm(W, 2)), rel=1e-5)
    assert torch.isfinite(block).all()
