"""Entries that act on large inputs stay."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs
from tailor.stages.scores.score import Drop, Needs, NofM, Score, Trimmed
from tailor.stages.scores.smallest import shares, trimmed, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(Score):
    """Drops the entries of smallest |W_ij| x ||X_j|| (Sun et al. 2024, equation 1).

    X_j holds all values of input j. Entries are compared within their row, where the score
    measures what each does to one output (section 3); the number asked for is shared among the
    rows exactly, and the first rows lose one more where it does not divide.

    Attributes:
        compared: "row", or "layer" for all entries of the matrix together, which the authors use
            for networks of images.
    """

    needs: ClassVar[Needs] = "norms"
    compared: Literal["row", "layer"] = "row"

    def __post_init__(self) -> None:
        check(self.compared)

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
        norms = _norms(inputs, matrix.shape[1])
        if isinstance(drop, int) and self.compared == "row":
            drop = _by_row(drop, matrix.shape)
        values = wide(matrix)
        norms = norms.to(values.dtype).to(values.device)  # a device may lack doubles
        return trimmed(matrix, values.abs() * norms, drop, pattern)


def _norms(inputs: Inputs | None, columns: int) -> Float[Tensor, "in"]:
    """Norms of the inputs in units of the largest, so that no type overflows."""
    if inputs is None:
        raise UsageError("Wanda needs the norms of the layer's inputs; collect them on data first")
    if len(inputs.squares) != columns:
        raise UsageError(
            f"the matrix has {columns} inputs, but those collected are {len(inputs.squares)}; "
            "give the inputs of this layer"
        )
    norms = inputs.squares.sqrt()
    largest = float(norms.max())
    return norms / largest if largest > 0 else norms


def _by_row(drop: int, shape: torch.Size) -> list[int]:
    found: list[int] = shares(drop, torch.full((shape[0],), shape[1])).tolist()
    return found


def check(compared: str) -> None:
    """Refuse a way to compare that is none.

    Raises:
        UsageError: It is none.
    """
    if compared not in ("row", "layer"):
        raise UsageError(f'compared has to be "row" or "layer", but is {compared!r}')
