"""How far a pruned matrix is from what it was."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.stages.inputs import Inputs
from tailor.stages.inputs.vectors import exact

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
    home = exact(old[:0]).device
    known = (inputs.squares if inputs.gram is None else inputs.gram).to(home)
    for before, after in _pieces(old, new):
        change += _energy(before - after, known)
        size += _energy(before, known)
    return _ratio(change, size)


def _pieces(old: Tensor, new: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of both at a time, in float64."""
    step = max(1, PIECE // max(1, old.shape[1]))
    for before, after in zip(torch.split(old, step), torch.split(new, step), strict=True):
        yield exact(before), exact(after)


def _energy(rows: Float[Tensor, "rows in"], known: Float[Tensor, "..."]) -> float:
    """The sum of squares of rows @ X, from its Gram matrix or its squared norms."""
    return float((rows.square() @ known if known.ndim == 1 else (rows @ known) * rows).sum())


def _ratio(change: float, size: float) -> float:
    return math.sqrt(max(change, 0.0) / size) if size > 0 else 0.0
