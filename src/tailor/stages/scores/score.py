"""What a rule that prunes one matrix gets and gives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor

from tailor.errors import UsageError
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NofM:
    """A pattern: of each ``m`` consecutive inputs of a row exactly ``n`` stay.

    ``NofM(n=2, m=4)`` is the pattern that NVIDIA calls 2:4 (Mishra et al. 2021). It is a
    pattern only: whether anything runs faster is up to the kernels that read it.

    Attributes:
        n: Entries that stay.
        m: Length of a group; the number of inputs has to be a multiple of it.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise UsageError(f"a pattern needs 0 < n < m, but got n {self.n} and m {self.m}")

    @property
    def sparsity(self) -> float:
        """Share of the entries that go."""
        return 1 - self.n / self.m

    def check(self, inputs: int) -> None:
        """Refuse a matrix whose inputs cannot be grouped.

        Raises:
            UsageError: The number of inputs is not a multiple of ``m``.
        """
        if inputs % self.m:
            raise UsageError(
                f"the pattern {self} needs a multiple of {self.m} inputs, but the matrix has "
                f"{inputs}; leave it out"
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


class Score(ABC):
    """Chooses which entries of one matrix go, and may mend the others.

    A rule of one's own is a subclass with ``prune``; where it is only a number for each entry,
    ``Scored(function)`` does.

    Attributes:
        needs: What it has to know of the layer's inputs: nothing, their norms (``squares``), or
            their Gram matrix.
    """

    needs: ClassVar[Needs] = "nothing"

    @abstractmethod
    def prune(
        self,
        matrix: Float[Tensor, "out in"],
        drop: Drop,
        *,
        inputs: Inputs | None = None,
        pattern: NofM | None = None,
    ) -> Trimmed:
        """Drop that many entries; those that are zero already are among them.

        Args:
            matrix: Outputs by inputs; a convolution is flattened to that. Not changed.
            drop: A number of entries of the whole matrix, or one for each row.
            inputs: What the layer saw, for a score that ``needs`` it.
            pattern: Which entries may go together; ``drop`` is then left aside.

        Raises:
            UsageError: So many entries are not there, the pattern does not fit, or the inputs
                that the score needs are missing or of another size.
        """
