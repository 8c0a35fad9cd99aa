"""Heads of attention are really removed, where the module is known to allow it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tailor.errors import UsageError
from tailor.stages.shrink import load_shrunk, save_shrunk, shrink
from tests.stages.shrink.networks import assert_close, draw, randomized


class Attention(nn.Module):
    """Grouped-query attention with the names that Llama gives."""

    def __init__(self, heads=6, groups=3, size=4, width=10, bias=True):
        super().__init__()
        self.head_dim, self.num_heads, self.num_key_value_heads = size, heads, groups
        self.q_proj = nn.Linear(width, heads * size, bias=bias)
        self.k_proj = nn.Linear(width, groups * size, bias=bias)
        self.v_proj = nn.Linear(width, groups * size, bias=bias)
        self.o_proj = nn.Linear(heads * size, width, bias=bias)

    def forward(self, x):
        q, k, v = (
            part(x).unflatten(-1, (count, self.head_dim)).transpose(1, 2)
            for part, count in (
                (self.q_proj, self.num_heads),
                (self.k_proj, self.num_key_value_heads),
                (self.v_proj, self.num_key_value_heads),
            )
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return x + self.o_proj(mixed.transpose(1, 2).flatten(2))


def model_of(**options):
    return randomized(nn.Sequential(Attention(**options), nn.Linear(10, 10), Attention(**options)))


def silenced(model, path, groups, size):
    other = copy.deepcopy(model)
    weight = other.get_submodule(path).weight
    with torch.no_grad():
        for group in groups:
            weight[:, group * size : (group + 1) * size] = 0
    return other


@pytest.mark.parametrize("bias", [True, False])
def test_groups_of_heads_go_with_their_keys_and_values(bias):
    model, x = model_of(bias=bias), draw(2, 5, 10)
    found = shrink(model, {"0": [0, 2], "2": 1}, x)
    small = found.model
    assert [(one.name, one.before, one.after) for one in found.removed] == [
        ("0", 3, 2),
        ("2", 3, 1),
    ]
    assert (small[0].num_heads, small[0].num_key_value_heads) == (4, 2)
    assert small[0].q_proj.weight.shape == (16, 10)
    assert small[2].o_proj.weight.shape == (10, 8)
    gone = [group for group in range(3) if group not in found.removed[1].kept]
    expected = silenced(silenced(model, "0.o_proj", [1], 8), "2.o_proj", gone, 8)
    other = draw(3, 7, 10, seed=8)
    assert_close(small(other), expected(other))
    each = (8 + 4 + 4) * (10 + bias) + 8 * 10
    assert found.parameters_before - found.parameters_after == 3 * each


def test_dead_heads_go_without_effect():
    model, x = model_of(), draw(2, 5, 10)
    with torch.no_grad():
        model[0].v_proj.weight[4:8] = 0
        model[0].v_proj.bias[4:8] = 0
        model[2].o_proj.weight[:, 16:] = 0
        model[2].v_proj.weight[:4] = 0  # only constant, which is not told
    expected = model(x)
    found = shrink(model, 0.0, x)
    assert [one.kept for one in found.removed] == [(0, 2), (0, 1)]
    assert_close(found.model(x), expected)


def test_scores_of_heads_do_not_depend_on_what_only_directs_them():
    model, x = model_of(), draw(2, 5, 10)
    before = shrink(model, 0.5, x).removed
    with torch.no_grad():
        model[0].q_proj.weight[:8] *= 1e3
        model[0].k_proj.weight[4:8] *= 1e3
    assert shrink(model, 0.5, x).removed == before


class Fixed(Attention):
    """Knows its width by heart."""

    def forward(self, x):
        v = self.v_proj(x)
        return self.o_proj(v.view(*x.shape[:2], 24))


class Odd(nn.Module):
    """Bears the names, but is something else."""

    def __init__(self):
        super().__init__()
        self.head_dim = 4
        self.q_proj, self.k_proj = nn.Linear(10, 20), nn.Linear(10, 12)
        self.v_proj, self.o_proj = nn.Linear(10, 12), nn.Linear(20, 10)

    def forward(self, x):
        return self.o_proj(self.q_proj(x))


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (Attention(groups=1), "it has one group of heads only"),
        (Fixed(groups=6), "its forward depends on the number of heads in a way that is not known"),
        (Odd(), "the sizes of its projections are no multiples of head_dim"),
    ],
)
def test_attention_that_cannot_lose_a_head_stays(attention, reason):
    tail = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2))
    found = shrink(nn.Sequential(attention, tail), 0.5, draw(2, 3, 10))
    assert [one.name for one in found.removed] == ["1.0"]
    said = {one.name: one.reason for one in found.left_alone}
    assert said["0.v_proj"] == said["0.o_proj"] == f"of the heads of 0: {reason}"


def test_tied_projections_keep_their_heads():
    model = model_of()
    model[2].k_proj.weight = model[0].k_proj.weight
    with pytest.raises(UsageError, match="k_proj: its weights are tied with those of another"):
        shrink(model, 0.5, draw(2, 5, 10))


def test_a_smaller_attention_is_saved_with_its_counts(tmp_path):
    model, x = model_of(), draw(2, 5, 10)
    small = shrink(model, {"0": 1, "2": 2}, x).model
    again = load_shrunk(save_shrunk(small, tmp_path / "heads.safetensors"), model_of).eval()
    assert (again[0].num_heads, again[0].num_key_value_heads) == (2, 1)
    assert torch.equal(again(x), small(x))
