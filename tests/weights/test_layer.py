"""Layers, others and weights as values."""

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from tailor.weights.layer import Layer, Other, Weights


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """Every element is another number, so that a test sees where each one went."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def layer(**changes: object) -> Layer:
    tensor = numbered((2, 3))
    whole = Layer(name="w", key="module.w", shape=(2, 3), dtype="float32", load=tensor.clone)
    return replace(whole, **changes)


def test_equality_and_text_leave_the_loader_out():
    # A loader is a function; two reads of one file must still give equal layers.
    assert layer() == layer(load=torch.rand)
    assert layer() != layer(key="w")
    assert "load" not in repr(layer())
    other = Other(name="b", shape=(3,), dtype="float32", reason="vector", load=torch.rand)
    assert other == replace(other, load=torch.empty)
    assert "load" not in repr(other)


def test_nothing_can_be_changed():
    weights = Weights(source="here", layers=(layer(),), others=())
    with pytest.raises(FrozenInstanceError, match="name"):
        layer().name = "v"
    with pytest.raises(FrozenInstanceError, match="layers"):
        weights.layers = ()


def test_a_layer_travels_to_another_process():
    there = pickle.loads(pickle.dumps(layer()))  # noqa: S301 - our own bytes
    assert there == layer()
    assert torch.equal(there.load(), numbered((2, 3)))
