"""A rule of one's own, as a function."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs
from tailor.stages.scores.score import Drop, NofM, Score, Trimmed
from tailor.stages.scores.smallest import trimmed, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(Score):
    """Drops the entries for which a function of the matrix is smallest.

    Attributes:
        function: Takes a matrix (outputs by inputs, in float32 or float64) and gives a finite
            number for each entry.

    Examples:
        >>> Scored(function=lambda W: W.abs() / W.norm(dim=1, keepdim=True)).needs
        'nothing'
    """

    function: Callable[[Tensor], Tensor] = field(kw_only=False)

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
        scores: object = self.function(wide(matrix).clone())
        if not isinstance(scores, Tensor) or scores.shape != matrix.shape:
            came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UsageError(
                f"a score has to give one number for each of {tuple(matrix.shape)} entries, but "
                f"gave {came}"
            )
        if not bool(torch.isfinite(scores).all()):
            raise UsageError("a score has to be finite, but some are NaN or infinite")
        scores = scores.detach()
        exact = wide(scores) if scores.is_floating_point() else scores.to(torch.float64)
        return trimmed(matrix, exact, drop, pattern)
