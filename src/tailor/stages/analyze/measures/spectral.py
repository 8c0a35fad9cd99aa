"""Measures of a spectrum: its bulk, its spikes, and what is left when weights are shuffled."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.bulk import Bulk, marchenko_pastur
from tailor.numerics.distances import jensen_shannon, shuffled, wasserstein
from tailor.numerics.edge import NoiseEdge, noise_edge
from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.stages.analyze.measures.measure import Matrix, Measure, columns_of
from tailor.stages.analyze.record import Value

LEAST_FOR_Z = 8  # shuffles: a standard deviation needs a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class MarchenkoPastur(Measure):
    """The bulk of a random matrix in the spectrum, and the spikes that stand out of it.

    ``sigma_mp, bulk_min, bulk_max, mp_softrank, num_spikes, W_scale`` as WeightWatcher has them;
    ``tw_edge`` is the value that the largest eigenvalue of pure noise of the estimated level
    stays below with 95 % probability (Tracy & Widom's law for real matrices, so empty for a
    complex view), ``tw_spikes`` counts those above it.
    """

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.bulk`` and ``numerics.edge``."""
        edge: NoiseEdge | NoFit = NoFit(reason="complex", n=0)
        if not matrix.stack.is_complex():
            sizes = {"rows": matrix.rows, "columns": matrix.columns}
            edge = noise_edge(matrix.whole, count=matrix.stack.shape[0], **sizes)
        noise = columns_of(edge, tw_edge="edge", tw_spikes="spikes", noise_std="deviation")
        return _bulk_columns(_bulk(matrix, matrix.whole), "", "num_spikes") | noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffled(Measure):
    """The same matrix with its weights in random order: what is left when correlations go.

    Columns ``rand_*``, ``num_traps``, ``ww_softrank``, ``ww_maxdist`` and ``max_rand_eval`` come
    from the first shuffle. ``null_z`` is (alpha - mean) / standard deviation, with the same
    estimator's alpha of all shuffles; it is empty with fewer than eight of them.

    Attributes:
        replicates: Number of shuffles.
        seed: Their seed; each matrix gets a stream of its own.
    """

    replicates: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 1:
            raise UsageError(f"replicates must be at least 1, but is {self.replicates}")

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See the class; empty for a low-rank matrix or a transform, which is not the weights."""
        if matrix.low_rank or matrix.stack.is_complex() or len(matrix.eigenvalues) == 0:
            return {}
        seed = matrix.seed(self.seed)
        alphas, first = [], matrix.whole
        for k in range(self.replicates):
            stack = shuffled(matrix.stack, seed + k)
            found = matrix.solver.solve(stack).eigenvalues
            alphas.append(_alpha(matrix.refit(stack, found)))
            first = found if k == 0 else first
        top, rand_top = float(matrix.whole[-1]), float(first[-1])
        columns: dict[str, Value] = {
            "rand_distance": jensen_shannon(matrix.whole, first),
            "rand_wasserstein": wasserstein(matrix.whole, first),
            "max_rand_eval": rand_top,
            "ww_softrank": rand_top / top,
            "ww_maxdist": top - rand_top,
        }
        columns |= _bulk_columns(_bulk(matrix, first), "rand_", "rand_num_spikes")
        columns["num_traps"] = columns["rand_num_spikes"]
        return columns | _null(matrix.fit, [a for a in alphas if a is not None])


def _bulk(matrix: Matrix, eigenvalues: Float[ndarray, "n"]) -> Bulk | NoFit:
    return marchenko_pastur(
        eigenvalues, rows=matrix.rows, columns=matrix.columns, count=matrix.stack.shape[0]
    )


def _bulk_columns(found: Bulk | NoFit, prefix: str, spikes: str) -> dict[str, Value]:
    names = {"sigma_mp": "sigma", "bulk_min": "low", "bulk_max": "high", "mp_softrank": "softrank"}
    columns = {prefix + column: name for column, name in names.items()} | {spikes: "spikes"}
    return columns_of(found, **(columns if prefix else columns | {"W_scale": "scale"}))


def _alpha(fit: PowerLawFit | NoFit) -> float | None:
    return fit.alpha if isinstance(fit, PowerLawFit) else None


def _null(fit: PowerLawFit | NoFit, alphas: list[float]) -> dict[str, Value]:
    """Where alpha lies among those of the shuffles."""
    mean = float(np.mean(alphas)) if alphas else None
    spread = float(np.std(alphas, ddof=1)) if len(alphas) >= LEAST_FOR_Z else None
    alpha = _alpha(fit)
    z = (alpha - mean) / spread if alpha is not None and mean is not None and spread else None
    return {"null_alpha": mean, "null_sd": spread, "null_z": z}
