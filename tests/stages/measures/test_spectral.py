"""Worst cases of layerwise changes, and ranks after truncation."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

from tailor.errors import UsageError
from tailor.records import from_json, to_json
from tailor.stages.measures import SpectralPerturbation, spectral_perturbation, truncated_rank
from tailor.stages.measures.chain import chain_of
from tailor.stages.measures.spectral import operator_norm
from tailor.tasks import Data
from tests.stages.measures.networks import convolutions, images, labelled_by, mlp, vectors


def moved(model, scale, seed=5):
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in other.parameters():
        shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += scale * shift
    return other


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(1e-4, 0.05))
def test_both_bounds_hold_for_random_networks(seed, scale):
    model = mlp(4, 6, 5, 3, seed=seed)
    data = labelled_by(model, vectors(10, 4, seed=seed))
    other = moved(model, scale, seed)
    found = spectral_perturbation(model, other, data)
    x = data.x.double()
    apart = (model.double()(x) - other.double()(x)).norm(dim=1)
    assert found.measured == pytest.approx(float(apart.detach().max()))
    assert found.measured <= found.propagated
    if found.lemma is not None:
        assert found.propagated <= found.lemma


@pytest.mark.parametrize("bias", [False, True])
def test_the_bound_holds_for_convolutions_and_biases(bias):
    model = convolutions(bias=bias)
    data = labelled_by(model, images(10))
    found = spectral_perturbation(model, moved(model, 0.01), data)
    assert 0 < found.measured <= found.propagated
    assert (found.lemma is None) == bias or found.lemma > found.propagated
    if bias:
        assert "without biases" in found.reason
        assert all(one.bias > 0 for one in found.layers)


def test_the_lemma_is_its_formula():
    model = mlp(4, 6, 3)
    other = moved(model, 0.01)
    data = labelled_by(model, vectors(10, 4))
    found = spectral_perturbation(model, other, data)
    pairs = [(model[i].weight.detach(), other[i].weight.detach()) for i in (0, 2)]
    pairs = [(a.double(), b.double()) for a, b in pairs]
    sizes = [float(torch.linalg.svdvals(a)[0]) for a, _ in pairs]
    changes = [float(torch.linalg.svdvals(a - b)[0]) for a, b in pairs]
    total = math.e * math.prod(sizes) * sum(c / s for c, s in zip(changes, sizes, strict=True))
    assert found.lemma == pytest.approx(total * float(data.x.double().norm(dim=1).max()))


def test_a_biases_shift_alone_is_exact_for_one_layer():
    model = nn.Sequential(nn.Linear(3, 2))
    other = copy.deepcopy(model)
    other[0].bias.data += torch.tensor([0.3, 0.4])
    data = Data(x=torch.rand(4, 3), y=torch.zeros(4, dtype=torch.long))
    found = spectral_perturbation(model, other, data)
    assert found.propagated == pytest.approx(0.5, rel=1e-6)
    assert found.measured == pytest.approx(0.5, rel=1e-6)


def test_unchanged_classes_do_not_change():
    model = mlp(4, 6, 3)
    data = labelled_by(model, vectors(200, 4))
    for scale in (1e-4, 1e-3, 1e-2, 1e-1):
        other = moved(model, scale)
        found = spectral_perturbation(model, other, data)
        same = (other.double()(data.x.double()).argmax(1) == data.y).double().mean()
        assert found.unchanged <= float(same)
    assert spectral_perturbation(model, moved(model, 1e-4), data).unchanged > 0.9


def test_a_large_change_is_outside_the_lemma():
    model = mlp(4, 6, 3)
    found = spectral_perturbation(model, moved(model, 3.0), labelled_by(model, vectors(5, 4)))
    assert found.lemma is None
    assert "more than its norm over the depth" in found.reason
    assert found.measured <= found.propagated
    assert from_json(SpectralPerturbation, to_json(found)) == found
    assert not found.is_certificate


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.Conv2d(2, 4, 3, stride=2, bias=False),
        nn.Conv2d(4, 4, 3, groups=2, dilation=2, bias=False),
        nn.Conv2d(2, 3, 1, bias=False),
    ],
)
def test_norm_of_a_convolution_is_bounded(layer):
    link = chain_of(nn.Sequential(layer), who="test")[0]
    J = jacobian(link.linear, torch.zeros(1, layer.in_channels, 7, 7, dtype=torch.float64))
    exact = float(torch.linalg.matrix_norm(J.reshape(-1, layer.in_channels * 49), 2))
    bound = operator_norm(link, link.module.weight)
    assert exact <= bound * (1 + 1e-12)
    assert bound <= exact * math.prod(layer.kernel_size)
    if layer.kernel_size == (1, 1):
        assert bound == pytest.approx(exact)


def test_refuses_other_networks():
    data = labelled_by(mlp(4, 6, 3), vectors(5, 4))
    with pytest.raises(UsageError, match="same layers"):
        spectral_perturbation(mlp(4, 6, 3), mlp(4, 5, 3), data)
    pooled = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(3, 1), nn.Flatten(), nn.Linear(48, 3)
    )
    with pytest.raises(UsageError, match="must not overlap"):
        spectral_perturbation(pooled, pooled, labelled_by(pooled, images(3)))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_rank_never_exceeds_the_lemma(seed, share):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 9, generator=generator) * torch.rand(9, generator=generator) ** 3
    found = truncated_rank(A, share)
    values = torch.linalg.svdvals(A.double())
    assert found.rank == int((values >= share * values[0]).sum())
    assert 1 <= found.rank <= found.bound
    assert found.stable_rank == pytest.approx(float(A.double().norm() ** 2 / values[0] ** 2))


def test_the_lemma_is_tight_for_equal_singular_values():
    found = truncated_rank(torch.eye(5), 1.0)
    assert (found.rank, found.bound) == (5, pytest.approx(5.0))
    with pytest.raises(UsageError, match="share must lie"):
        truncated_rank(torch.eye(3), 0.0)
    with pytest.raises(UsageError, match="matrix of zeros"):
        truncated_rank(torch.zeros(3, 3), 0.5)
