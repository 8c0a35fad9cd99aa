"""Which matrices make up one block of a network, told from their names."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


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


def _numbered(name: str) -> list[str]:
    """All paths above the name that end in a number, short ones first."""
    steps = name.split(".")
    return [".".join(steps[: i + 1]) for i, step in enumerate(steps) if step.isdecimal()]
