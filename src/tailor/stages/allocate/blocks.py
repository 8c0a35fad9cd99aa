"""Which matrices make up one block of a network, and in which order they stand."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from tailor.weights.layer import Layer
from tailor.weights.source import read


def blocks(names: Sequence[str]) -> dict[str, str]:
    """The block of each matrix: its path up to the number of the block.

    ``model.layers.3.self_attn.q_proj.weight`` is in ``model.layers.3``. Of several numbers in a
    path the last counts under which more than one matrix stands, so that
    ``blocks.3.attn.to_out.0.weight`` is in ``blocks.3``; if there is none, the last one. A name
    without a number is a block of its own.
    """
    paths = {name: _numbered(name) for name in names}
    members = Counter(path for found in paths.values() for path in found)
    chosen = {}
    for name, found in paths.items():
        shared = [path for path in found if members[path] > 1]
        chosen[name] = (shared or found or [name])[-1]
    return chosen


def block_means(values: Mapping[str, float], block: Mapping[str, str]) -> dict[str, float]:
    """The plain mean of the matrices of each block, large or small."""
    gathered: dict[str, list[float]] = {}
    for name, value in values.items():
        gathered.setdefault(block[name], []).append(value)
    return {one: float(np.mean(found)) for one, found in gathered.items()}


def in_order(layers: Sequence[Layer], model: nn.Module | None) -> list[Layer]:
    """The matrices in the order of the model's modules; without a model, as they come.

    Names in alphabetical order, as files and ``read`` have them, put ``fc`` before ``layer1``.
    """
    if model is None:
        return list(layers)
    every = model.named_parameters(remove_duplicate=False)
    place = {id(parameter): i for i, (_, parameter) in enumerate(every)}
    at = {one.name: place.get(id(one.load()), len(place)) for one in read(model).layers}
    return sorted(layers, key=lambda one: at.get(one.name, len(place)))


def _numbered(name: str) -> list[str]:
    """All paths above the name that end in a number, short ones first."""
    steps = name.split(".")
    return [".".join(steps[: i + 1]) for i, step in enumerate(steps) if step.isdecimal()]
