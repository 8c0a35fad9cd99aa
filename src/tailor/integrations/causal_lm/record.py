"""What was done to a language model, as it is told and as it is stored beside it."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from tailor.records import Provenance
from tailor.stages.allocate import Allocated
from tailor.stages.modules import LeftAlone

RECORD = "tailor.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedMatrix:
    """One matrix after pruning.

    Attributes:
        name: As the model calls it.
        shape: Outputs by inputs.
        drop: Entries that were to go.
        zeros: Entries that are zero.
        error: Norm of the change, relative to the norm of the matrix.
    """

    name: str
    shape: tuple[int, ...]
    drop: int
    zeros: int
    error: float

    @property
    def size(self) -> int:
        """Number of entries."""
        rows, columns = self.shape
        return rows * columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run that may be broken off; also the file ``tailor.json`` in the folder it makes.

    Attributes:
        about: Versions and settings.
        key: Equal for runs with the same source, data and settings.
        allocated: How many entries each matrix loses.
        blocks: Blocks that are done.
        matrices: Their matrices.
    """

    about: Provenance
    key: str
    allocated: Allocated
    blocks: int = 0
    matrices: tuple[PrunedMatrix, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrunedCausalLM:
    """What ``prune_causal_lm`` gives.

    Attributes:
        model: The pruned copy, of a model in memory.
        folder: The folder that was made, of a model in a folder.
        allocated: How many entries each matrix was to lose.
        matrices: What became of each.
        left: Weights in the blocks that stay as they are, and why.
        tokens: Length of the calibration data.
    """

    model: nn.Module | None
    folder: Path | None
    allocated: Allocated
    matrices: tuple[PrunedMatrix, ...]
    left: tuple[LeftAlone, ...] = field(default=())
    tokens: int

    @property
    def sparsity(self) -> float:
        """Share of zeros among the entries of all pruned matrices."""
        return sum(one.zeros for one in self.matrices) / sum(one.size for one in self.matrices)
