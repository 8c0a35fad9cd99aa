"""The largest entries stay."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tailor.stages.inputs import Inputs
from tailor.stages.scores.score import Drop, NofM, Score, Trimmed
from tailor.stages.scores.smallest import trimmed, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Score):
    """Drops the entries of smallest absolute value (Han et al. 2015).

    Entries are compared with all others of the matrix, or with those of their row where a number
    for each row is asked for. Of equal ones the first goes.
    """

    def prune(
        self,
        matrix: Float[Tensor, "out in"],
        drop: Drop,
        *,
        inputs: Inputs | None = None,
        pattern: NofM | None = None,
    ) -> Trimmed:
        """See ``Score.prune``."""
        matrix = matrix.detach()
        return trimmed(matrix, wide(matrix).abs(), drop, pattern)
