"""The largest entries stay."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tailor.stages.inputs import Inputs
from tailor.stages.scores.score import Drop, Score, Trimmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Score):
    """Drops the entries of smallest absolute value (Han et al. 2015).

    Entries are compared with all others of the matrix, or with those of their row where a number
    for each row is asked for. Of equal ones the first goes.
    """

    def prune(
        self, matrix: Float[Tensor, "out in"], drop: Drop, *, inputs: Inputs | None = None
    ) -> Trimmed:
        """See ``Score.prune``."""
        keep = smallest_dropped(matrix.detach().abs(), drop)
        return Trimmed(matrix=matrix.detach() * keep, keep=keep)


def smallest_dropped(scores: Float[Tensor, "out in"], drop: Drop) -> Bool[Tensor, "out in"]:
    """Which entries stay when exactly so many of the smallest scores go; of equal ones the first."""
    if not isinstance(drop, int):
        rows = [smallest_dropped(row[None], n)[0] for row, n in zip(scores, drop, strict=True)]
        return torch.stack(rows)
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[scores.flatten().argsort(stable=True)[:drop]] = False
    return keep.reshape(scores.shape)
