"""Scores against their definitions, written with loops; exact numbers whatever is tied."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Magnitude, NofM, Score, Scored, Trimmed, Wanda, smallest_dropped
from tailor.stages.scores.smallest import shares, zeroed
from tailor.stages.scores.wanda import check


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def seen(X):
    """The sums over vectors that stand in rows."""
    X = X.double()
    return Inputs(count=len(X), squares=X.square().sum(dim=0), gram=X.T @ X)


# ---- exactly so many ----------------------------------------------------------------------


def first_smallest(values, drop):
    """Places of the smallest values, of equal ones the first."""
    return {i for i, _ in sorted(enumerate(values), key=lambda pair: pair[1])[:drop]}


@st.composite
def tied(draw):
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    numbers = st.lists(st.integers(0, 3), min_size=rows * columns, max_size=rows * columns)
    return torch.tensor(draw(numbers), dtype=torch.float32).reshape(rows, columns)


@given(tied(), st.data())
def test_exactly_so_many_of_the_smallest_go_and_of_equal_ones_the_first(scores, data):
    drop = data.draw(st.integers(0, scores.numel()))
    gone = (~smallest_dropped(scores, drop)).flatten().nonzero().flatten().tolist()
    assert set(gone) == first_smallest(scores.flatten().tolist(), drop)


@given(tied(), st.data())
def test_so_it_is_in_each_row(scores, data):
    rows, columns = scores.shape
    drop = data.draw(st.lists(st.integers(0, columns), min_size=rows, max_size=rows))
    for row, keep, n in zip(scores, smallest_dropped(scores, drop), drop, strict=True):
        gone = (~keep).nonzero().flatten().tolist()
        assert set(gone) == first_smallest(row.tolist(), n)


@pytest.mark.parametrize("drop", [-1, 7])
def test_a_number_that_is_not_there(drop):
    with pytest.raises(UsageError, match=f"{drop} of 6 entries cannot be dropped; give 0 to 6"):
        Magnitude().prune(normal(2, 3), drop)


def test_numbers_by_row_have_to_be_as_many_as_rows():
    with pytest.raises(UsageError, match="a matrix of 2 rows got 3 numbers"):
        Magnitude().prune(normal(2, 3), [1, 1, 1])
    with pytest.raises(UsageError, match="4 of 3 entries cannot be dropped"):
        Magnitude().prune(normal(2, 3), [1, 4])


@given(st.integers(0, 30), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_shares_are_by_largest_remainder(total, sizes):
    whole = sum(sizes)
    total = min(total, whole)
    parts = shares(total, torch.tensor(sizes)).tolist()
    exact = [Fraction(total * size, max(whole, 1)) for size in sizes]
    floors = [math.floor(one) for one in exact]
    order = sorted(range(len(sizes)), key=lambda i: floors[i] - exact[i])
    for i in order[: total - sum(floors)]:
        floors[i] += 1
    assert parts == floors
    assert sum(parts) == total
    assert all(part <= size for part, size in zip(parts, sizes, strict=True))


def test_shares_of_several_totals():
    found = shares(torch.tensor([3, 4]), torch.tensor([[2, 2, 2], [0, 5, 1]]))
    assert found.tolist() == [[1, 1, 1], [0, 3, 1]]


# ---- magnitude ----------------------------------------------------------------------------

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
def test_magnitude_leaves_survivors_bit_for_bit(dtype):
    W = normal(8, 6, dtype=dtype)
    before = W.clone()
    found = Magnitude().prune(W, 20)
    assert found.matrix.dtype == dtype
    assert torch.equal(W, before)
    assert torch.equal(found.matrix[found.keep], W[found.keep])
    assert int((~found.keep).sum()) == int((found.matrix == 0).sum()) == 20
    assert not torch.signbit(found.matrix[~found.keep]).any()
    assert W[found.keep].abs().min() >= W[~found.keep].abs().max()


def test_magnitude_in_eight_bits():
    W = normal(4, 6).to(torch.float8_e4m3fn)
    found = Magnitude().prune(W, 10)
    assert found.matrix.dtype == W.dtype
    assert int((found.matrix.float() == 0).sum()) == 10
    assert torch.equal(found.matrix.float()[found.keep], W.float()[found.keep])


def test_magnitude_sees_doubles_as_they_are():
    W = torch.tensor([[1 + 1e-12, 1.0, 2.0]], dtype=torch.float64)
    assert Magnitude().prune(W, 1).keep.tolist() == [[True, False, True]]


def test_constant_zero_and_turned_matrices():
    assert Magnitude().prune(torch.ones(2, 3), 4).keep.sum() == 2
    assert Magnitude().prune(torch.zeros(2, 3), 4).keep.sum() == 2
    W = normal(3, 5)
    assert torch.equal(
        Magnitude().prune(W.T, 7).matrix, Magnitude().prune(W.T.contiguous(), 7).matrix
    )


def test_gradients_do_not_follow():
    W = normal(3, 3).requires_grad_()
    assert not Magnitude().prune(W, 4).matrix.requires_grad


# ---- patterns -----------------------------------------------------------------------------


@given(tied(), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (2, 8)]))
def test_of_each_group_so_many_stay(scores, pattern):
    n, m = pattern
    W = scores.repeat(1, m)
    found = Magnitude().prune(W, 0, pattern=NofM(n=n, m=m))
    groups = W.reshape(-1, m)
    for values, keep in zip(groups.tolist(), found.keep.reshape(-1, m).tolist(), strict=True):
        assert {i for i in range(m) if not keep[i]} == first_smallest(values, m - n)


def test_pattern_text_and_sparsity():
    assert str(NofM(n=2, m=4)) == "2:4"
    assert NofM(n=1, m=4).sparsity == 0.75


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_patterns_that_are_none(n, m):
    with pytest.raises(UsageError, match=f"0 < n < m, but got n {n} and m {m}"):
        NofM(n=n, m=m)


def test_pattern_that_does_not_fit():
    with pytest.raises(UsageError, match="2:4 needs a multiple of 4 inputs, but the matrix has 6"):
        Magnitude().prune(normal(2, 6), 0, pattern=NofM())


# ---- Wanda --------------------------------------------------------------------------------


def wanda_keep(W, X, drops):
    """Sun et al. (2024), equation 1, with loops."""
    keep = torch.ones(W.shape, dtype=torch.bool)
    for i in range(W.shape[0]):
        scores = []
        for j in range(W.shape[1]):
            norm = math.sqrt(sum(float(x) ** 2 for x in X[:, j]))
            scores.append(abs(float(W[i, j])) * norm)
        keep[i, list(first_smallest(scores, drops[i]))] = False
    return keep


def test_wanda_by_definition():
    W, X = normal(5, 8), normal(20, 8, seed=1) * torch.linspace(0.1, 3, 8)
    found = Wanda().prune(W, 18, inputs=seen(X))
    assert torch.equal(found.keep, wanda_keep(W, X, [4, 4, 4, 3, 3]))
    assert torch.equal(found.matrix, W * found.keep)
    rows = Wanda().prune(W, [1, 2, 3, 4, 8], inputs=seen(X))
    assert torch.equal(rows.keep, wanda_keep(W, X, [1, 2, 3, 4, 8]))


def test_wanda_over_the_layer():
    W, X = normal(5, 8), normal(20, 8, seed=1) * torch.linspace(0.1, 3, 8)
    keep = Wanda(compared="layer").prune(W, 18, inputs=seen(X)).keep
    every = (W.double().abs() * X.double().norm(dim=0)).flatten()
    gone = (~keep).flatten().nonzero().flatten().tolist()
    assert set(gone) == first_smallest(every.tolist(), 18)


def test_wanda_with_equal_inputs_is_magnitude_by_row():
    W = normal(6, 8)
    found = Wanda().prune(W, 24, inputs=seen(3 * torch.eye(8)))
    assert torch.equal(found.keep, Magnitude().prune(W, [4] * 6).keep)


def test_wanda_in_groups():
    W, X = normal(4, 8), normal(20, 8, seed=1) * torch.linspace(0.1, 3, 8)
    keep = Wanda().prune(W, 0, inputs=seen(X), pattern=NofM(n=1, m=2)).keep
    scores = (W.double().abs() * X.double().norm(dim=0)).reshape(-1, 2)
    assert torch.equal(keep.reshape(-1, 2)[:, 0], scores[:, 0] > scores[:, 1])


def test_wanda_drops_zeros_before_weights_of_dead_inputs():
    X = torch.tensor([[0.0, 1.0, 1.0]])
    W = torch.tensor([[5.0, 0.0, 1.0]])
    assert Wanda().prune(W, 1, inputs=seen(X)).keep.tolist() == [[True, False, True]]
    assert Wanda().prune(W, 2, inputs=seen(X)).keep.tolist() == [[False, False, True]]


def test_wanda_of_huge_inputs_in_half_precision():
    W, X = normal(3, 4, dtype=torch.float16), normal(9, 4, seed=1).double() * 1e60
    found = Wanda().prune(W, 6, inputs=seen(X))
    assert torch.equal(found.keep, wanda_keep(W, X, [2, 2, 2]))


def test_wanda_without_inputs_or_with_others():
    with pytest.raises(UsageError, match="Wanda needs the norms of the layer's inputs"):
        Wanda().prune(normal(2, 3), 1)
    with pytest.raises(UsageError, match="has 3 inputs, but those collected are 4"):
        Wanda().prune(normal(2, 3), 1, inputs=seen(normal(5, 4)))
    with pytest.raises(UsageError, match='"row" or "layer", but is \'column\''):
        check("column")


# ---- one's own ----------------------------------------------------------------------------


def test_a_function_is_a_score():
    W = normal(3, 4)
    found = Scored(lambda matrix: -matrix.abs()).prune(W, 5)
    assert W[~found.keep].abs().min() >= W[found.keep].abs().max()
    assert int((~found.keep).sum()) == 5


def test_a_function_gets_single_precision_and_cannot_change_the_weights():
    W = normal(3, 4, dtype=torch.bfloat16)
    before = W.clone()

    def score(matrix):
        assert matrix.dtype == torch.float32
        return matrix.abs_()

    assert torch.equal(Scored(score).prune(W, 5).keep, Magnitude().prune(before, 5).keep)
    double = normal(3, 4, dtype=torch.float64)
    kept = double.clone()
    Scored(lambda matrix: matrix.abs_()).prune(double, 5)
    assert torch.equal(double, kept)


def test_functions_that_give_no_scores():
    with pytest.raises(UsageError, match=r"each of \(3, 4\) entries, but gave \(3,\)"):
        Scored(lambda matrix: matrix.sum(dim=1)).prune(normal(3, 4), 1)
    with pytest.raises(UsageError, match="but gave float"):
        Scored(lambda _: 1.0).prune(normal(3, 4), 1)
    with pytest.raises(UsageError, match="some are NaN or infinite"):
        Scored(lambda matrix: matrix / 0).prune(normal(3, 4), 1)


def test_a_subclass_is_a_score():
    class Last(Score):
        def prune(self, matrix, drop, *, inputs=None, pattern=None):
            keep = torch.arange(matrix.numel()).reshape(matrix.shape) < matrix.numel() - drop
            return Trimmed(matrix=zeroed(matrix, keep), keep=keep)

    assert Last().prune(normal(2, 3), 2).keep.tolist() == [[True] * 3, [True, False, False]]


@settings(max_examples=20)
@given(st.integers(0, 24), st.integers(0, 20))
def test_what_is_zero_already_counts(drop, seed):
    W = normal(4, 6, seed=seed)
    W[0] = 0
    for score in (Magnitude(), Scored(lambda matrix: -matrix.abs()), Wanda(compared="layer")):
        found = score.prune(W, drop, inputs=seen(normal(9, 6, seed=1)))
        assert int((found.matrix == 0).sum()) == max(6, drop)
        assert int((~found.keep).sum()) == drop
