import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import NonFinite, UsageError
from tailor.stages.schemes import (
    Entries,
    Kernels,
    Nodes,
    SingularValues,
    reduce_model,
    reduce_weight,
)

CENTERS = ("none", "median")
SCHEMES = (Entries, Nodes, Kernels, SingularValues)


@pytest.fixture
def matrix():
    return torch.from_numpy(np.random.default_rng(0).standard_t(3, (12, 20)))


@pytest.fixture
def kernel():
    return torch.from_numpy(np.random.default_rng(1).standard_t(3, (6, 5, 3, 3)))


# What the paper's program does, in numpy: `center` is what is subtracted and added back.


def by_entry(w, drop, center):
    flat = w.flatten()
    middle = np.median(flat) if center == "median" else 0.0
    flat = flat - middle
    flat[np.argsort(np.abs(flat), kind="stable")[:drop]] = 0
    return (flat + middle).reshape(w.shape)


def by_column(w, drop, center):
    middle = np.median(w, axis=1, keepdims=True) if center == "median" else 0.0
    a = w - middle
    a[:, np.argsort(np.linalg.norm(a, axis=0), kind="stable")[:drop]] = 0
    return a + middle


def by_kernel(w, drop, center):
    rows = w.reshape(w.shape[0] * w.shape[1], -1)
    middle = np.median(rows, axis=0, keepdims=True) if center == "median" else 0.0
    a = rows - middle
    a[np.argsort(np.linalg.norm(a, axis=1), kind="stable")[:drop]] = 0
    return (a + middle).reshape(w.shape)


def by_singular_value(w, drop, center):
    flat = w.reshape(len(w), -1)
    middle = np.median(flat, axis=0) if center == "median" else 0.0
    U, s, V = np.linalg.svd(flat - middle, full_matrices=False)
    s[len(s) - drop :] = 0
    return (U * s @ V + middle).reshape(w.shape)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 0.9])
@pytest.mark.parametrize(
    ("scheme", "program"),
    [(Entries, by_entry), (Nodes, by_column), (SingularValues, by_singular_value)],
)
def test_of_a_matrix_as_in_the_program(matrix, scheme, program, share, center):
    found = reduce_weight(matrix, scheme(center=center), share=share)
    expected = program(matrix.numpy().copy(), int(share * found.units), center)
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=0, atol=1e-12)
    assert found.units == {Entries: 240, Nodes: 20, SingularValues: 12}[scheme]
    assert found.kept == found.units - int(share * found.units)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize(
    ("scheme", "program"),
    [(Entries, by_entry), (Kernels, by_kernel), (SingularValues, by_singular_value)],
)
def test_of_a_kernel_as_in_the_program(kernel, scheme, program, center):
    found = reduce_weight(kernel, scheme(center=center), share=0.5)
    expected = program(kernel.numpy().copy(), found.units // 2, center)
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=0, atol=1e-12)


def test_a_node_of_a_convolution_is_a_channel_that_it_reads(kernel):
    found = reduce_weight(kernel, Nodes(), share=0.4)
    gone = kernel.square().sum(dim=(0, 2, 3)).argsort()[:2]
    assert found.weight[:, gone].count_nonzero() == 0
    stay = [channel for channel in range(5) if channel not in gone.tolist()]
    assert torch.equal(found.weight[:, stay], kernel[:, stay])


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_error_is_that_of_the_weights(kernel, scheme, center):
    found = reduce_weight(kernel, scheme(center=center), share=0.6)
    all_gone = scheme(center=center).units(kernel).build(torch.zeros(found.units, dtype=torch.bool))
    whole = torch.linalg.vector_norm(kernel - all_gone)
    assert found.error == pytest.approx(
        float(torch.linalg.vector_norm(kernel - found.weight) / whole), rel=1e-9
    )
    assert (float(all_gone.abs().sum()) == 0) == (center == "none")


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@given(error=st.floats(0.0, 0.99), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_an_error_is_used_up(scheme, center, error, seed):
    weight = torch.from_numpy(np.random.default_rng(seed).standard_t(2, (7, 9)))
    one = scheme(center=center)
    found = reduce_weight(weight, one, error=error)
    assert found.error <= error + 1e-12
    more = (found.units - found.kept + 1.5) / found.units
    if more < 1:
        assert reduce_weight(weight, one, share=more).error > error


def test_what_is_stored(kernel):
    """Units times their size, and the median: 1, out x kernel, kernel, in x kernel numbers."""
    costs = {
        scheme: [reduce_weight(kernel, scheme(center=c), share=0.5).cost for c in CENTERS]
        for scheme in SCHEMES
    }
    assert costs == {
        Entries: [135, 136],
        Nodes: [3 * 54, 3 * 54 + 54],
        Kernels: [15 * 9, 15 * 9 + 9],
        SingularValues: [3 * 51, 3 * 51 + 45],
    }
    assert reduce_weight(kernel, Entries(), share=0.5).size == 270


def test_a_share_is_not_lost_to_rounding():
    assert 0.29 * 100 < 29  # in doubles
    found = reduce_weight(torch.arange(100.0).reshape(10, 10), Entries(), share=0.29)
    assert found.kept == 71


def test_of_equal_ones_the_first_goes():
    found = reduce_weight(torch.ones(3, 4), Entries(), share=0.3)
    assert found.weight.flatten().tolist() == [0.0] * 3 + [1.0] * 9
    assert reduce_weight(torch.ones(3, 4), Nodes(), share=0.5).weight[0].tolist() == [0, 0, 1, 1]


def test_the_median_of_an_even_number_lies_between_the_middle_ones():
    found = reduce_weight(
        torch.tensor([[0.0, 1.0], [2.0, 9.0]]), Entries(center="median"), share=0.5
    )
    assert found.weight.tolist() == [[0.0, 1.5], [1.5, 9.0]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("center", CENTERS)
def test_weights_that_are_all_alike_lose_nothing(scheme, center):
    for value in (0.0, 3.0):
        weight = torch.full((4, 5), value)
        found = reduce_weight(weight, scheme(center=center), error=0.1)
        torch.testing.assert_close(found.weight, weight, rtol=0.11, atol=0)
        assert 0 <= found.error <= 0.1
        if value == 0 or center == "median":
            assert (found.kept, found.error) == (0, 0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_half_precision_strides_and_gradients(kernel, scheme):
    turned = kernel.transpose(0, 1)
    found = reduce_weight(turned, scheme(), share=0.5)
    torch.testing.assert_close(
        found.weight, reduce_weight(turned.contiguous(), scheme(), share=0.5).weight
    )
    half = nn.Parameter(kernel.to(torch.bfloat16))
    found = reduce_weight(half, scheme(), share=0.5)
    assert found.weight.dtype == torch.bfloat16
    assert not found.weight.requires_grad
    wide = reduce_weight(half.detach().double(), scheme(), share=0.5).weight
    torch.testing.assert_close(found.weight, wide.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({}, "one of share"),
        ({"share": 0.5, "error": 0.5}, "one of share"),
        ({"share": 1.0}, "share must be a number in"),
        ({"share": -0.1}, "share must be a number in"),
        ({"share": float("nan")}, "share must be a number in"),
        ({"share": True}, "share must be a number in"),
        ({"error": 1}, "error must be a number in"),
    ],
)
def test_how_much_goes_is_checked(matrix, asked, match):
    with pytest.raises(UsageError, match=match):
        reduce_weight(matrix, Entries(), **asked)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("weight", "kind", "match"),
    [
        (torch.ones(3, 0), UsageError, r"shape \(3, 0\)"),
        (torch.ones(3, 3, dtype=torch.int64), UsageError, "type int64"),
        (torch.ones(3, 3, dtype=torch.complex64), UsageError, "type complex64"),
        (torch.tensor([[1.0, torch.nan], [torch.inf, 1.0]]), NonFinite, "2 NaN or infinite"),
    ],
)
def test_what_cannot_be_cut(scheme, weight, kind, match):
    with pytest.raises(kind, match=match):
        scheme().units(weight)


# A whole network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False))


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("scheme", [Entries, Nodes, SingularValues])
def test_every_layer_for_itself(network, scheme, center):
    before = copy.deepcopy(network.state_dict())
    found = reduce_model(network, scheme(center=center), share=0.5)
    assert list(found.layers) == ["0.weight", "2.weight"]
    for name, row in found.layers.items():
        alone = reduce_weight(before[name], scheme(center=center), share=0.5)
        assert torch.equal(found.model.state_dict()[name], alone.weight)
        assert row.cost == alone.cost
    assert torch.equal(found.model[0].bias, before["0.bias"])
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    rows = found.layers.values()
    assert found.cost == sum(row.cost for row in rows) / (128 + 64)


def test_all_layers_together(network):
    with torch.no_grad():
        network[2].weight *= 1e6
    found = reduce_model(network, Entries(), share=0.5, together=True)
    assert found.layers["0.weight"].kept == 32
    assert found.layers["2.weight"].kept == 64
    sizes = torch.cat([one.weight.flatten().abs() for one in (network[0], network[2])])
    expected = sizes.sort(descending=True).values[:96].min()
    assert found.model[0].weight[found.model[0].weight != 0].abs().min() == expected


def test_each_layer_less_its_own_median(network):
    with torch.no_grad():
        network[2].weight += 5
    found = reduce_model(network, Entries(center="median"), share=0.99, together=True)
    expected = [float(one.weight.detach().double().median()) for one in (network[0], network[2])]
    for one, value in zip((found.model[0], found.model[2]), expected, strict=True):
        assert float(one.weight.detach().median()) == pytest.approx(value, abs=0.1)
    found = reduce_model(network, Entries(center="median"), error=0.3, together=True)
    lost = sum(((a - b) ** 2).sum() for a, b in zip(*_weights(network, found.model), strict=True))
    whole = sum(((w - np.median(w)) ** 2).sum() for w in _weights(network)[0])
    assert 0.29 < (lost / whole) ** 0.5 <= 0.3


def _weights(*models):
    return [[model[at].weight.detach().double().numpy() for at in (0, 2)] for model in models]


def test_some_layers(network):
    found = reduce_model(network, Entries(), share=0.5, skip="2.*")
    assert list(found.layers) == ["0.weight"]
    assert torch.equal(found.model[2].weight, network[2].weight)


def test_nodes_are_not_compared_across_layers(network):
    for scheme in (Nodes(), SingularValues(), Kernels()):
        with pytest.raises(UsageError, match="differ in cost"):
            reduce_model(network, scheme, share=0.5, together=True)


def test_errors_name_the_weight(network):
    with torch.no_grad():
        network[2].weight[0, 0] = torch.nan
    with pytest.raises(NonFinite, match=r"2\.weight: the weight holds 1 NaN"):
        reduce_model(network, Entries(), share=0.5)
    nn.utils.parametrizations.weight_norm(network[0])
    with pytest.raises(UsageError, match="not a plain parameter"):
        reduce_model(network, Entries(), share=0.5)
    with pytest.raises(UsageError, match="reduce_model"):
        reduce_model(network, Entries(), share=0.5, layers="nothing*")
