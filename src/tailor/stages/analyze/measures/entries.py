"""Measures of the weights themselves: row and column norms, compressibility, stable index."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor.numerics.compressibility import compressibility
from tailor.numerics.powerlaw import Clauset, NoFit, TailFit
from tailor.numerics.stable import Koutrouvelis, StableEstimator
from tailor.stages.analyze.measures.measure import Matrix, Measure, columns_of
from tailor.stages.analyze.record import Value

MOST_ENTRIES = 1 << 20  # of which a stable law or compressibility is estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsAndColumns(Measure):
    """Power laws of the norms of rows and columns: ``rows_alpha``, ``columns_alpha``.

    Attributes:
        fit: How they are fitted.
    """

    fit: TailFit = field(default_factory=Clauset)

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """Exponent, its interval and why there is none; empty for a low-rank matrix."""
        if matrix.low_rank:
            return {}
        columns: dict[str, Value] = {}
        for name, axis in (("rows", 2), ("columns", 1)):
            norms = torch.linalg.vector_norm(matrix.stack.to(_wide(matrix.stack)), dim=axis)
            fit = self.fit.fit(norms.flatten().to(device="cpu", dtype=torch.float64).numpy())
            columns |= columns_of(
                fit,
                **{
                    f"{name}_alpha": "alpha",
                    f"{name}_ci_low": "low",
                    f"{name}_ci_high": "high",
                },
            )
            columns[f"{name}_reason"] = fit.reason if isinstance(fit, NoFit) else ""
        return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressible(Measure):
    """How few weights carry the norm, next to Gaussian weights.

    ``prunable_10`` is the largest share that can be dropped with a relative l2 error of at most
    0.1 (0.265 for Gaussian weights); ``best_10`` is the relative error of keeping the largest
    tenth (0.749 for Gaussian weights); ``pq_index`` (p = 0.5, q = 1) and ``gini`` are 0 for
    equal weights and near 1 for few large ones.
    """

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.compressibility``; empty for a low-rank matrix."""
        if matrix.low_rank or len(matrix.eigenvalues) == 0:
            return {}
        found = compressibility(_sample(matrix), (0.1,))
        return {
            "pq_index": found.pq_index,
            "gini": found.gini,
            "hoyer": found.hoyer,
            "prunable_10": 1 - found.kept,
            "best_10": found.error[0],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StableIndex(Measure):
    """Tail index of a stable law fitted to the weights themselves.

    An index below 2 is no evidence of infinite variance: Laplace weights give 1.7. Read it next
    to ``stable_D``, the distance of the fitted law, and to a tail fit of the weights.

    Attributes:
        estimator: Which one.
    """

    estimator: StableEstimator = field(default_factory=Koutrouvelis)

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.stable``; empty for a low-rank matrix."""
        if matrix.low_rank:
            return {}
        return columns_of(
            self.estimator.fit(_sample(matrix)),
            stable_index="index",
            stable_sigma="sigma",
            stable_ci_low="low",
            stable_ci_high="high",
            stable_D="D",
        )


def _sample(matrix: Matrix) -> Float[ndarray, "n"]:
    """All weights, or every n-th one of very many."""
    flat = matrix.stack.flatten()
    flat = flat.abs() if flat.is_complex() else flat
    flat = flat[:: -(-flat.numel() // MOST_ENTRIES)]
    array: ndarray = flat.to(_wide(flat)).to(device="cpu", dtype=torch.float64).numpy()
    return array


def _wide(stack: Tensor) -> torch.dtype:
    """A real type that has reductions; half precision and 8-bit floats lack some."""
    return stack.dtype if stack.dtype.itemsize >= 4 else torch.float32
