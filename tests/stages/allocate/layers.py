"""Layers for the tests, of tensors or of a shape alone."""

import torch

from tailor.stages.scores import Magnitude
from tailor.weights.layer import Layer

SCORE = Magnitude()


def layer(name, tensor):
    """A layer that holds this tensor."""
    return Layer(
        name=name,
        key=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        load=lambda: tensor,
    )


def layers(tensors):
    return [layer(name, tensor) for name, tensor in tensors.items()]


def shapes(given):
    """Layers that nobody may load."""

    def load():
        raise AssertionError("a weight was loaded, though its shape is enough")

    return [Layer(name=n, key=n, shape=s, dtype="float32", load=load) for n, s in given.items()]


def random(seed=0, scales=(1.0, 3.0, 0.2), rows=7, columns=9):
    """A few small matrices, each with its own scale."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"blocks.{i}.w": scale * torch.randn(rows + i, columns, generator=generator)
        for i, scale in enumerate(scales)
    }


def total_dropped(found):
    return sum(map(found.dropped, found.drop))
