"""Orders of hidden units: counted by brute force, and never more than are distinct."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.coding import Codebook, Grid, contextual_prior
from tailor.stages.compress import CompressedModel, pack
from tailor.stages.compress.payload import Contextual
from tailor.stages.symmetry import Hidden, hidden_units, prior_bits, steadiness, symmetry_bits


def mlp(*widths, bias=False):
    steps = []
    for into, out in itertools.pairwise(widths):
        steps += [nn.Linear(into, out, bias=bias), nn.ReLU()]
    return nn.Sequential(*steps[:-1])


def conv():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 2, bias=False),
    )


def ternary(model, seed, density=0.5):
    """A draw for every tensor, on a grid."""
    generator = np.random.default_rng(seed)
    share = [(1 - density), density / 2, density / 2]
    return {
        name: Grid(levels=generator.choice([0, 1, -1], size=tuple(tensor.shape), p=share))
        for name, tensor in model.state_dict().items()
    }


def word(grids):
    return tuple(grid.levels.tobytes() for grid in grids.values())


def moved(model, grids, orders):
    """The network with the units of each hidden layer in another order."""
    levels = {name: grid.levels for name, grid in grids.items()}
    for one, order in zip(hidden_units(model), orders, strict=True):
        for name in filter(None, (one.weight, one.bias)):
            levels[name] = levels[name][order]
        out = levels[one.outgoing]
        by_unit = out.reshape(len(out), len(order), -1)[:, order]
        levels[one.outgoing] = by_unit.reshape(out.shape)
    return {name: Grid(levels=found) for name, found in levels.items()}


def live_orders(one, grids):
    """Orders of the live units among themselves, as lists of all units."""
    into = grids[one.weight].levels
    out = grids[one.outgoing].levels
    units = len(into)
    live = [
        unit
        for unit in range(units)
        if into[unit].any() and out.reshape(len(out), units, -1)[:, unit].any()
    ]
    for order in itertools.permutations(live):
        found = np.arange(units)
        found[live] = order
        yield found


def outputs(model, grids, x):
    weights = {name: torch.tensor(grid.levels).double() for name, grid in grids.items()}
    with torch.no_grad():
        return torch.func.functional_call(model.double(), weights, (x,))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.25, 0.6]))
def test_one_hidden_layer_is_counted_exactly(seed, bias, density):
    model = mlp(2, 4, 2, bias=bias)
    grids = ternary(model, seed, density)
    (one,) = hidden_units(model)
    words = {word(moved(model, grids, [order])) for order in live_orders(one, grids)}
    assert symmetry_bits(model, grids) == pytest.approx(math.log2(len(words)), abs=3e-6)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_two_hidden_layers_are_never_counted_too_high(seed):
    model = mlp(1, 3, 3, 1)
    grids = ternary(model, seed)
    pairs = itertools.product(*(live_orders(one, grids) for one in hidden_units(model)))
    words = {word(moved(model, grids, orders)) for orders in pairs}
    assert symmetry_bits(model, grids) <= math.log2(len(words))


@pytest.mark.parametrize(
    ("model", "x"),
    [(mlp(3, 4, 3, 2, bias=True), torch.ones(2, 3)), (conv(), torch.ones(2, 1, 4, 4))],
)
def test_all_counted_networks_are_one_function_of_one_length(model, x):
    x = x.double() * torch.arange(1, 1 + x[0].numel()).reshape(x[0].shape).double()
    grids = ternary(model, 1, 0.6)
    assert symmetry_bits(model, grids) > 3
    length = contextual_prior([*grids.values()], [*steadiness(model, grids).values()])
    expected = outputs(model, grids, x)
    generator = np.random.default_rng(2)
    orders = [list(live_orders(one, grids)) for one in hidden_units(model)]
    for _ in range(1):
        other = moved(model, grids, [one[generator.integers(len(one))] for one in orders])
        torch.testing.assert_close(outputs(model, other, x), expected)
        bits = contextual_prior([*other.values()], [*steadiness(model, other).values()])
        assert bits == pytest.approx(length, abs=3e-6)


def test_dead_and_equal_units_do_not_count():
    """500 units of which 232 are dead: not log2 500! bits but log2 268!, 1,968 less."""
    model = mlp(20, 500, 10)
    generator = np.random.default_rng(0)
    into = np.arange(1, 501)[:, None] >> np.arange(20) & 1  # all different
    out = generator.integers(0, 2, (10, 500)) | 1
    out[:, :232] = 0
    grids = {"0.weight": Grid(levels=into), "2.weight": Grid(levels=out)}
    told = math.lgamma(269) / math.log(2)
    assert symmetry_bits(model, grids) == pytest.approx(told, abs=3e-6)
    grids["0.weight"] = Grid(levels=np.ones((500, 20), dtype=int))
    grids["2.weight"] = Grid(levels=np.ones((10, 500), dtype=int))
    assert symmetry_bits(model, grids) == 0.0


def test_kraft_over_functions():
    """Binary networks with two units, one input and one output; each function is paid once."""
    model, together = mlp(1, 2, 1), 0.0
    seen = set()
    for levels in itertools.product((0, -1), repeat=4):
        grids = {
            "0.weight": Grid(levels=np.array(levels[:2]).reshape(2, 1)),
            "2.weight": Grid(levels=np.array(levels[2:]).reshape(1, 2)),
        }
        canonical = min(word(grids), word(moved(model, grids, [np.array([1, 0])])))
        if canonical not in seen:
            seen.add(canonical)
            together += 2.0 ** -prior_bits(model, grids)
    assert together <= 1


def test_orders_shorten_what_is_paid():
    model = mlp(8, 8, 4)
    grids = ternary(model, 3)
    free = contextual_prior([*grids.values()])
    assert symmetry_bits(model, grids) > 10
    assert free - math.log2(math.factorial(8)) <= prior_bits(model, grids) < free - 10


def tied():
    model = mlp(4, 4, 4, 2)
    model[2].weight = model[0].weight
    return model


def hooked():
    model = mlp(4, 4, 2)
    model[1].register_forward_hook(lambda *_: None)
    return model


class Odd(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + x[:, :1]


@pytest.mark.parametrize(
    "model",
    [
        hooked(),
        tied(),
        Odd(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=1), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(1), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Linear(4, 2)),
        nn.Linear(4, 4),
    ],
)
def test_where_units_may_not_be_alike_none_are_found(model):
    assert [one for one in hidden_units(model) if one.weight == "0.weight"] == []


def test_channels_and_biases_are_found():
    assert hidden_units(conv()) == [
        Hidden(weight="0.0.weight", bias=None, outgoing="1.weight"),
        Hidden(weight="1.weight", bias="1.bias", outgoing="4.weight"),
    ]


def test_codebooks_are_refused():
    book = Codebook(codes=np.zeros((2, 2), dtype=int), values=np.ones(1, dtype=np.float32))
    with pytest.raises(UsageError, match="no codebooks"):
        prior_bits(mlp(2, 2), {"0.weight": book})


def test_the_file_of_version_3_holds_the_network():
    model = mlp(5, 4, 3, bias=True)
    grids = ternary(model, 4)
    model.load_state_dict({name: torch.tensor(grid.levels) for name, grid in grids.items()})
    small = pack(model, grids, coder=Contextual())
    assert small.payload[7] == 3
    assert CompressedModel(payload=small.payload).coder == Contextual()
    back = small.into(lambda: mlp(5, 4, 3, bias=True)).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor)
    assert prior_bits(model, small.coded()) < 8 * len(small.stream)
    book = Codebook(codes=np.zeros((3, 4), dtype=int), values=np.ones(1, dtype=np.float32))
    with pytest.raises(UsageError, match="Contextual codes uniform grids"):
        pack(mlp(4, 3), {"0.weight": book}, coder=Contextual())
