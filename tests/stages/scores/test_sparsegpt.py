"""SparseGPT against optimal brain surgery with explicit inverses, and against least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Magnitude, NofM, SparseGPT, Wanda
from tailor.stages.scores.sparsegpt import upper_factor


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def correlated(count, inputs, seed=1):
    """Vectors in rows whose entries depend on each other."""
    return normal(count, inputs, seed=seed) @ normal(inputs, inputs, seed=seed + 1)


def seen(X):
    return Inputs(count=len(X), squares=X.square().sum(dim=0), gram=X.T @ X)


def surgery(W, X, parts, *, damp=0.01, block=128, pattern=None):
    """Column by column: the remaining inputs make up for what goes, by their own inverse.

    Hassibi & Stork (1993): removing w_q changes the others by -w_q / inv(H)_qq inv(H)_:q and
    costs w_q^2 / inv(H)_qq / 2. ``parts`` says how many of each block go.
    """
    W = W.double().numpy().copy()
    H = (X.T @ X).numpy()
    H = H + damp * np.mean(np.diag(H)) * np.eye(len(H))
    n = W.shape[1]
    gone = np.zeros(W.shape, dtype=bool)
    inverse = [np.linalg.inv(H[j:, j:]) for j in range(n)]
    for start in range(0, n, block):
        columns = range(start, min(start + block, n))
        if pattern is None:
            cost = {(i, j): W[i, j] ** 2 / inverse[j][0, 0] for i in range(len(W)) for j in columns}
            for i, j in sorted(cost, key=cost.get)[: parts[start // block]]:
                gone[i, j] = True
        for j in columns:
            if pattern is not None and j % pattern.m == 0:
                for i in range(len(W)):
                    group = range(j, j + pattern.m)
                    cost = {k: W[i, k] ** 2 / inverse[k][0, 0] for k in group}
                    for k in sorted(cost, key=cost.get)[: pattern.m - pattern.n]:
                        gone[i, k] = True
            for i in range(len(W)):
                if gone[i, j]:
                    W[i, j:] -= W[i, j] / inverse[j][0, 0] * inverse[j][:, 0]
                    W[i, j] = 0.0
    return torch.from_numpy(W), torch.from_numpy(~gone)


def assert_same(found, expected):
    W, keep = expected
    assert torch.equal(found.keep, keep)
    torch.testing.assert_close(found.matrix, W, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_surgery_in_the_order_of_columns(seed):
    W, X = normal(4, 8, seed=seed), correlated(40, 8, seed=seed + 10)
    assert_same(SparseGPT().prune(W, 16, inputs=seen(X)), surgery(W, X, [16]))


def test_blocks_lose_equal_shares():
    W, X = normal(4, 24), correlated(60, 24)
    found = SparseGPT(block=10).prune(W, 47, inputs=seen(X))  # 40, 40 and 16 entries
    assert_same(found, surgery(W, X, [20, 19, 8], block=10))


def test_more_columns_than_are_mended_at_a_time():
    W, X = normal(3, 70), correlated(200, 70)
    assert_same(
        SparseGPT(block=50).prune(W, 105, inputs=seen(X)), surgery(W, X, [75, 30], block=50)
    )


@pytest.mark.parametrize("pattern", [NofM(n=2, m=4), NofM(n=1, m=8)])
def test_patterns_are_fitted_to_the_weights_as_they_are_by_then(pattern):
    W, X = normal(4, 24), correlated(60, 24)
    found = SparseGPT(block=10).prune(W, 0, inputs=seen(X), pattern=pattern)
    assert_same(found, surgery(W, X, None, pattern=pattern))


def test_without_a_column_the_others_are_the_least_squares_solution():
    W, X = normal(3, 6), correlated(30, 6)
    W[:, 0] *= 1e-3  # so that the first column goes, and nothing else
    found = SparseGPT(damp=0.0).prune(W, 3, inputs=seen(X))
    assert (~found.keep).nonzero().tolist() == [[0, 0], [1, 0], [2, 0]]
    rest = torch.linalg.lstsq(X[:, 1:], X @ W.T).solution.T
    torch.testing.assert_close(found.matrix[:, 1:], rest, rtol=1e-8, atol=1e-10)


def test_with_equal_inputs_it_is_magnitude():
    W, X = normal(6, 8), 3 * torch.eye(8, dtype=torch.float64)
    by_row = SparseGPT().prune(W, [4] * 6, inputs=seen(X))
    assert torch.equal(by_row.matrix, Magnitude().prune(W, [4] * 6).matrix)
    assert torch.equal(by_row.matrix, Wanda().prune(W, 24, inputs=seen(X)).matrix)
    whole = SparseGPT().prune(W, 24, inputs=seen(X))
    assert torch.equal(whole.matrix, Magnitude().prune(W, 24).matrix)


def test_outputs_change_less_than_with_scores_alone():
    W, X = normal(16, 32), correlated(400, 32)

    def error(score):
        return ((score.prune(W, 256, inputs=seen(X)).matrix - W) @ X.T).norm()

    assert error(SparseGPT()) < error(Wanda())
    assert error(SparseGPT()) < error(Magnitude())


@settings(max_examples=40)
@given(st.data())
def test_numbers_are_exact_and_zeros_stay(data):
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 100))
    W, X = normal(rows, columns, seed=seed), correlated(30, columns)
    W = W.masked_fill(normal(rows, columns, seed=seed + 1) > 1, 0)
    X[:, normal(columns, seed=seed + 2) > 1.5] = 0
    by_row = data.draw(st.booleans())
    counts = st.integers(0, columns if by_row else rows * columns)
    drop = data.draw(st.lists(counts, min_size=rows, max_size=rows) if by_row else counts)
    found = SparseGPT(block=data.draw(st.integers(1, 14))).prune(W, drop, inputs=seen(X))
    assert (found.matrix[~found.keep] == 0).all()
    assert (found.matrix[W == 0] == 0).all()
    gone = (~found.keep).sum(dim=1).tolist() if by_row else int((~found.keep).sum())
    assert gone == drop


def test_zeros_in_late_columns_stay_zero_however_the_blocks_share():
    W, X = normal(4, 12), correlated(40, 12)
    W[:, 6:] = 0
    W[0, 6] = 5
    found = SparseGPT(block=2).prune(W, 32, inputs=seen(X))  # 23 zeros, and 9 more
    assert (found.matrix[W == 0] == 0).all()
    assert int((found.matrix == 0).sum()) == int((~found.keep).sum()) == 32


def test_dead_inputs_go_first_and_mend_nothing():
    W, X = normal(3, 4), correlated(30, 4)
    X[:, 1] = 0
    found = SparseGPT().prune(W, 3, inputs=seen(X))
    assert (~found.keep).nonzero().tolist() == [[0, 1], [1, 1], [2, 1]]
    assert torch.equal(found.matrix[found.keep], W[found.keep])
    smallest = SparseGPT().prune(W, 1, inputs=seen(X))
    assert int(W[:, 1].abs().argmin()) == int((~smallest.keep)[:, 1].nonzero())
    live = [0, 2, 3]
    more = SparseGPT().prune(W, 7, inputs=seen(X))
    assert torch.equal(
        more.matrix[:, live], SparseGPT().prune(W[:, live], 4, inputs=seen(X[:, live])).matrix
    )
    pattern = SparseGPT().prune(W, 0, inputs=seen(X), pattern=NofM(n=2, m=4))
    assert not pattern.keep[:, 1].any()
    assert pattern.keep.sum() == 6


def test_a_layer_that_saw_only_zeros():
    W, X = normal(3, 4), torch.zeros(9, 4, dtype=torch.float64)
    found = SparseGPT().prune(W, 5, inputs=seen(X))
    assert torch.equal(found.matrix, Magnitude().prune(W, 5).matrix)
    pattern = SparseGPT().prune(W, 0, inputs=seen(X), pattern=NofM(n=2, m=4))
    assert torch.equal(pattern.matrix, Magnitude().prune(W, 0, pattern=NofM(n=2, m=4)).matrix)


def test_nothing_to_drop():
    W, X = normal(3, 4), correlated(30, 4)
    found = SparseGPT().prune(W, 0, inputs=seen(X))
    assert torch.equal(found.matrix, W)
    assert found.keep.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_works_in_doubles_and_stores_in_the_type_that_came(dtype):
    W, X = normal(4, 8).to(dtype), correlated(40, 8)
    found = SparseGPT().prune(W, 16, inputs=seen(X))
    exact = SparseGPT().prune(W.double(), 16, inputs=seen(X))
    assert found.matrix.dtype == dtype
    assert torch.equal(found.matrix, exact.matrix.to(dtype))


def test_a_mended_weight_that_half_precision_cannot_hold():
    X = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-3]], dtype=torch.float64)
    W = torch.tensor([[6e4, 6.4e4]]).half()
    with pytest.raises(UsageError, match=r"too large for torch\.float16; raise damp"):
        SparseGPT(damp=1e-9).prune(W, 1, inputs=seen(X))


def test_factor_is_that_of_the_inverse():
    X = correlated(30, 12)
    H = X.T @ X
    U = upper_factor(H, 0.01)
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(U, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(H, X.T @ X)


def test_few_vectors_are_damped_more():
    W, X = normal(4, 8), correlated(2, 8)
    few = SparseGPT(damp=0.01).prune(W, 16, inputs=seen(X))
    sums = seen(X)
    many = Inputs(count=8, squares=sums.squares, gram=sums.gram)
    assert torch.equal(few.matrix, SparseGPT(damp=0.04).prune(W, 16, inputs=many).matrix)


def test_refusals():
    W, X = normal(3, 4), correlated(30, 4)
    sums = seen(X)
    with pytest.raises(UsageError, match="SparseGPT needs the Gram matrix of the layer's inputs"):
        SparseGPT().prune(W, 4)
    with pytest.raises(UsageError, match="SparseGPT needs the Gram matrix of the layer's inputs"):
        SparseGPT().prune(W, 4, inputs=Inputs(count=30, squares=sums.squares))
    with pytest.raises(UsageError, match="has 5 inputs, but the Gram matrix is of 4"):
        SparseGPT().prune(normal(3, 5), 4, inputs=sums)
    with pytest.raises(UsageError, match=r"singular at damp 0\.0; raise damp"):
        SparseGPT(damp=0.0).prune(W, 4, inputs=seen(X[:1]))
    with pytest.raises(UsageError, match="2:8 needs a multiple of 8 inputs, but the matrix has 4"):
        SparseGPT().prune(W, 0, inputs=sums, pattern=NofM(n=2, m=8))
    for wrong in ({"damp": -1.0}, {"damp": float("inf")}, {"damp": float("nan")}, {"block": 0}):
        with pytest.raises(UsageError, match="needs damp >= 0 and block >= 1"):
            SparseGPT(**wrong)
