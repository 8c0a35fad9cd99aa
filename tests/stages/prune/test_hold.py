"""Zeros that last: whatever optimizer, penalties and noise move the weights."""

import io

import pytest
import torch
from torch import nn, optim

from tailor.errors import UsageError
from tailor.stages.noise import StableNoise
from tailor.stages.prune import Masks, hold, prune
from tailor.stages.regularize import L2, Regularizer, SpectralNorm
from tests.stages.prune.networks import Tied, mlp, normal

X, Y = normal(16, 8, seed=3), normal(16, 4, seed=4)

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw each": lambda p: optim.AdamW(p, lr=0.01, foreach=False),
    "adamw foreach": lambda p: optim.AdamW(p, lr=0.01, foreach=True),
    "adamw fused": lambda p: optim.AdamW(p, lr=0.01, fused=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def train(model, optimizer, steps=100):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(X) - Y).square().mean().backward()
        optimizer.step()


def zeros(model):
    return [int((p == 0).sum()) for p in model.parameters() if p.ndim > 1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_hundred_steps_keep_every_zero_and_move_the_rest(name):
    found = prune(mlp(), 0.75)
    before = [p.detach().clone() for p in found.model.parameters()]
    optimizer = OPTIMIZERS[name](found.model.parameters())
    train(found.model, optimizer, steps=1)  # momentum from before zeros are held
    found.hold(optimizer)
    train(found.model, optimizer)
    assert zeros(found.model) == [72, 36]
    assert torch.equal(found.model[0].weight != 0, found.masks["0.weight"])
    assert torch.equal(found.model[2].weight != 0, found.masks["2.weight"])
    assert not any(torch.equal(p, b) for p, b in zip(found.model.parameters(), before, strict=True))


@pytest.mark.parametrize("first", [True, False])
def test_penalties_and_noise_do_not_revive_zeros(first):
    found = prune(mlp(), 0.75)
    model = found.model
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def others():
        StableNoise(alpha=1.7, scale=1e-3, targets="all").attach(model, optimizer)
        Regularizer(model, [SpectralNorm(0.1), L2(0.01)]).attach(optimizer)

    if first:
        others()
    found.hold(optimizer)
    if not first:
        others()
    train(model, optimizer)
    assert zeros(model) == [72, 36]


def test_without_holding_they_are_gone():
    found = prune(mlp(), 0.75)
    train(found.model, optim.SGD(found.model.parameters(), lr=0.05), steps=1)
    assert sum(zeros(found.model)) < 20


def test_leaving_ends_it_also_on_exceptions():
    found = prune(mlp(), 0.75)
    optimizer = optim.SGD(found.model.parameters(), lr=0.05)

    def hooks():
        return len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)

    def fails():
        with found.hold(optimizer):
            train(found.model, optimizer, steps=2)
            assert hooks() == (1, 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert hooks() == (0, 0)
    train(found.model, optimizer, steps=1)
    assert sum(zeros(found.model)) < 20


def test_states_are_as_they_were_and_masks_work_after_loading():
    found = prune(mlp(), 0.75)
    optimizer = optim.Adam(found.model.parameters())
    keys = set(optimizer.state_dict())
    found.hold(optimizer)
    train(found.model, optimizer, steps=2)
    assert set(optimizer.state_dict()) == keys
    assert set(found.model.state_dict()) == set(mlp().state_dict())
    file = io.BytesIO()
    torch.save((found.model.state_dict(), optimizer.state_dict(), dict(found.masks)), file)
    file.seek(0)
    weights, moments, masks = torch.load(file, weights_only=True)
    again = mlp()
    other = optim.Adam(again.parameters())
    again.load_state_dict(weights)
    other.load_state_dict(moments)
    hold(again, other, masks)
    for model, one in ((found.model, optimizer), (again, other)):
        train(model, one, steps=3)
    assert all(
        torch.equal(a, b) for a, b in zip(found.model.parameters(), again.parameters(), strict=True)
    )


def test_holding_zeroes_at_once():
    model = mlp()
    masks = prune(model, 0.5).masks
    model[0].weight.data[~masks["0.weight"]] = float("nan")
    hold(model, optim.SGD(model.parameters(), lr=0.1), masks)
    assert zeros(model) == [48, 24]


def test_a_part_of_the_weights_in_one_optimizer():
    found = prune(mlp(), 0.75)
    first = optim.SGD(found.model[0].parameters(), lr=0.1)
    second = optim.SGD(found.model[2].parameters(), lr=0.1)
    with found.hold(first), found.hold(second):
        train(found.model, first, steps=3)
        second.step()
    assert zeros(found.model) == [72, 36]
    with pytest.raises(UsageError, match="the optimizer has none of the masked weights"):
        found.hold(optim.SGD(mlp().parameters(), lr=0.1))


# ---- masks --------------------------------------------------------------------------------


def test_masks_are_a_mapping():
    masks = Masks({"a": torch.tensor([[True, False]]), "b": torch.tensor([[False, False]])})
    assert list(masks) == ["a", "b"]
    assert len(masks) == 2
    assert masks.sparsity == 0.75
    assert repr(masks) == "Masks(2 matrices, 75.0% zeros)"
    assert Masks({}).sparsity == 0


def test_masks_of_a_pruned_model_and_back():
    found = prune(mlp(), 0.5)
    masks = Masks.of(found.model)
    assert all(torch.equal(masks[name], found.masks[name]) for name in found.masks)
    model = mlp()
    assert masks.revived(model) == 72
    masks.apply(model)
    assert masks.revived(model) == 0
    assert torch.equal(model[0].weight, found.model[0].weight)
    assert list(Masks.of(found.model, "0.*")) == ["0.weight"]


def test_masks_know_tied_weights_by_all_their_names():
    model = Tied()
    Masks({"head.weight": torch.zeros(8, 4, dtype=torch.bool)}).apply(model)
    assert not model.embedding.weight.any()


def test_masks_that_do_not_fit():
    with pytest.raises(UsageError, match="mask of a has to be a tensor of bool"):
        Masks({"a": torch.ones(2, 2)})
    with pytest.raises(UsageError, match="a mask for other, but the model has no such matrix"):
        Masks({"other": torch.ones(2, 2, dtype=torch.bool)}).apply(mlp())
    with pytest.raises(UsageError, match=r"0\.weight has shape \(12, 8\), but its mask \(2, 2\)"):
        Masks({"0.weight": torch.ones(2, 2, dtype=torch.bool)}).apply(mlp())
    model = mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(UsageError, match=r"0\.weight is computed anew in each forward pass"):
        Masks({"0.weight": torch.ones(12, 8, dtype=torch.bool)}).apply(model)
