"""Pruning in rounds: schedules, rewinding, and a loop around the user's training."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from tailor.errors import UsageError
from tailor.stages.prune import cubic, geometric, hold, iterate, prune, rewind
from tailor.stages.scores import Wanda
from tests.stages.prune.networks import mlp, normal

X, Y = normal(16, 8, seed=3), normal(16, 4, seed=4)


@given(st.floats(0, 0.99), st.integers(1, 20), st.floats(0, 1))
def test_cubic(last, rounds, part):
    first = last * part
    path = cubic(last, rounds, first=first)
    for t, sparsity in enumerate(path, start=1):
        expected = last + (first - last) * (1 - t / rounds) ** 3
        assert sparsity == pytest.approx(expected)
    assert path[-1] == last
    assert list(path) == sorted(path)


@given(st.floats(0, 0.99), st.integers(1, 20))
def test_geometric_rounds_keep_the_same_share(last, rounds):
    path = geometric(last, rounds)
    assert path[-1] == last
    left = [1.0, *(1 - sparsity for sparsity in path)]
    for before, after in itertools.pairwise(left):
        assert after / before == pytest.approx((1 - last) ** (1 / rounds))


def test_known_values():
    assert cubic(0.8, 2, first=0.0) == pytest.approx((0.7, 0.8))
    assert geometric(0.99, 2) == pytest.approx((0.9, 0.99))


@pytest.mark.parametrize("call", [lambda: cubic(1.0, 3), lambda: cubic(0.5, 3, first=0.6)])
def test_refused_schedules(call):
    with pytest.raises(UsageError, match="rounds need 0 <= first <= sparsity < 1"):
        call()
    for wrong in (lambda: geometric(0.5, 0), lambda: geometric(math.nan, 2)):
        with pytest.raises(UsageError, match="at least one of them"):
            wrong()


# ---- rewinding ----------------------------------------------------------------------------


def test_survivors_go_back_and_zeros_stay():
    initial, trained = mlp().state_dict(), mlp()
    for p in trained.parameters():
        p.data += 1
    found = prune(trained, 0.5)
    model = rewind(found.model, initial, found.masks)
    for name, value in model.state_dict().items():
        keep = found.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, initial[name] * keep)
    assert torch.equal(found.model[0].bias, trained[0].bias)


def test_a_state_of_another_network():
    found = prune(mlp(), 0.5)
    with pytest.raises(UsageError, match=r"does not fit the model \(.*\); give the state dict"):
        rewind(found.model, {"0.weight": torch.zeros(12, 8)}, found.masks)
    with pytest.raises(UsageError, match="does not fit the model"):
        rewind(found.model, nn.Linear(3, 3).state_dict(), found.masks)


# ---- the loop -----------------------------------------------------------------------------


def training(held=True, seen=None):
    def retrain(model, masks):
        if seen is not None:
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        handle = hold(model, optimizer, masks) if held else None
        for _ in range(5):
            optimizer.zero_grad()
            (model(X) - Y).square().mean().backward()
            optimizer.step()
        if handle:
            handle.remove()

    return retrain


def test_rounds_go_on_from_each_other():
    model, seen = mlp(), []
    before = model[0].weight.detach().clone()
    results = list(iterate(model, [0.25, 0.5, 0.75], training(seen=seen)))
    assert torch.equal(model[0].weight, before)
    assert [found.sparsity for found in results] == [0.25, 0.5, 0.75]
    for earlier, later, start in zip(results, results[1:], seen[1:], strict=False):
        kept = later.masks["0.weight"]
        assert not (kept & ~earlier.masks["0.weight"]).any()
        assert torch.equal(start["0.weight"][kept], earlier.model[0].weight[kept])


def test_rounds_that_rewind():
    initial, seen = mlp().state_dict(), []
    trained = mlp()
    training()(trained, prune(trained, 0).masks)
    results = list(iterate(trained, geometric(0.75, 2), training(seen=seen), rewind_to=initial))
    for found, start in zip(results, seen, strict=True):
        mask = found.masks["0.weight"]
        assert torch.equal(start["0.weight"], initial["0.weight"] * mask)
        assert torch.equal(start["0.bias"], initial["0.bias"])
        assert torch.equal(found.model[0].weight != 0, mask)


def test_each_round_comes_before_the_next_is_trained():
    seen = []
    rounds = iterate(mlp(), [0.5, 0.75], training(seen=seen))
    next(rounds)
    assert len(seen) == 1


def test_scores_see_the_data_anew():
    results = list(iterate(mlp(), [0.25, 0.5], training(), score=Wanda(), data=[X]))
    assert [row.known for found in results for row in found.report] == ["norms"] * 4


def test_zeros_that_training_has_moved():
    rounds = iterate(mlp(), [0.5], training(held=False))
    with pytest.warns(UserWarning, match=r"training has moved \d+ weights that were zero"):
        found = next(rounds)
    assert found.masks.revived(found.model) == 0


@pytest.mark.parametrize("path", [[], [0.5, 0.25], [0.5, 1.0], [-0.1], [float("nan")]])
def test_refused_paths(path):
    with pytest.raises(UsageError, match=r"sparsities have to rise within \[0, 1\)"):
        iterate(mlp(), path, training())
