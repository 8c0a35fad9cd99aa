"""Layers as values, and the view of tensors as matrices."""

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor import Flattened, Layer, Other, View, Weights

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """Every element is another number, so that a test sees where each one went."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def layer(**changes: object) -> Layer:
    tensor = numbered((2, 3))
    whole = Layer(name="w", key="module.w", shape=(2, 3), dtype="float32", load=tensor.clone)
    return replace(whole, **changes)


@given(SHAPES)
def test_join_inverts_split(shape):
    tensor, view = numbered(shape), Flattened()
    assert torch.equal(view.join(view.split(tensor), shape), tensor)


@given(SHAPES)
def test_a_flattened_tensor_has_one_row_for_each_output(shape):
    tensor = numbered(shape)
    (matrix,) = Flattened().split(tensor)
    assert matrix.ndim == 2
    for row, output in zip(matrix, tensor, strict=True):
        assert row.tolist() == output.flatten().tolist()


def test_splitting_does_not_copy_nor_detach():
    tensor = numbered((2, 3, 4)).requires_grad_()
    (matrix,) = Flattened().split(tensor)
    matrix.square().sum().backward()
    assert torch.equal(tensor.grad, 2 * tensor.detach())
    assert matrix.data_ptr() == tensor.data_ptr()


def test_a_view_must_say_both_ways():
    class Half(View):
        def split(self, tensor):
            return [tensor]

    with pytest.raises(TypeError, match=r"abstract method '?join"):
        Half()


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
