"""OWL: blocks with many outliers are pruned less."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.blocks import blocks
from tailor.stages.allocate.matrices import norms_of, row_pieces, sizes_of
from tailor.stages.allocate.shares import CAP, check_bounds, entries, share_out, total_of
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Needs, Score
from tailor.weights.layer import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class OWL(Allocation):
    """Outlier-weighed layerwise sparsity (Yin et al. 2024).

    The score of a weight is its size times the norm of its input, as in Wanda. o is the share
    of scores in a block that exceed ``threshold`` times the mean score of the block. What stays
    is (o - least) / (largest - least) times 2 ``strength``, shifted so that the sparsity is met;
    shares thus span 2 ``strength`` **however little o differs**. The authors shift by the plain
    mean over the blocks, which meets the sparsity for blocks of one size; here the mean is
    weighted by the numbers of weights, which is the same for those.

    Attributes:
        threshold: Multiple of the mean from which a score is an outlier (M = 5; theirs).
        strength: Half the span of the shares (lambda = 0.08; theirs).
        cap: Largest share of a matrix.
        floor: Least share of a matrix.

    Raises:
        UsageError: A setting is out of range.
    """

    needs: ClassVar[Needs] = "norms"

    threshold: float = 5.0
    strength: float = 0.08
    cap: float = CAP
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self.cap, self.floor)
        if not (self.threshold > 0 and 0 <= self.strength <= 0.5):
            raise UsageError(
                "threshold must be above 0 and strength in [0, 0.5], but are "
                f"{self.threshold} and {self.strength}"
            )

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the metric is the share of outliers of the block."""
        sizes = entries(layers)
        total_of(sizes, sparsity, repr(self))
        block = blocks(list(sizes))
        outliers = {
            one: self._outliers([layer for layer in layers if block[layer.name] == one], inputs)
            for one in dict.fromkeys(block.values())
        }
        least, largest = min(outliers.values()), max(outliers.values())
        o = np.array([outliers[block[name]] for name in sizes])
        weight = np.array(list(sizes.values()), dtype=np.float64)
        stay = (o - least) / ((largest - least) or 1.0) * 2 * self.strength
        shares = (sparsity or 0.0) - (stay - np.average(stay, weights=weight))
        return share_out(
            repr(self),
            layers,
            dict(zip(sizes, shares.tolist(), strict=True)),
            sparsity,
            cap=self.cap,
            floor=self.floor,
            metric={name: outliers[block[name]] for name in sizes},
            note="uniform, since all blocks have one share of outliers" * (least == largest),
        )

    def _outliers(self, members: Sequence[Layer], inputs: Mapping[str, Inputs] | None) -> float:
        """Share of the scores of a block above ``threshold`` times their mean."""
        total, count, above = 0.0, 0, 0
        for layer in members:
            norms = norms_of(layer, inputs, "OWL").numpy()
            for rows in row_pieces(sizes_of(layer)):
                total += float((rows * norms).sum())
                count += rows.size
        limit = self.threshold * total / max(count, 1)
        for layer in members:
            norms = norms_of(layer, inputs, "OWL").numpy()
            for rows in row_pieces(sizes_of(layer)):
                above += int((rows * norms > limit).sum())
        return above / max(count, 1)
