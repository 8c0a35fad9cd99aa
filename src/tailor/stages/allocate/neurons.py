"""A number for each neuron, from how much its output may change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.matrices import refuse_emptied, row_pieces, sizes_of
from tailor.stages.allocate.shares import entries, no_sparsity
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class LqPerNeuron(Allocation):
    """The fewest weights of each neuron that keep its output within ``tolerance``.

    A row w that becomes w' changes the neuron's output by at most ``bound`` ||w - w'||_r, r being
    dual to the norm in which the inputs are bounded (Hoelder): r = 2 for ||x||_2 <= bound, r = 1
    for max |x| <= bound. Keeping the m largest leaves ||w - w'||_r <= m^(1/r - 1/q) ||w||_q for
    q < r (Stechkin), so that (bound ||w||_q / tolerance)^(1 / (1/q - 1/r)) weights suffice. The
    exact count, by sorting, is never larger. The metric is the largest bound of a neuron's
    change in the layer, from the exact rest; it is not carried on through later layers.

    Attributes:
        tolerance: How much the output of each neuron may change, above 0.
        bound: Bound of the norm of the inputs.
        q: Order of the quasi-norm, 0 < q < r.
        r: Order of the norm of the rest, at least 1; may be infinite.
        exact: Whether to count exactly, or to take the bound.

    Raises:
        UsageError: A setting is out of range.
    """

    takes_sparsity: ClassVar[bool] = False

    tolerance: float
    bound: float = 1.0
    q: float = 0.5
    r: float = 2.0
    exact: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.q < self.r and self.r >= 1):
            raise UsageError(f"q and r need 0 < q < r and r >= 1, but are {self.q} and {self.r}")
        if not (0 < self.tolerance < math.inf and 0 < self.bound < math.inf):
            raise UsageError(
                "tolerance and bound must be above 0 and finite, but are "
                f"{self.tolerance} and {self.bound}"
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
        """See ``Allocation.allocate``; the sparsity has to be None.

        Raises:
            UsageError: Nothing would be left of a matrix.
        """
        no_sparsity(sparsity, repr(self))
        sizes = entries(layers)
        drop: dict[str, int | tuple[int, ...]] = {}
        metric: dict[str, float] = {}
        for layer in layers:
            matrix = sizes_of(layer)
            found = [self._rows(rows) for rows in row_pieces(matrix)]
            drop[layer.name] = tuple(n for some, _ in found for n in some.tolist())
            metric[layer.name] = max((change for _, change in found), default=0.0)
            dropped = sum(int(some.sum()) for some, _ in found)
            refuse_emptied(layer, dropped, int((matrix == 0).sum()), repr(self))
        return Allocated(method=repr(self), drop=drop, sizes=sizes, metric=metric)

    def _rows(self, rows: Float[ndarray, "rows in"]) -> tuple[Int[ndarray, "rows"], float]:
        """How many of each row go, and the largest bound of a change."""
        width = rows.shape[1]
        rising = np.sort(rows, axis=1)
        rest = np.concatenate([np.zeros((len(rows), 1)), _tails(rising, self.r)], axis=1)
        if self.exact:
            drop = (self.bound * rest[:, 1:] <= self.tolerance).sum(axis=1)
        else:
            drop = width - self._enough(rising)
        left = np.take_along_axis(rest, drop[:, None], axis=1)
        return drop, float(self.bound * left.max()) if left.size else 0.0

    def _enough(self, rows: Float[ndarray, "rows in"]) -> Int[ndarray, "rows"]:
        """How many weights of each row suffice by the bound."""
        width = rows.shape[1]
        norm = (rows**self.q).sum(axis=1) ** (1 / self.q)
        power = 1 / (1 / self.q - 1 / self.r)
        ratio = self.bound * norm / self.tolerance
        enough = np.ceil(np.minimum(ratio**power, width)).astype(np.int64)
        # The inequality is for m >= 1: no row is dropped by it, but one of zeros.
        return np.where(norm > 0, np.maximum(enough, min(1, width)), 0)


def _tails(rising: Float[ndarray, "rows in"], r: float) -> Float[ndarray, "rows in"]:
    """l_r norm of the k smallest sizes of each row, for k = 1, 2, ..."""
    if math.isinf(r):
        return rising
    tails: ndarray = np.cumsum(rising**r, axis=1) ** (1 / r)
    return tails
