"""Margins, and the step from one network to another."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import RecordError, UsageError
from tailor.records import from_json, to_json
from tailor.stages.measures import Explanatory, Margins, loss_after_change, margins
from tailor.stages.measures.margin import margin_values, quantile
from tailor.tasks import Data, zero_one
from tests.stages.measures.networks import mlp, vectors


def identity(classes):
    model = nn.Linear(classes, classes, bias=False)
    model.weight.data = torch.eye(classes)
    return model


def some(n=300, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.randn(n, classes, generator=generator),
        y=torch.randint(0, classes, (n,), generator=generator),
    )


def by_hand(scores, y):
    rest = [[*row[:k], *row[k + 1 :]] for row, k in zip(scores, y, strict=True)]
    return [row[k] - max(others) for row, k, others in zip(scores, y, rest, strict=True)]


def test_quantiles_and_shares_are_those_of_a_loop():
    data = some()
    found = margins(identity(4), data, gammas=(0.0, 0.5), levels=(0.0, 0.05, 0.5, 1.0))
    scores = data.x.double().tolist()
    each = sorted(by_hand(scores, data.y.tolist()))
    assert found.quantiles == pytest.approx([each[0], each[15], each[150], each[-1]])
    assert [one.share for one in found.below] == [
        pytest.approx(sum(m <= gamma for m in each) / 300) for gamma in (0.0, 0.5)
    ]
    assert found.mean == pytest.approx(np.mean(each))
    assert found.largest_output == pytest.approx(np.linalg.norm(scores, axis=1).max())
    over = np.array(by_hand(scores, data.y.tolist())) / np.linalg.norm(scores, axis=1)
    assert found.normalised[2] == pytest.approx(sorted(over)[150])


def test_loss_at_margin_zero_is_the_training_error():
    model, x = mlp(5, 8, 3), vectors(200, 5)
    data = Data(x=x, y=torch.arange(200) % 3)
    errors = float(zero_one(model, data).double().mean())
    assert 0 < errors < 1
    assert margins(model, data).below[0].share == pytest.approx(errors)


def test_normalised_margins_do_not_change_with_the_scale():
    data = some()
    model, large = identity(4), identity(4)
    large.weight.data *= 37
    one, two = margins(model, data), margins(large, data)
    assert one.normalised == pytest.approx(two.normalised)
    assert two.quantiles == pytest.approx([37 * q for q in one.quantiles])


def test_the_printed_margin_step_fails_and_twice_the_closeness_holds():
    """f = (1, 0.2) has margin 0.8 > 0.5, g = (0.55, 0.65) is within 0.5 of it, and g errs."""
    f, g = torch.tensor([[1.0, 0.2]]).double(), torch.tensor([[0.55, 0.65]]).double()
    data = Data(x=torch.zeros(1, 2), y=torch.tensor([0]))
    gamma = 0.5
    assert float((f - g).abs().max()) <= gamma
    error_of_g = float((margin_values(g, data) <= 0).double().mean())
    printed = float((margin_values(f, data) <= gamma).double().mean())
    assert error_of_g > printed
    assert error_of_g <= loss_after_change(margin_values(f, data), gamma)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 3.0))
def test_no_other_network_errs_more_often_than_after_a_change(seed, closeness):
    data = some(n=40, seed=seed)
    f = data.x.double()
    generator = torch.Generator().manual_seed(seed + 1)
    g = f + closeness * (2 * torch.rand(f.shape, generator=generator, dtype=torch.float64) - 1)
    error_of_g = float((margin_values(g, data) <= 0).double().mean())
    closest = float((f - g).abs().max())
    assert error_of_g <= loss_after_change(margin_values(f, data), closest)


@settings(max_examples=50)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.floats(0, 1))
def test_at_most_the_level_lies_below_a_quantile(values, level):
    tensor = torch.tensor(values, dtype=torch.float64)
    found = quantile(tensor, level)
    assert found in values
    assert (tensor < found).double().mean() <= level + 1e-9
    larger = [one for one in values if one > found]
    if larger and level < 1:
        assert (tensor < min(larger)).double().mean() >= level - 1e-9


def test_the_record_survives_json_and_is_never_a_certificate():
    found = margins(identity(4), some())
    assert from_json(Margins, to_json(found)) == found
    assert found.is_certificate is False
    assert "bounds nothing" in found.why_not
    with pytest.raises(RecordError, match="is_certificate must be one of False"):
        from_json(Margins, {**to_json(found), "is_certificate": True})
    told = object.__new__(Explanatory)  # past the type checks of the tests
    object.__setattr__(told, "is_certificate", True)
    with pytest.raises(UsageError, match="no certificate"):
        told.__post_init__()


def test_refuses_what_has_no_margin():
    data = some()
    with pytest.raises(UsageError, match="no examples"):
        margins(identity(4), Data(x=torch.zeros(0, 4), y=torch.zeros(0, dtype=torch.long)))
    with pytest.raises(UsageError, match="largest label is 3"):
        margins(nn.Linear(4, 2), data)
    with pytest.raises(UsageError, match="cannot be run"):
        margins(nn.Linear(5, 4), data)
    with pytest.raises(UsageError, match="one row of class scores"):
        margins(nn.Unflatten(1, (2, 2)), data)
    with pytest.raises(UsageError, match="level in"):
        margins(identity(4), data, levels=(1.5,))
    with pytest.raises(UsageError, match="cannot be negative"):
        loss_after_change(torch.ones(3).double(), -1.0)
    broken = identity(4)
    broken.weight.data[0, 0] = float("inf")
    with pytest.raises(UsageError, match="NaN or infinite"):
        margins(broken, data)
