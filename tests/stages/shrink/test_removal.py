"""Units that are removed are gone, and nothing else changes."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import NonFinite, UsageError
from tailor.numerics.nodes import Horseshoe
from tailor.stages.nodes import NodeScale
from tailor.stages.scores import Magnitude
from tailor.stages.shrink import ColumnNorm, PathScore, RowNorm, shrink
from tests.stages.shrink.networks import (
    NETWORKS,
    Gated,
    Residual,
    Separable,
    assert_close,
    conv,
    draw,
    mlp,
    network,
    parameters,
    randomized,
    silence,
)

RULES = [PathScore(), ColumnNorm(), RowNorm()]


@pytest.mark.parametrize(("name", "rule"), [*zip(NETWORKS, RULES * 4, strict=False)])
def test_the_network_computes_what_it_did_with_the_units_silenced(name, rule):
    model, x, readers = network(name)
    before = copy.deepcopy(model.state_dict())
    found = shrink(model, 0.4, x, importance=rule)
    assert {one.name for one in found.removed} == set(readers.values())
    for one in found.removed:
        assert one.after == len(one.kept) == one.before - round(0.4 * one.before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    silence(model, readers, found.removed)
    other = draw(*x.shape, seed=9)
    assert_close(found.model(other), model(other))
    assert not torch.allclose(found.model(other), model(x))
    assert found.parameters_after == parameters(found.model) < found.parameters_before


@settings(max_examples=6)
@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 50), st.floats(0, 0.99))
def test_units_without_effect_are_removed_without_any(name, seed, share):
    """Rows of the makers are zeroed as pruning would; biases make constants of these units."""
    model, x, readers = network(name, seed)
    source = torch.Generator().manual_seed(seed)
    dead = {}
    for chain in set(readers.values()):
        gone = torch.rand(len(model.get_submodule(chain).weight), generator=source) < share
        dead[chain] = int(gone.sum())
        for path in [chain, "up"] if chain == "gate" else [chain]:
            with torch.no_grad():
                model.get_submodule(path).weight[gone] = 0
    expected = model(x)
    found = shrink(model, 0.0, x)
    assert_close(found.model(x), expected)
    if name in ("residual", "separable"):  # these constants meet a border of zeros, or a gate
        return
    for one in found.removed:
        assert one.after <= max(1, one.before - dead[one.name])


def test_parameters_fall_as_the_formula_says():
    model, x, _ = network("mlp")
    found = shrink(model, {"0": 5}, x)
    assert found.parameters_before - found.parameters_after == (7 + 1 + 10) * (12 - 5)
    model, x, _ = network("gated")
    found = shrink(model, {"up": [0, 3, 4]}, x)
    assert found.parameters_before - found.parameters_after == 3 * 6 * (11 - 3)
    assert found.removed[0].kept == (0, 3, 4)
    model, x, _ = network("conv without bias")
    found = shrink(model, {"0": 5, "4": 2, "9": 10}, x)
    gone = 3 * (3 * 9 + 2 + 6 * 9) + 4 * (8 * 9 + 2 + 4 * 10) - 3 * 4 * 9
    assert found.parameters_before - found.parameters_after == gone
    assert [(one.before, one.after) for one in found.removed] == [(8, 5), (6, 2), (10, 10)]


def test_attributes_types_and_modes_are_those_of_the_new_sizes():
    model = conv().double().train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    found = shrink(model, 0.5, draw(2, 3, 12, 12, dtype=torch.float64)).model
    assert (found[0].out_channels, found[4].in_channels, found[4].out_channels) == (4, 4, 3)
    assert (found[1].num_features, found[9].in_features, found[9].out_features) == (4, 12, 5)
    assert not found[0].weight.requires_grad
    assert found[0].bias.requires_grad
    assert {p.dtype for p in found.parameters()} == {torch.float64}
    assert [part.training for part in found] == [part.training for part in model]
    assert found.training
    assert all(part.is_contiguous() for part in found.parameters())
    for old, new in zip(model.parameters(), found.parameters(), strict=True):
        assert old.data_ptr() != new.data_ptr()


def test_what_a_gate_reads_is_silenced_with_the_units():
    """Squeeze and excitation reads all channels, so it has to lose them, too."""
    model, x = randomized(Separable()), draw(2, 3, 5, 5)
    found = shrink(model, {"expand": [1, 2, 7], "squeeze": [3]}, x)
    small = found.model
    assert (small.depth.groups, small.act.num_parameters, small.excite.out_channels) == (3, 3, 3)
    assert {one.name: one.kept for one in found.removed} == {"expand": (1, 2, 7), "squeeze": (3,)}
    with torch.no_grad():
        gone = [unit for unit in range(10) if unit not in (1, 2, 7)]
        for path in ("squeeze", "project"):
            model.get_submodule(path).weight[:, gone] = 0
        model.excite.weight[:, :3] = 0
    assert_close(small(x), model(x))


def test_a_dead_unit_lets_others_die():
    """Backwards: nothing reads them any more. Forwards: they get constants only."""
    model, x, _ = network("mlp")
    with torch.no_grad():
        model[5].weight[:, :6] = 0  # six of ten units are not read,
        model[3].weight[6:, 4:] = 0  # and only they read eight of twelve
    expected = model(x)
    found = shrink(model, 0.0, x)
    assert [(one.before, one.after) for one in found.removed] == [(12, 4), (10, 4)]
    assert_close(found.model(x), expected)
    model, x, _ = network("mlp")
    with torch.no_grad():
        model[0].weight[4:] = 0  # eight units are constant,
        model[3].weight[5:, :4] = 0  # and five of ten read only these
    expected = model(x)
    found = shrink(model, 0.0, x)
    assert [(one.before, one.after) for one in found.removed] == [(12, 4), (10, 5)]
    assert_close(found.model(x), expected)


def test_zeros_of_unstructured_pruning_make_units_go():
    model, x, _ = network("mlp")
    with torch.no_grad():
        for at in (0, 3):
            matrix = model[at].weight
            matrix[::2] *= 1e-3
            matrix.copy_(Magnitude().prune(matrix, matrix.numel() // 2).matrix)
            model[at].bias.zero_()
    found = shrink(model, 0.0, x)
    assert [(one.before, one.after) for one in found.removed] == [(12, 6), (10, 5)]
    assert_close(found.model(x), model(x))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_constant_channel_goes_only_where_the_border_allows(mode):
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.Sigmoid(), nn.Conv2d(5, 3, 3, padding=1, padding_mode=mode)
    )
    model, x = randomized(model), draw(2, 2, 6, 6)
    with torch.no_grad():
        model[0].weight[1:3] = 0
    found = shrink(model, 0.0, x)
    assert found.removed[0].after == (5 if mode == "zeros" else 3)
    assert_close(found.model(x), model(x))


def test_padding_of_mean_pooling_mixes_zeros_into_a_constant():
    for padding, after in ((1, 5), (0, 3)):
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.Sigmoid(), nn.AvgPool2d(2, padding=padding), nn.Conv2d(5, 3, 1)
        )
        model, x = randomized(model), draw(2, 2, 6, 6)
        with torch.no_grad():
            model[0].weight[1:3] = 0
        found = shrink(model, 0.0, x)
        assert found.removed[0].after == after
        assert_close(found.model(x), model(x))


def test_a_reader_without_bias_gets_one_for_a_constant():
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 3, bias=False))
    model, x = randomized(model), draw(5, 4)
    with torch.no_grad():
        model[0].weight[:2] = 0
    found = shrink(model, 0.0, x)
    assert_close(found.model[2].bias, model[2].weight[:, :2].sum(dim=1) / 2)  # sigmoid(0)
    assert_close(found.model(x), model(x))
    assert shrink(model, {"0": [0, 1, 2]}, x).model[2].bias is None  # no constant unit goes


def test_channels_that_batch_norm_silences_go():
    model, x, _ = network("conv")
    with torch.no_grad():
        model[1].weight[:3] = 0
        model[1].bias[:3] = -1  # ReLU makes zeros of that
        model[5].weight[1] = 0  # a constant, which GELU and pooling keep
    found = shrink(model, 0.0, x)
    assert [one.after for one in found.removed] == [5, 5, 10]
    assert_close(found.model(x), model(x))


def test_a_gated_unit_is_silent_if_one_factor_is():
    model, x, _ = network("gated with bias")
    with torch.no_grad():
        model.gate.weight[0], model.gate.bias[0] = 0, 0
        model.up.weight[1], model.up.bias[1] = 0, 0
        model.gate.weight[2] = 0  # constant, so the unit is up times it
        model.up.weight[3], model.gate.weight[3] = 0, 0  # both constant
    found = shrink(model, 0.0, x)
    assert found.removed[0].kept == (2, *range(4, 11))
    assert_close(found.model(x), model(x))


def test_silent_node_scales_go():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), NodeScale(6, Horseshoe()), nn.Linear(6, 2))
    model, x = randomized(model), draw(5, 4)
    model[2].alive[1:4] = False
    found = shrink(model, 0.0, x)
    assert found.removed[0].kept == (0, 4, 5)
    assert (found.model[2].p, len(found.model[2].alive)) == (3, 3)
    assert_close(found.model(x), model(x))


def test_free_units_go_before_those_that_matter():
    model, x, _ = network("mlp")
    with torch.no_grad():
        model[0].weight[7] = 0  # constant: without effect, however large what it adds
        model[0].bias[7] = 100
    found = shrink(model, {"0": 11}, x, importance=ColumnNorm())
    assert 7 not in found.removed[0].kept
    assert_close(found.model(x), model(x))


def test_a_unit_stays_whatever_the_ratio():
    model, x, _ = network("mlp")
    found = shrink(model, 0.99, x)
    assert [one.after for one in found.removed] == [1, 1]
    with torch.no_grad():
        model[5].weight.zero_()
    found = shrink(model, 0.0, x)
    assert [one.after for one in found.removed] == [12, 1]
    assert_close(found.model(x), model(x))


@pytest.mark.parametrize(("ratio", "after"), [(0.1, (12, 10)), (0.4, (8, 8)), (0.9, (4, 4))])
def test_widths_can_be_multiples_of_a_number(ratio, after):
    model, x, _ = network("mlp")
    found = shrink(model, ratio, x, align=4)
    assert tuple(one.after for one in found.removed) == after


def test_patterns_choose_chains():
    model, x, _ = network("conv")
    changed = {
        one.name: one.after < one.before
        for one in shrink(model, 0.5, x, layers=["0", "4"], skip="4").removed
    }
    assert changed == {"0": True}
    model, x, _ = network("gated")
    assert shrink(model, 0.5, x, layers="up").removed[0].name == "gate"


def test_arguments_come_by_position_or_name():
    model, x = randomized(Gated()), draw(3, 6)
    mask = torch.tensor([[1.0], [0.0], [1.0]])
    for given_input in ((x, mask), {"x": x, "mask": mask}):
        found = shrink(model, 0.5, given_input)
        readers = {"down": "gate"}
        other = copy.deepcopy(model)
        silence(other, readers, found.removed)
        assert_close(found.model(x, mask), other(x, mask))
    wide = torch.ones(11)  # as wide as the units: it would have to shrink, too
    with pytest.raises(UsageError, match="mul joins its units with others"):
        shrink(model, 0.5, (x, wide))


def test_half_precision_and_gradients():
    model = mlp().to(torch.bfloat16)
    x = draw(4, 7).to(torch.bfloat16)
    found = shrink(model, 0.5, x)
    assert {p.dtype for p in found.model.parameters()} == {torch.bfloat16}
    found.model(x).sum().backward()
    assert all(p.grad is not None for p in found.model.parameters())


def test_shrinking_twice_is_possible():
    model, x, _ = network("conv")
    once = shrink(model, 0.3, x).model
    twice = shrink(once, 0.3, x)
    assert [one.after for one in twice.removed] == [4, 3, 5]
    twice.model(x)


def test_global_random_numbers_and_hooks_stay():
    model, x, _ = network("conv")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = torch.get_rng_state()
    found = shrink(model, 0.5, x, data=[x])
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found.model._forward_hooks) == 1
    assert not any(part._forward_pre_hooks for part in found.model.modules())


def test_inner_channels_of_residual_networks_only():
    model, x = randomized(Residual()), draw(2, 3, 6, 6)
    found = shrink(model, 0.5, x)
    said = {one.name: one.reason for one in found.left_alone}
    joined = "add joins its units with others, as in a residual network"
    assert said == {"stem": joined, "conv2.0": joined, "conv2.1": joined, "head": said["head"]}
    assert said["head"] == "its units are the outputs"


@pytest.mark.parametrize(
    ("ratio", "options", "message"),
    [
        (1.0, {}, r"ratio must lie in \[0, 1\), but is 1\.0"),
        (-0.1, {}, r"ratio must lie in \[0, 1\)"),
        (math.nan, {}, r"ratio must lie in \[0, 1\), but is nan"),
        (True, {}, "ratio must be a number or a mapping, but is True"),
        (0.5, {"align": 0}, "align must be a whole number from 1 up, but is 0"),
        (0.5, {"compensate": "mean"}, "compensate='mean' needs data"),
        (0.5, {"data": []}, "data is empty"),
        (0.5, {"layers": "9"}, r"no chain fits layers='9' and skip=\(\); there are 0, 3"),
        ({"9": 3}, {}, "there is no chain 9; there are 0, 3"),
        ({"0": 0}, {}, "0 has 12 units, so it cannot keep 0 of them"),
        ({"0": 13}, {}, "0 has 12 units, so it cannot keep 13"),
        ({"0": True}, {}, "0 needs the number of units to keep or their indices, but got True"),
        ({"0": [1, 1]}, {}, "different indices from 0 to 11"),
        ({"0": []}, {}, "and at least one, but are"),
    ],
)
def test_bad_arguments_are_refused(ratio, options, message):
    model, x, _ = network("mlp")
    with pytest.raises(UsageError, match=message):
        shrink(model, ratio, x, **options)


def test_bad_models_and_inputs_are_refused():
    model, x, _ = network("mlp")
    with pytest.raises(UsageError, match="needs an example input to follow, but got a int"):
        shrink(model, 0.5, 3)
    with pytest.raises(UsageError, match="Sequential cannot be run on example_input: mat1"):
        shrink(model, 0.5, draw(2, 3))
    with pytest.raises(UsageError, match=r"no units that it can remove \(it: its units are the"):
        shrink(nn.Linear(3, 3), 0.5, draw(2, 3))
    with pytest.raises(UsageError, match=r"no units that it can remove \(it has no matrices\)"):
        shrink(nn.ReLU(), 0.5, draw(2, 3))
    with torch.no_grad():
        model[3].weight[0, 0] = math.inf
    with pytest.raises(NonFinite, match=r"3\.weight holds 1 NaN or infinite"):
        shrink(model, 0.5, x)


class Baked(nn.Module):
    """Reads the width as a number, which no graph shows."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x))) * self.fc1.out_features


def test_what_the_graph_does_not_show_is_found_on_the_example():
    with pytest.raises(UsageError, match="computes something else on the example: its forward"):
        shrink(randomized(Baked()), 0.5, draw(4, 3))
