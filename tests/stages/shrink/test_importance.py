"""Numbers that units get, and how the others make up for them, beside brute force."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import one_hot

from tailor.errors import UsageError
from tailor.stages.shrink import (
    ActivationScore,
    ColumnNorm,
    Importance,
    PathScore,
    RowNorm,
    shrink,
)
from tests.stages.shrink.networks import Gated, conv, draw, mlp, randomized


def activations(model, x, until):
    with torch.no_grad():
        return model[:until](x)


def smallest(scores, count):
    """What stays when so many of the smallest go."""
    return tuple(sorted(np.argsort(np.asarray(scores), kind="stable")[count:].tolist()))


def kept(model, x, rule, count, **options):
    name = "0" if isinstance(model, nn.Sequential) else "gate"
    return shrink(model, {name: count}, x, importance=rule, **options).removed[0].kept


def test_scores_are_their_formulas():
    model, x = randomized(mlp()), draw(50, 7)
    W1, W2 = model[0].weight.detach().numpy(), model[3].weight.detach().numpy()
    incoming, outgoing = np.linalg.norm(W1, axis=1), np.linalg.norm(W2, axis=0)
    rms = activations(model, x, 2).square().mean(dim=0).sqrt().numpy()
    assert kept(model, x, PathScore(), 7) == smallest(incoming * outgoing, 5)
    assert kept(model, x, RowNorm(), 7) == smallest(incoming, 5)
    assert kept(model, x, ColumnNorm(), 7) == smallest(outgoing, 5)
    assert kept(model, x, ActivationScore(), 7, data=[x]) == smallest(rms * outgoing, 5)
    batches = [(x[:20], None), (x[20:], None)]
    assert kept(model, x, None, 7, data=batches) == smallest(rms * outgoing, 5)
    assert kept(model, x, None, 7) == smallest(incoming * outgoing, 5)


def test_scores_of_gates_and_channels():
    model = randomized(Gated())
    norms = [
        model.gate.weight.norm(dim=1),
        model.up.weight.norm(dim=1),
        model.down.weight.norm(dim=0),
    ]
    path = torch.stack(norms).prod(dim=0).detach()
    assert kept(model, draw(3, 6), PathScore(), 6) == smallest(path, 5)
    model, x = randomized(conv()), draw(9, 3, 12, 12)
    outgoing = model[4].weight.detach().square().sum(dim=(2, 3)).sum(dim=0).sqrt()
    gain = (model[1].weight.abs() / (model[1].running_var + 1e-5).sqrt()).detach()
    path = model[0].weight.detach().flatten(1).norm(dim=1) * gain * outgoing
    assert kept(model, x, PathScore(), 3) == smallest(path, 5)
    with torch.no_grad():
        model[1].weight[int(path.argmax())] *= 1e-4  # BatchNorm says how strong a channel is
    assert kept(model, x, PathScore(), 7) == smallest(-one_hot(path.argmax(), 8), 1)
    patches = nn.functional.unfold(activations(model, x, 4), 3).unflatten(1, (8, 9))
    squares = patches.square().mean(dim=(0, 3))
    power = (model[4].weight.detach().flatten(2).square().sum(dim=0) * squares).sum(dim=1).sqrt()
    assert kept(model, x, ActivationScore(), 3, data=[x]) == smallest(power, 5)


@settings(max_examples=2)
@given(st.integers(0, 1000), st.integers(1, 11))
def test_only_the_path_is_blind_to_rescaling(seed, count):
    model, x = randomized(mlp(), seed), draw(20, 7)
    scaled = copy.deepcopy(model)
    factors = draw(12, seed=seed).exp()
    with torch.no_grad():
        scaled[0].weight *= factors[:, None]
        scaled[0].bias *= factors
        scaled[3].weight /= factors
    torch.testing.assert_close(scaled(x), model(x), rtol=1e-4, atol=1e-5)
    for rule, options in ((PathScore(), {}), (ActivationScore(), {"data": [x]})):
        assert kept(model, x, rule, count, **options) == kept(scaled, x, rule, count, **options)
    with torch.no_grad():
        scaled[0].weight[0] *= 1e4
        scaled[3].weight[:, 0] /= 1e4
    assert 0 in kept(scaled, x, RowNorm(), 1)
    assert 0 not in kept(scaled, x, ColumnNorm(), 11)


def outputs(model, x, at):
    """What a layer gives, before and after."""
    with torch.no_grad():
        return model[: at + 1](x)


def test_the_mean_goes_into_the_bias():
    model, x = randomized(mlp()), draw(60, 7)
    units = [0, 3, 5, 8, 9]
    hidden = activations(model, x, 2)
    gone = [j for j in range(12) if j not in units]
    found = shrink(model, {"0": units}, x, data=[x], compensate="mean").model
    expected = model[3].bias + model[3].weight[:, gone] @ hidden[:, gone].mean(dim=0)
    torch.testing.assert_close(found[3].bias, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs(found, x, 3).mean(0), outputs(model, x, 3).mean(0))
    plain = shrink(model, {"0": units}, x).model
    assert torch.equal(plain[3].bias, model[3].bias)


def test_a_convolution_gets_the_mean_of_each_tap():
    model, x = randomized(conv()), draw(9, 3, 12, 12)
    found = shrink(model, {"0": [1, 2]}, x, data=[x], compensate="mean").model
    before, after = (outputs(one, x, 4).mean(dim=(0, 2, 3)) for one in (model, found))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_least_squares_beats_nothing_and_the_mean(bias):
    """By brute force: numpy's least squares on the units that stay, with the same damping."""
    model, x = randomized(mlp(bias)), draw(400, 7)
    units = [0, 3, 5, 8, 9]
    hidden = activations(model, x, 2).double().numpy()
    target = outputs(model, x, 3).double().numpy()
    H = hidden - hidden.mean(axis=0) if bias else hidden
    Y = target - target.mean(axis=0) if bias else target
    W = model[3].weight.detach().double().numpy()[:, units]
    damp = 0.01 * (H[:, units] ** 2).mean() * len(H)  # pulls towards the weights as they are
    rows = np.vstack([H[:, units], np.sqrt(damp) * np.eye(5)])
    expected = np.linalg.lstsq(rows, np.vstack([Y, np.sqrt(damp) * W.T]), rcond=None)[0].T
    found = {
        how: shrink(model, {"0": units}, x, data=[x], compensate=how).model
        for how in ("none", "mean", "lstsq")
    }
    weight = found["lstsq"][3].weight.detach().numpy()
    np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    errors = [float((outputs(one, x, 3) - outputs(model, x, 3)).norm()) for one in found.values()]
    assert errors[0] > errors[1] > errors[2]
    assert (found["lstsq"][3].bias is None) != bias


def test_a_copy_of_a_unit_is_made_up_for():
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1)
    )
    model, x = randomized(model), draw(40, 2, 8, 8)
    with torch.no_grad():
        model[0].weight[3:] = model[0].weight[:3]
        model[0].bias[3:] = model[0].bias[:3]
    found = shrink(model, {"0": 3}, x, data=[x], compensate="lstsq", importance=_First()).model
    error = (found(x) - model(x)).norm() / model(x).norm()
    assert error < 0.01  # of the damping
    bare = shrink(model, {"0": 3}, x, importance=_First()).model
    assert (bare(x) - model(x)).norm() / model(x).norm() > 0.1


class _First(Importance):
    """The first units matter."""

    def of(self, units):
        return -torch.arange(len(units.gain), dtype=torch.float64)


class _Nothing(Importance):
    def of(self, units):
        return units.gain * float("nan")


def test_data_that_do_not_fit_are_refused():
    model, x = randomized(mlp()), draw(5, 7)
    with pytest.raises(UsageError, match=r"ActivationScore needs data; give batches with data="):
        shrink(model, 0.5, x, importance=ActivationScore())
    with pytest.raises(UsageError, match="data has to be batches, but is a Tensor"):
        shrink(model, 0.5, x, data=x)
    with pytest.raises(UsageError, match=r"inputs of 3\.weight are NaN or infinite"):
        shrink(model, 0.5, x, data=[x / 0])
    with pytest.raises(UsageError, match="_Nothing of 3 is not finite everywhere"):
        shrink(model, 0.5, x, importance=_Nothing())
    with pytest.warns(UserWarning, match="fewer vectors than inputs"):
        shrink(model, 0.5, x, data=[x], compensate="lstsq")
