"""Blocks of a network, from the names of its matrices."""

import pytest
from torch import nn

from tailor.stages.allocate import blocks
from tailor.stages.allocate.blocks import block_means, in_order
from tailor.weights.source import read
from tests.stages.allocate.layers import shapes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["model.layers.3.self_attn.q_proj.weight", "model.layers.3.mlp.up_proj.weight"],
            ["model.layers.3", "model.layers.3"],
        ),
        (["layer1.0.conv1.weight", "layer1.0.conv2.weight", "conv1.weight"],
         ["layer1.0", "layer1.0", "conv1.weight"]),
        # a number under which a single matrix stands is no block
        (["blocks.3.attn.to_out.0.weight", "blocks.3.attn.to_q.weight"], ["blocks.3", "blocks.3"]),
        # ... unless there is no other one
        (["0.weight", "2.weight"], ["0", "2"]),
        # experts are blocks of their own
        (["layers.0.experts.0.up", "layers.0.experts.0.down", "layers.0.experts.1.up",
          "layers.0.experts.1.down"],
         ["layers.0.experts.0"] * 2 + ["layers.0.experts.1"] * 2),
        (["layers.1.0.q", "layers.1.0.k", "layers.10.0.q", "layers.10.0.k"],
         ["layers.1.0"] * 2 + ["layers.10.0"] * 2),
    ],
)  # fmt: skip
def test_blocks(names, expected):
    assert list(blocks(names).values()) == expected


def test_the_mean_is_that_of_matrices_not_of_weights():
    block = {"a": "0", "b": "0", "c": "1"}
    assert block_means({"a": 1.0, "b": 2.0, "c": 5.0}, block) == {"0": 1.5, "1": 5.0}


def test_the_order_is_that_of_the_modules():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "body": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    few = read(model).layers
    assert [one.name for one in few] == ["body.weight", "fc.weight", "stem.weight"]
    ordered = in_order([*shapes({"other": (2, 2)}), *few], nn.ModuleDict(model))
    assert [one.name for one in ordered] == ["stem.weight", "body.weight", "fc.weight", "other"]
    assert in_order(few, None) == list(few)
