"""Freedoms of hidden units: each change leaves the function of the network as it was."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tailor.stages.units import Chain, chains, drop_dead, live_first, rescale, wide_chains


def network(seed, density=0.3):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 9, bias=False),
        nn.ReLU(),
        nn.Linear(9, 7, bias=False),
        nn.ReLU(),
        nn.Linear(7, 4),
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
            if p.ndim == 2:
                p.mul_(torch.rand(p.shape, generator=generator, dtype=torch.float64) < density)
    return model


def changed(model, weights):
    other = network(0)
    other.load_state_dict({**model.state_dict(), **weights})
    return other


def assert_same_function(model, weights):
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(changed(model, weights)(x), model(x), rtol=1e-10, atol=1e-12)


def matrices(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.ndim == 2}


@given(st.integers(0, 200), st.floats(0.05, 1))
def test_dropping_dead_units_rescaling_and_ordering_keep_the_function(seed, density):
    model = network(seed, density)
    found = chains(model)
    for change in (drop_dead, rescale, live_first):
        assert_same_function(model, change(matrices(model), found))
    together = live_first(rescale(drop_dead(matrices(model), found), found), found)
    assert_same_function(model, together)


@given(st.integers(0, 200), st.floats(0.05, 0.6))
def test_afterwards_no_unit_is_half_dead_and_live_ones_come_first(seed, density):
    found = chains(network(0))
    weights = drop_dead(matrices(network(seed, density)), found)
    for chain in found:
        rows = (weights[chain.incoming] != 0).any(dim=1)
        columns = (weights[chain.outgoing] != 0).any(dim=0)
        assert torch.equal(rows, columns)
    for chain in found:
        live = (live_first(weights, found)[chain.incoming] != 0).any(dim=1).to(torch.int8)
        assert torch.equal(live, live.sort(descending=True).values)


def test_rescaled_units_have_rms_one():
    model = network(3)
    weights = rescale(matrices(model), chains(model))
    for chain in chains(model)[:1]:
        into = weights[chain.incoming]
        for row in into:
            live = row[row != 0]
            if len(live):
                assert abs(live.square().mean().item() - 1) < 1e-12


def test_which_pairs_are_chains():
    body = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    model = nn.ModuleDict({"body": body, "head": nn.Linear(2, 2)})
    # the second pair is none: its first layer has a bias, so scaling it changes the function
    assert chains(model) == [Chain(incoming="body.0.weight", outgoing="body.2.weight")]
    tanh = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4))
    assert chains(tanh) == []


def test_containers_that_compute_something_else_are_passed_over():
    class Skip(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + self[0](x)[:, :2]

    layers = [nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)]
    assert len(chains(nn.Sequential(*layers))) == 1
    assert chains(Skip(*layers)) == []
    layers[1].register_forward_hook(lambda *_: None)
    assert chains(nn.Sequential(*layers)) == []


def convolutions():
    """Channels 1 - 3 - 4, then four columns of the head for each channel."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(16, 2),
    ).double()


def test_channels_scaled_or_in_another_order_compute_the_same():
    model, x = convolutions(), torch.rand(5, 1, 4, 4, dtype=torch.float64)
    expected = model(x).detach()
    found = wide_chains(model)
    assert [(chain.incoming, chain.outgoing) for chain in found] == [
        ("0.weight", "3.weight"),
        ("3.weight", "6.weight"),
    ]
    weights = rescale({n: w.detach().clone() for n, w in model.state_dict().items()}, found)
    model.load_state_dict(weights)
    torch.testing.assert_close(model(x), expected)
    for name in ("0.weight", "3.weight"):
        size = weights[name].flatten(1).square().mean(dim=1)
        torch.testing.assert_close(size, torch.ones_like(size))
    weights["0.weight"][0] = 0
    model.load_state_dict(weights)
    expected = model(x).detach()
    ordered = live_first(weights, found)
    assert not bool(ordered["0.weight"][2].any())
    assert bool(ordered["0.weight"][0].any())
    model.load_state_dict(ordered)
    torch.testing.assert_close(model(x), expected)


def test_dead_channels_are_emptied_through_all_layers():
    weights = {name: torch.ones_like(w) for name, w in convolutions().state_dict().items()}
    weights["6.weight"][:, 4:8] = 0  # channel 1 of the second layer goes nowhere
    weights["3.weight"][[0, 2, 3], 2] = 0  # channel 2 of the first layer reads only into it
    after = drop_dead(weights, wide_chains(convolutions()))
    assert not bool(after["3.weight"][1].any())
    assert not bool(after["0.weight"][2].any())
    assert bool(after["0.weight"][:2].all())
    assert bool(after["3.weight"][[0, 2, 3], :2].all())


def test_wide_chains_end_where_a_scale_matters():
    def between(*steps, bias=False):
        model = nn.Sequential(nn.Linear(4, 4, bias=bias), *steps, nn.Linear(4, 2))
        return len(wide_chains(model))

    assert between(nn.ReLU()) == between(nn.LeakyReLU(), nn.Dropout()) == between() == 1
    assert between(nn.GELU()) == between(nn.LayerNorm(4)) == between(nn.ReLU(), bias=True) == 0
    grouped = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, groups=2))
    assert wide_chains(grouped) == []
