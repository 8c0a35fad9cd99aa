"""How many entries each matrix loses: what an allocation gets and gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from tailor.stages.inputs import Inputs
from tailor.stages.scores import Needs, Score
from tailor.weights.layer import Layer

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocated:
    """How many entries each matrix loses.

    Attributes:
        method: The allocation, as text.
        drop: For each matrix by name, a number of entries, or one for each of its rows.
        sizes: Entries of each matrix by name.
        metric: What the allocation looked at, by name of the matrix; empty if nothing.
        note: What a user has to know, such as why it fell back to uniform; empty if nothing.
    """

    method: str
    drop: dict[str, int | tuple[int, ...]]
    sizes: dict[str, int]
    metric: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def dropped(self, name: str) -> int:
        """Entries that one matrix loses."""
        drop = self.drop[name]
        return drop if isinstance(drop, int) else sum(drop)

    def ratio(self, name: str) -> float:
        """Share of its entries that one matrix loses."""
        return self.dropped(name) / self.sizes[name] if self.sizes[name] else 0.0

    @property
    def sparsity(self) -> float:
        """Share of all entries that go."""
        total = sum(self.sizes.values())
        return sum(map(self.dropped, self.drop)) / total if total else 0.0

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each matrix: ``name``, ``size``, ``dropped``, ``ratio``, ``metric``."""
        import pandas

        names = list(self.drop)
        return pandas.DataFrame(
            {
                "name": names,
                "size": [self.sizes[name] for name in names],
                "dropped": [self.dropped(name) for name in names],
                "ratio": [self.ratio(name) for name in names],
                "metric": [self.metric.get(name) for name in names],
            }
        )


class Allocation(ABC):
    """Shares a sparsity among the matrices of a network.

    Attributes:
        needs: What it has to know of the layers' inputs.
        takes_sparsity: Whether it works towards a given sparsity; one that does not finds its
            own, and is given None.
    """

    needs: ClassVar[Needs] = "nothing"
    takes_sparsity: ClassVar[bool] = True

    @abstractmethod
    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """Share out ``round(sparsity * all entries)`` exactly.

        Entries that are zero already count: a matrix that loses k entries has at least k zeros
        afterwards, and more only if it had more before.

        Args:
            layers: The matrices, in the order of the network; loaded one at a time.
            sparsity: Share of all their entries that goes, in [0, 1).
            score: The rule that will prune each matrix.
            inputs: What each layer saw, by name, where ``needs`` asks for it.
            model: The network, where the weights belong to one.

        Raises:
            UsageError: No matrix; no sparsity where one is shared out, or one where none is; one
                out of range, or above what the cap allows; ``inputs`` or ``model`` are needed
                and missing.
            NonFinite: A weight is NaN or infinite.
        """
