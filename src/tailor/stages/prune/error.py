"""How far a pruned matrix is from what it was."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.stages.inputs import Inputs

PIECE = 2**22  # numbers that are widened at a time


def weight_error(old: Float[Tensor, "out in"], new: Float[Tensor, "out in"]) -> float:
    """||W - W'|| / ||W|| in Frobenius norm; 0 for a matrix of zeros that stayed so."""
    change = size = 0.0
    for before, after in _pieces(old, new):
        change += float((before - after).square().sum())
        size += float(before.square().sum())
    return _ratio(change, size)


def output_error(
    old: Float[Tensor, "out in"], new: Float[Tensor, "out in"], inputs: Inputs
) -> float:
    """||(W - W') X|| / ||W X||; with norms alone, as if the inputs were uncorrelated."""
    change = size = 0.0
    for before, after in _pieces(old, new):
        change += _energy(before - after, inputs)
        size += _energy(before, inputs)
    return _ratio(change, size)


def _pieces(old: Tensor, new: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of both at a time, in float64."""
    step = max(1, PIECE // max(1, old.shape[1]))
    for before, after in zip(torch.split(old, step), torch.split(new, step), strict=True):
        yield before.to(torch.float64), after.to(torch.float64)


def _energy(rows: Float[Tensor, "rows in"], inputs: Inputs) -> float:
    """The sum of squares of rows @ X."""
    if inputs.gram is None:
        return float((rows.square() @ inputs.squares.to(rows.device)).sum())
    return float(((rows @ inputs.gram.to(rows.device)) * rows).sum())


def _ratio(change: float, size: float) -> float:
    return math.sqrt(max(change, 0.0) / size) if size > 0 else 0.0
