"""Shares from measured loss: the optimum where it is known, and a model left as it was."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tailor.errors import UsageError
from tailor.stages.allocate import Sensitivity
from tailor.stages.allocate.sensitivity import _rising, _Slope, equal_slopes
from tailor.weights.source import read
from tests.stages.allocate.layers import SCORE, total_dropped


def network(sizes=(20, 20, 20), seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*[nn.Linear(10, rows, bias=False) for rows in sizes])


def zeros(layer):
    return float((layer.weight == 0).float().mean())


def quadratic(prices):
    """A loss that is known: a price times the square of the share of zeros, layer by layer."""

    def evaluate(model):
        return sum(c * zeros(layer) ** 2 for c, layer in zip(prices, model, strict=True))

    return evaluate


def test_slopes_become_equal():
    """min sum c_b s_b^2 with sum s_b given has s_b ~ 1 / c_b: the curves are known exactly."""
    model = network()
    rule = Sensitivity(evaluate=quadratic((1.0, 2.0, 4.0)), ratios=(0.2, 0.5, 0.8))
    found = rule.allocate(read(model).layers, 0.5, score=SCORE, model=model)
    expected = np.array([4.0, 2.0, 1.0]) * 1.5 / 7
    np.testing.assert_allclose([found.ratio(n) for n in found.drop], expected, atol=0.01)
    assert total_dropped(found) == 300
    np.testing.assert_allclose(list(found.metric.values()), [0.25, 0.5, 1.0], atol=1e-6)


def test_a_large_block_loses_more_at_the_same_price():
    """Per weight it costs less: minimise sum c s_b^2 with sum d_b s_b given, so s_b ~ d_b."""
    model = network((20, 60))
    rule = Sensitivity(evaluate=quadratic((1.0, 1.0)), ratios=(0.2, 0.5, 0.8))
    found = rule.allocate(read(model).layers, 0.5, score=SCORE, model=model)
    np.testing.assert_allclose([found.ratio(n) for n in found.drop], [0.2, 0.6], atol=0.01)


def test_the_cap_and_the_sparsity_hold():
    model = network()
    rule = Sensitivity(evaluate=quadratic((1.0, 1.0, 100.0)), cap=0.9, floor=0.1)
    found = rule.allocate(read(model).layers, 0.6, score=SCORE, model=model)
    ratios = [found.ratio(name) for name in found.drop]
    assert total_dropped(found) == 360
    assert max(ratios) <= 0.9
    assert ratios[2] == pytest.approx(0.1, abs=0.01)


def test_blocks_are_pruned_one_at_a_time_and_restored():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []

    def evaluate(one):
        assert one is model
        seen.append([zeros(layer) for layer in one])
        return sum(seen[-1])

    found = Sensitivity(evaluate=evaluate, cap=0.995).allocate(
        read(model).layers, 0.5, score=SCORE, model=model
    )
    shares = (0.25, 0.5, 0.75)  # half the sparsity, the sparsity, halfway to the cap
    assert seen[0] == [0, 0, 0]
    assert seen[1:] == [[s if b == i else 0 for b in range(3)] for i in range(3) for s in shares]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert len(set(found.drop.values())) <= 2  # all slopes are equal


def test_a_transposed_layer_is_pruned_where_it_lies():
    """A layer may be a view of the parameter, as where inputs stand on the first axis."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(1 + torch.arange(16).reshape(4, 4))
    first, second = read(model).layers
    turned = dataclasses.replace(first, load=lambda: model[0].weight.transpose(0, 1))
    kept = []

    def evaluate(one):
        kept.append(one[0].weight.detach().clone())
        return zeros(one[0])

    Sensitivity(evaluate=evaluate, ratios=(0.25, 0.5)).allocate(
        (turned, second), 0.5, score=SCORE, model=model
    )
    assert torch.equal(kept[1], kept[0] * (kept[0] > 4))
    assert torch.equal(model[0].weight, kept[0])


def test_restored_on_failure():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def evaluate(one):
        if zeros(one[1]) > 0:
            raise KeyError("the user's own")
        return 0.0

    with pytest.raises(KeyError, match="the user's own"):
        Sensitivity(evaluate=evaluate).allocate(read(model).layers, 0.5, score=SCORE, model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_slopes_rise_and_go_on_beyond_what_was_measured():
    slope = _Slope((0.2, 0.4, 0.8), (0.2, 0.3, 1.5))  # slopes 1, 0.5, 3 at 0.1, 0.3, 0.6
    assert slope.slopes.tolist() == pytest.approx([0.75, 0.75, 3.0])
    assert slope(0.0) == slope(0.3) == pytest.approx(0.75)
    assert slope(0.45) == pytest.approx(1.875)
    assert slope(0.9) == pytest.approx(5.25)
    assert _Slope((0.5, 0.8), (-0.1, -0.2))(0.9) == 0.0
    np.testing.assert_allclose(
        _rising(np.array([3.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0])), [1.5, 1.5, 2]
    )


def test_a_loss_that_does_not_change_is_shared_evenly():
    flat = {name: lambda share: 0.0 for name in "abc"}
    found = equal_slopes(flat, {"a": 10, "b": 10, "c": 10}, 15.0, low=0.0, high=0.99)
    assert list(found.values()) == pytest.approx([0.5, 0.5, 0.5], abs=1 / 256)


def test_refusals():
    model, rule = network(), Sensitivity(evaluate=lambda _: float("nan"))
    few = read(model).layers
    with pytest.raises(UsageError, match="evaluate gave nan for the whole model, but slopes need"):
        rule.allocate(few, 0.5, score=SCORE, model=model)
    with pytest.raises(
        UsageError, match=r"measures the loss of a network; give the model, not a file"
    ):
        rule.allocate(few, 0.5, score=SCORE)
    with pytest.raises(UsageError, match=r"0\.weight is no plain parameter of the model"):
        rule.allocate(few, 0.5, score=SCORE, model=network(seed=1))
    spectral = nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3)))
    with pytest.raises(UsageError, match="is no plain parameter of the model"):
        rule.allocate(read(spectral).layers, 0.5, score=SCORE, model=spectral)
    for ratios in ((0.5,), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(UsageError, match="ratios must be two or more, rising, in"):
            Sensitivity(evaluate=lambda _: 0.0, ratios=ratios)
