"""What a rule that prunes one matrix gets and gives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor

from tailor.stages.inputs import Inputs

Drop: TypeAlias = int | Sequence[int]
Needs: TypeAlias = Literal["nothing", "norms", "gram"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trimmed:
    """A matrix after pruning.

    Attributes:
        matrix: Its new values, in the type that came; what was dropped is zero.
        keep: Which entries stay.
    """

    matrix: Float[Tensor, "out in"]
    keep: Bool[Tensor, "out in"]


class Score(ABC):
    """Chooses which entries of one matrix go, and may mend the others.

    Attributes:
        needs: What it has to know of the layer's inputs: nothing, their norms (``squares``), or
            their Gram matrix.
    """

    needs: ClassVar[Needs] = "nothing"

    @abstractmethod
    def prune(
        self, matrix: Float[Tensor, "out in"], drop: Drop, *, inputs: Inputs | None = None
    ) -> Trimmed:
        """Drop that many entries; those that are zero already are among them.

        Args:
            matrix: Outputs by inputs; a convolution is flattened to that. Not changed.
            drop: A number of entries of the whole matrix, or one for each row.
            inputs: What the layer saw, for a score that ``needs`` it.
        """
