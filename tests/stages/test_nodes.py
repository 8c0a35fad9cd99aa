"""Trained node scales: forward, prior, MAP term, pruning and shrinking of nodes."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.nodes import GBFRY, Equal, Horseshoe, InverseGamma
from tailor.stages.nodes import NodeScale, PrunedNodes, map_penalty, prune_nodes
from tailor.stages.shrink import shrink_nodes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal_(model, seed=0):
    source = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=source))
    return model


def scaled_network(law, width=20, seed=0):
    model = nn.Sequential(
        NodeScale(6, Equal()),
        nn.Linear(6, width),
        nn.ReLU(),
        NodeScale(width, law, generator=generator(seed)),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Dropout(0.2),
        NodeScale(width, law, generator=generator(seed + 1)),
        nn.Linear(width, 3),
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            normal_(layer, seed)
    return model.double().eval()


def plain_network(seed=0):
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
    return normal_(model, seed).double()


INPUTS = torch.randn(40, 6, dtype=torch.float64, generator=generator(9))


def test_activations_are_multiplied_by_the_root_of_the_scale():
    scale = NodeScale(3, Horseshoe())
    with torch.no_grad():
        scale.log_scales.copy_(torch.tensor([1.0, 4.0, 9.0]).log())
    x = torch.ones(2, 5, 3)
    torch.testing.assert_close(scale(x), torch.tensor([1.0, 2.0, 3.0]).expand(2, 5, 3))
    channels = NodeScale(3, Horseshoe(), axis=1)
    channels.load_state_dict(scale.state_dict())
    image = torch.ones(2, 3, 4, 4)
    torch.testing.assert_close(channels(image)[:, 1], torch.full((2, 4, 4), 2.0))


def test_scales_start_at_one_over_p_or_as_a_sample():
    torch.testing.assert_close(NodeScale(8, GBFRY()).log_scales.exp(), torch.full((8,), 1 / 8))
    drawn = NodeScale(8, GBFRY(), generator=generator(3)).log_scales.detach().double().exp()
    torch.testing.assert_close(drawn, GBFRY().sample(8, generator(3)), rtol=1e-5, atol=0)


def test_equal_scales_are_not_trained():
    fixed, free = NodeScale(5, Equal()), NodeScale(5, Horseshoe())
    assert not fixed.log_scales.requires_grad
    assert free.log_scales.requires_grad
    assert fixed.log_prior().item() == 0
    assert str(free) == "NodeScale(5, Horseshoe())"


def test_log_prior_is_the_density_of_the_scales_without_jacobian():
    scale = NodeScale(50, InverseGamma(shape=2.0), generator=generator(1))
    scales = scale.log_scales.detach().double().exp().numpy()
    expected = stats.invgamma(2.0, scale=1 / 50).logpdf(scales).sum()
    assert scale.log_prior().item() == pytest.approx(expected, rel=1e-6)


def test_a_scale_that_nothing_needs_is_pulled_down_at_a_steady_rate():
    scale = NodeScale(4, Horseshoe())
    for level in (-20.0, -200.0):
        with torch.no_grad():
            scale.log_scales.fill_(level)
        (slope,) = torch.autograd.grad(scale.log_prior(), scale.log_scales)
        torch.testing.assert_close(slope, torch.full((4,), -0.5), rtol=1e-6, atol=1e-6)


def test_map_penalty_is_minus_the_log_prior_over_n():
    model = scaled_network(Horseshoe())
    matrices = [p for layer in model if isinstance(layer, nn.Linear) for p in layer.parameters()]
    normal = sum(stats.norm.logpdf(p.detach().numpy()).sum() for p in matrices)
    normal += (
        sum(p.numel() for p in matrices) * math.log(2 * math.pi) / 2
    )  # its constant is left out
    scales = sum(layer.log_prior().item() for layer in model if isinstance(layer, NodeScale))
    expected = -(normal + scales) / 700
    assert map_penalty(model, 700).item() == pytest.approx(expected, rel=1e-12)


def test_map_penalty_leaves_normalisation_alone_and_counts_a_tied_weight_once():
    model = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
    )
    model[2].weight = model[0].weight
    (gradient,) = torch.autograd.grad(map_penalty(model, 2), model[0].weight)
    torch.testing.assert_close(gradient, model[0].weight.detach() / 2)


def test_training_with_the_penalty_empties_nodes_that_the_data_do_not_need():
    source = generator(0)
    x = torch.randn(300, 5, generator=source)
    y = (x[:, 0].abs() > 0.7).long()
    model = nn.Sequential(
        NodeScale(5, Equal()),
        nn.Linear(5, 40),
        nn.ReLU(),
        NodeScale(40, Horseshoe()),
        nn.Linear(40, 2),
    )
    normal_(model[1])
    normal_(model[4], seed=1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=4e-2)
    for _ in range(300):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss + map_penalty(model, 300)).backward()
        optimizer.step()

    def accuracy():
        return (model(x).argmax(dim=1) == y).double().mean().item()

    before = accuracy()
    (kept,) = prune_nodes(model, fraction=0.8)
    assert kept == PrunedNodes(name="3", nodes=40, kept=8)
    assert before > 0.95
    assert accuracy() > before - 0.02


@settings(max_examples=30)
@given(st.integers(0, 100), st.floats(0, 0.99))
def test_nodes_below_the_quantile_of_their_layer_go(seed, fraction):
    model = scaled_network(Horseshoe(), seed=seed)
    roots = [np.exp(model[at].log_scales.detach().numpy() / 2) for at in (3, 7)]
    found = prune_nodes(model, fraction=fraction)
    for at, root, layer in zip((3, 7), roots, found, strict=True):
        alive = root >= np.quantile(root, fraction)
        assert model[at].alive.tolist() == alive.tolist()
        assert layer == PrunedNodes(name=str(at), nodes=20, kept=int(alive.sum()))
        assert torch.equal(model[at].factors == 0, ~model[at].alive)
    assert model[0].alive.all()


def test_nodes_below_a_threshold_go_and_stay_silent():
    model = scaled_network(Horseshoe())
    expected = model[3].factors.detach() >= 0.05
    assert 0 < int(expected.sum()) < 20
    prune_nodes(model, threshold=0.05)
    assert torch.equal(model[3].alive, expected)
    with torch.no_grad():
        model[3].log_scales.zero_()
    assert torch.equal(model[3].factors != 0, expected)
    (again, _) = prune_nodes(model, threshold=0.0)
    assert again.kept == int(expected.sum())
    other = scaled_network(Horseshoe())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(INPUTS), model(INPUTS))


def test_scales_too_small_for_single_precision_are_still_told_apart():
    scale = NodeScale(4, Horseshoe())
    with torch.no_grad():
        scale.log_scales.copy_(torch.tensor([-500.0, -400.0, -300.0, -450.0]))
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), scale, nn.Linear(4, 1))
    prune_nodes(model, fraction=0.5)
    assert scale.alive.tolist() == [False, True, True, False]


def test_pruning_twice_is_pruning_once():
    model = scaled_network(GBFRY())
    once = copy.deepcopy(model)
    prune_nodes(model, fraction=0.3)
    prune_nodes(model, fraction=0.7)
    prune_nodes(once, fraction=0.7)
    assert torch.equal(model[3].alive, once[3].alive)


def test_without_scales_the_outgoing_norm_is_the_size():
    model = plain_network()
    before = copy.deepcopy(model)
    found = prune_nodes(model, fraction=0.6)
    assert [(one.name, one.nodes) for one in found] == [("2.weight", 9), ("4.weight", 8)]
    for at in (2, 4):
        weight = before[at].weight.detach().numpy()
        norms = np.linalg.norm(weight, axis=0)
        expected = np.where(norms >= np.quantile(norms, 0.6), weight, 0)
        np.testing.assert_array_equal(model[at].weight.detach().numpy(), expected)
    assert torch.equal(model[0].weight, before[0].weight)
    assert torch.equal(model[2].bias, before[2].bias)


def test_with_equal_scales_the_outgoing_norm_is_the_size():
    model = scaled_network(Equal())
    norms = np.linalg.norm(model[4].weight.detach().numpy(), axis=0)
    (first, _) = prune_nodes(model, fraction=0.5)
    assert model[3].alive.tolist() == (norms >= np.median(norms)).tolist()
    assert first.kept == 10
    assert model[0].alive.all()


def test_input_channels_of_convolutions_are_nodes():
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3))
    norms = model[2].weight.detach().square().sum(dim=(1, 2, 3))
    (found,) = prune_nodes(model, fraction=0.5)
    assert found == PrunedNodes(name="2.weight", nodes=6, kept=3)
    silent = (model[2].weight.detach().flatten(1) == 0).all(dim=1)
    assert torch.equal(silent, norms < norms.quantile(0.5))


@settings(max_examples=30)
@given(st.integers(0, 100), st.floats(0, 0.99), st.booleans())
def test_a_shrunk_network_computes_the_same(seed, fraction, scaled):
    model = scaled_network(Horseshoe(), seed=seed) if scaled else plain_network(seed)
    found = prune_nodes(model, fraction=fraction)
    before = copy.deepcopy(model.state_dict())
    small = shrink_nodes(model)
    torch.testing.assert_close(small(INPUTS), model(INPUTS), rtol=1e-10, atol=1e-10)
    widths = [layer.in_features for layer in small if isinstance(layer, nn.Linear)]
    assert widths == [6, *(layer.kept for layer in found)]
    assert not any(isinstance(layer, NodeScale) for layer in small)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_shrinking_keeps_dropout_types_and_mode():
    model = scaled_network(Horseshoe()).float().train()
    small = shrink_nodes(model)
    assert [type(layer) for layer in small] == [
        *(nn.Linear, nn.ReLU, nn.Linear, nn.Tanh, nn.Dropout, nn.Linear)
    ]
    assert small.training
    assert small[4].training
    assert not shrink_nodes(model.eval()).training
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    assert small[5].weight.shape == (3, 20)


def test_a_layer_without_needed_nodes_keeps_one():
    model = plain_network()
    with torch.no_grad():
        model[2].weight.zero_()
    small = shrink_nodes(model)
    assert small[2].in_features == 1
    torch.testing.assert_close(small(INPUTS), model(INPUTS))


def test_unfit_scales_are_refused():
    with pytest.raises(UsageError, match="at least one node, but p is 0"):
        NodeScale(0, Horseshoe())
    with pytest.raises(UsageError, match=r"4 nodes on axis -1, but .* shape \(2, 5\)"):
        NodeScale(4, Horseshoe())(torch.ones(2, 5))
    with pytest.raises(UsageError, match=r"on axis 1, but .* shape \(4,\)"):
        NodeScale(4, Horseshoe(), axis=1)(torch.ones(4))


def test_unfit_penalties_are_refused():
    for n in (0, -3.0, math.nan):
        with pytest.raises(UsageError, match="map_penalty needs a positive n"):
            map_penalty(plain_network(), n)
    with pytest.raises(UsageError, match="ReLU holds no linear layer"):
        map_penalty(nn.ReLU(), 5)


def test_unfit_pruning_is_refused_and_changes_nothing():
    model = scaled_network(Horseshoe())
    with pytest.raises(UsageError, match="either fraction or threshold"):
        prune_nodes(model)
    with pytest.raises(UsageError, match="either fraction or threshold"):
        prune_nodes(model, fraction=0.1, threshold=0.1)
    for fraction in (-0.1, 1.0, math.nan):
        with pytest.raises(UsageError, match=r"fraction must lie in \[0, 1\)"):
            prune_nodes(model, fraction=fraction)
    for threshold in (-1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="threshold must be finite"):
            prune_nodes(model, threshold=threshold)
    with torch.no_grad():
        model[7].log_scales.fill_(-9)
    with pytest.raises(
        UsageError, match=r"all 20 nodes of 7 are below 0\.5; the largest is 0\.0111"
    ):
        prune_nodes(model, threshold=0.5)
    assert model[3].alive.all()
    with pytest.raises(UsageError, match="Linear has no hidden nodes"):
        prune_nodes(nn.Linear(3, 3), fraction=0.5)
    with pytest.raises(UsageError, match="1 has 2 groups"):
        prune_nodes(nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1, groups=2)), fraction=0.5)
    with pytest.raises(UsageError, match="before a matrix with 5 columns"):
        prune_nodes(nn.Sequential(nn.Linear(3, 5), NodeScale(5, Equal())), fraction=0.5)


def test_unfit_networks_are_not_shrunk():
    with pytest.raises(UsageError, match=r"needs an nn\.Sequential, but got Linear"):
        shrink_nodes(nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"whether LayerNorm \(layer 1\) acts on each node alone"):
        shrink_nodes(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    for model in (
        nn.Sequential(nn.Linear(2, 2), NodeScale(2, Horseshoe())),
        nn.Sequential(nn.Linear(2, 2), NodeScale(2, Horseshoe()), nn.ReLU(), nn.Linear(2, 2)),
    ):
        with pytest.raises(UsageError, match="layer 1 has to stand directly before a linear layer"):
            shrink_nodes(model)
