"""Sparsity-informed adaptive pruning: how unequal the weights are tells how many go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.matrices import row_pieces, sizes_of
from tailor.stages.allocate.shares import entries, no_sparsity
from tailor.stages.allocate.threshold import dropped_below
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer

ROUNDING = 1e-5  # an index this far below 0 is 0; Diao et al.'s program


@dataclass(frozen=True, slots=True, kw_only=True)
class PQIndex(Allocation):
    """The rule of sparsity-informed adaptive pruning (Diao et al. 2023, SAP).

    With the PQ index I = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q of the d weights that are not zero,
    at least r = d (1 + eta)^(-q / (q - p)) (1 - I)^(q p / (q - p)) have to stay if what goes has
    at most the share eta of the kept part's p-th power sum; gamma (1 - r / d), in [0, beta], of
    the d go, rounded down. r is a lower bound, so what goes has as a rule a larger share than
    eta. Made to be repeated: train, prune, train again. The metric is the
    index, over rows their mean.

    Attributes:
        p: Lower order; (p, q) is (0.5, 1) or (1, 2) in the paper.
        q: Higher order.
        gamma: Factor of the share that goes (1; theirs).
        beta: Largest share that goes at once (0.9; theirs).
        eta: Share of the p-th power sum that may go (0; theirs).
        scope: Over what one index is taken and one share goes: each ``"layer"``, each ``"row"``,
            or the whole ``"model"``, of which the smallest weights go.

    Raises:
        UsageError: A setting is out of range.
    """

    takes_sparsity: ClassVar[bool] = False

    p: float = 0.5
    q: float = 1.0
    gamma: float = 1.0
    beta: float = 0.9
    eta: float = 0.0
    scope: str = "layer"

    def __post_init__(self) -> None:
        if not 0 < self.p < self.q < float("inf"):
            raise UsageError(f"p and q need 0 < p < q, but are {self.p} and {self.q}")
        if not (self.gamma >= 0 and 0 <= self.beta < 1 and self.eta >= 0):
            raise UsageError(
                "gamma and eta must be at least 0 and beta in [0, 1), but they are "
                f"{self.gamma}, {self.eta} and {self.beta}"
            )
        if self.scope not in ("layer", "row", "model"):
            raise UsageError(f"scope must be 'layer', 'row' or 'model', but is {self.scope!r}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the sparsity has to be None."""
        no_sparsity(sparsity, repr(self))
        sizes = entries(layers)
        drop: dict[str, int | tuple[int, ...]] = {}
        metric: dict[str, float] = {}
        total = np.zeros((1, 3))
        for layer in layers:
            sums = self._sums(layer)
            total += sums.sum(axis=0)
            width = sizes[layer.name] // max(1, len(sums))
            if self.scope != "row":
                sums, width = sums.sum(axis=0, keepdims=True), sizes[layer.name]
            index = self._index(sums)
            gone = self._gone(sums, index) + width - sums[:, 0].astype(np.int64)
            drop[layer.name] = tuple(gone.tolist()) if self.scope == "row" else int(gone.sum())
            metric[layer.name] = float(index.mean()) if len(index) else 0.0
        if self.scope == "model":
            index = self._index(total)
            zeros = sum(sizes.values()) - int(total[0, 0])
            drop = dict(dropped_below(layers, zeros + int(self._gone(total, index)[0])))
            metric = dict.fromkeys(sizes, float(index[0]))
        return Allocated(method=repr(self), drop=drop, sizes=sizes, metric=metric)

    def _sums(self, layer: Layer) -> Float[ndarray, "rows 3"]:
        """For each row: number of weights that are not zero, sums of their powers p and q."""
        parts = []
        for rows in row_pieces(sizes_of(layer)):
            terms = (rows > 0, rows**self.p, rows**self.q)
            parts.append(np.stack([term.sum(axis=1) for term in terms], axis=1))
        return np.concatenate(parts).astype(np.float64)

    def _index(self, sums: Float[ndarray, "rows 3"]) -> Float[ndarray, "rows"]:
        """The PQ index; 0 where no weight is left."""
        count = np.maximum(sums[:, 0], 1)
        small, large = sums[:, 1] / count, sums[:, 2] / count
        ratio = np.divide(
            small ** (1 / self.p), large ** (1 / self.q), out=np.ones(len(sums)), where=large > 0
        )
        index: ndarray = np.where(ratio - 1 < ROUNDING, np.maximum(1 - ratio, 0.0), 1 - ratio)
        return index

    def _gone(
        self, sums: Float[ndarray, "rows 3"], index: Float[ndarray, "rows"]
    ) -> Int[ndarray, "rows"]:
        """How many of the weights that are not zero go."""
        power = self.q / (self.q - self.p)
        stay = (1 + self.eta) ** -power * (1 - index) ** (power * self.p)
        share = np.clip(self.gamma * (1 - stay), 0, self.beta)
        gone: ndarray = np.floor(sums[:, 0] * share).astype(np.int64)
        return gone
