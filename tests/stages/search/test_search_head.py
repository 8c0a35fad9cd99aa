"""The search for a head: counts are exact, rounding follows its formula, nothing gets worse."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tailor.errors import UsageError
from tailor.numerics.bounds import occam
from tailor.numerics.coding import Grid, code_length
from tailor.stages.search import Board, Climb, HeadProblem, Move, Renewal, Rounding, Smooth
from tailor.stages.search.moves import GAIN
from tailor.stages.search.rounding import nearest
from tailor.tasks import Data, zero_one


def length(levels: np.ndarray) -> float:
    return sum(code_length(Grid(levels=levels, step=1.0)).values())


def problem(n: int = 120, d: int = 6, k: int = 3, seed: int = 0, top: int = 1) -> HeadProblem:
    """Gaussian classes; the last feature is constant."""
    generator = np.random.default_rng(seed)
    y = generator.integers(k, size=n)
    x = generator.normal(size=(n, d)) + 1.6 * generator.normal(size=(k, d))[y]
    x[:, -1] = 1.0
    return HeadProblem(
        features=torch.from_numpy(x),
        labels=torch.from_numpy(y),
        classes=k,
        bits=length,
        top=top,
        paid=3.0,
    )


def recount(given: HeadProblem, weights: torch.Tensor) -> tuple[int, float]:
    layer = torch.nn.Linear(given.shape[1], given.classes, bias=False).double()
    layer.load_state_dict({"weight": weights})
    errors = int(zero_one(layer, Data(x=given.features, y=given.labels)).sum())
    return errors, length(weights.numpy().astype(np.int64)) + given.paid


def assert_consistent(board: Board) -> None:
    errors, bits = recount(board.problem, board.weights)
    assert (board.errors, board.bits) == (errors, pytest.approx(bits, abs=1e-9))
    assert board.bound == occam(errors, board.problem.n, board.bits, 0.05).binomial
    torch.testing.assert_close(board.scores, board.problem.features @ board.weights.T)


@pytest.mark.parametrize("columns", [range(6), (4, 1)])
@pytest.mark.parametrize("size", [1, 2])
def test_errors_after_every_change_are_those_of_the_changed_network(
    size: int, columns: Sequence[int]
) -> None:
    given = problem(top=3)
    generator = np.random.default_rng(5)
    weights = torch.from_numpy(generator.integers(-1, 2, size=given.shape)).double()
    outlook = Board(given, weights).outlook([2, 0])
    tables = outlook.errors(float(size), torch.tensor(columns))
    for by, table in zip((size, -size), tables, strict=True):
        for (i, row), (j, column) in itertools.product(enumerate((2, 0)), enumerate(columns)):
            changed = weights.clone()
            changed[row, column] += by
            assert int(table[i, j]) == recount(given, changed)[0]


def test_ties_are_errors_in_the_table_too() -> None:
    ones = torch.ones(4, 1, dtype=torch.float64)
    given = HeadProblem(features=ones, labels=torch.tensor([0, 1, 1, 1]), classes=2, bits=length)
    board = Board(given, torch.zeros(2, 1))
    assert board.errors == 4
    grown, shrunk = board.outlook([0, 1]).errors(1.0, torch.tensor([0]))
    assert grown[:, 0].tolist() == [3, 1]
    assert shrunk[:, 0].tolist() == [1, 3]


def test_a_change_is_kept_only_if_the_bound_falls() -> None:
    board = Board(problem(), torch.eye(3, 6, dtype=torch.float64))
    kept = 0
    for row, column, by in itertools.product(range(3), range(6), (-1.0, 1.0)):
        before = (board.bound, board.errors, board.bits, board.weights.clone())
        if board.keep(Move(row, column, by)):
            kept += 1
            assert board.bound < before[0]
            allowed = board.problem.allowed(board.errors, before[0])
            assert board.bits < allowed - GAIN
        else:
            assert (board.bound, board.errors, board.bits) == before[:3]
            assert torch.equal(board.weights, before[3])
        assert_consistent(board)
    assert 0 < kept < 36


@pytest.mark.parametrize("seed", [0, 1])
def test_climbing_never_raises_the_bound_and_keeps_exact_accounts(seed: int) -> None:
    given = problem(seed=seed)
    board = Board(given, Rounding().round(given, seed))
    before = board.bound
    Climb(sweeps=4, pairs=4).climb(board, np.random.default_rng(seed))
    assert board.bound <= before
    assert_consistent(board)
    single = Board(given, board.weights)
    moves = itertools.product(range(3), range(6), (-2.0, -1.0, 1.0, 2.0))
    usable = [Move(*m) for m in moves if abs(float(board.weights[m[0], m[1]]) + m[2]) <= 1]
    assert not any(single.keep(move) for move in usable)  # an optimum for single changes


def test_renewal_never_loses_and_is_deterministic() -> None:
    given = problem(n=90, seed=4)
    board = Board(given, torch.zeros(given.shape))
    results = [Renewal(climb=Climb(sweeps=2, pairs=2)).improve(board, seed=7) for _ in range(2)]
    assert torch.equal(results[0].weights, results[1].weights)
    assert results[0].bound <= board.bound
    assert_consistent(results[0])


def test_an_exchangeable_code_is_what_is_minimised() -> None:
    """Under a code that charges for one feature, that feature is left alone."""
    given = problem()
    dear = HeadProblem(
        features=given.features,
        labels=given.labels,
        classes=3,
        bits=lambda levels: length(levels) + 60.0 * float((levels[:, 3] != 0).sum()),
    )
    board = Board(dear, Rounding().round(dear, 0))
    Climb(sweeps=4, pairs=4).climb(board, np.random.default_rng(0))
    assert not bool(board.weights[:, 3].any())
    plain = Board(given, Rounding().round(given, 0))
    Climb(sweeps=4, pairs=4).climb(plain, np.random.default_rng(0))
    assert bool(plain.weights[:, 3].any())


def all_heads(given: HeadProblem) -> float:
    """Smallest bound of all heads of weights -1, 0, 1; signs cost one bit each."""
    size = math.prod(given.shape)
    heads = np.array(list(itertools.product((-1, 0, 1), repeat=size))).reshape(-1, *given.shape)
    scores = np.einsum("nd,hkd->hnk", given.features.numpy(), heads)
    own = np.take_along_axis(scores, given.labels.numpy()[None, :, None], axis=2)
    wrong = (scores >= own - 1e-9).sum(axis=2) > 1  # another class reaches it
    patterns, which = np.unique((heads != 0).reshape(-1, size), axis=0, return_inverse=True)
    bits = [given.length(pattern.reshape(given.shape).astype(np.int64)) for pattern in patterns]
    pairs = set(zip(wrong.sum(axis=1).tolist(), np.array(bits)[which].tolist(), strict=True))
    return min(given.bound(errors, length) for errors, length in pairs)


@pytest.mark.parametrize("seed", range(6))
def test_a_tiny_head_comes_near_the_best_of_all_by_brute_force(seed: int) -> None:
    given = problem(n=200, d=3, k=3, seed=seed)
    best = all_heads(given)
    board = Board(given, Rounding().round(given, 0))
    Climb(sweeps=4, pairs=4).climb(board, np.random.default_rng(0))
    for renewal in range(4):
        board = Renewal(share=1.0).improve(board, renewal)
    assert best - 1e-12 <= board.bound <= 1.05 * best
    if seed in (0, 2):  # found in earlier runs; the others stop in a local optimum
        assert board.bound == pytest.approx(best, abs=1e-12)


def test_rounding_at_no_rate_on_a_fine_grid_gives_the_smooth_solution() -> None:
    given = problem(n=200, d=4, top=10_000)
    smooth = Smooth(scale=0.01, width=300.0, steps=200)
    found = Rounding(smooth=smooth, rate=0.0, every=2).round(given, 0)
    fitted = smooth.fit(given.features, given.labels, 3)
    assert fitted.abs().max() > 50
    assert (found - fitted.T).abs().max() < 0.05 * fitted.abs().max()
    losses = [
        float(smooth.loss(given.features @ w, given.labels, w)) for w in (found.T.clone(), fitted)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_higher_rate_leaves_fewer_weights() -> None:
    given = problem()
    smooth = Smooth(scale=1.5)
    found = [Rounding(smooth=smooth, rate=r).round(given, 0) for r in (0.0, 1.0, 30.0)]
    counts = [int((weights != 0).sum()) for weights in found]
    assert counts[0] > counts[2]
    assert counts[0] >= counts[1] >= counts[2]


def test_some_features_are_rounded_given_the_rest() -> None:
    given = problem()
    start = Rounding().round(given, 0)
    found = Rounding(jitter=1.0).round(given, 1, start=start, free=torch.tensor([1, 4]))
    held = [0, 2, 3, 5]
    assert torch.equal(found[:, held], start[:, held])


def test_the_hessian_and_the_gradient_are_those_of_autograd() -> None:
    given, smooth = problem(n=40, d=3), Smooth(scale=0.8, width=0.7, temperature=1.4)
    weights = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        w = flat.reshape(3, 3)
        return smooth.loss(given.features @ w, given.labels, w)

    odds = torch.softmax(0.8 * given.features @ weights, dim=1)
    slope = torch.autograd.functional.jacobian(loss, weights.flatten())
    found = smooth.gradient(given.features, odds, given.labels, weights)
    torch.testing.assert_close(found.flatten(), slope)
    bend = torch.autograd.functional.hessian(loss, weights.flatten())
    torch.testing.assert_close(smooth.hessian(given.features, odds), bend, rtol=2e-3, atol=2e-3)


def test_the_nearest_whole_numbers_are_those_of_brute_force() -> None:
    generator = np.random.default_rng(2)
    root = generator.normal(size=(3, 3))
    bend = torch.from_numpy(root @ root.T + 3 * np.eye(3))
    for middle in torch.from_numpy(generator.normal(size=(20, 3))):
        q = nearest(bend, middle, 0.2, 1.0, 1)

        def cost(values: torch.Tensor, middle: torch.Tensor = middle) -> float:
            error = values - middle
            zeros = int((values == 0).sum())
            return float(error @ bend @ error / 2) + 0.2 * zeros + 1.0 * (3 - zeros)

        every = [torch.tensor(v).double() for v in itertools.product((-1, 0, 1), repeat=3)]
        assert cost(q) == pytest.approx(min(map(cost, every)))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="float64"):
        HeadProblem(features=torch.zeros(2, 1), labels=torch.tensor([0, 1]), classes=2, bits=length)
    with pytest.raises(UsageError, match="a largest weight of 1"):
        problem(top=0)
