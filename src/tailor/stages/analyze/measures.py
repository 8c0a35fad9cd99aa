"""What can be measured besides norms and exponent; each is a value, each adds its columns."""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.bulk import Bulk, marchenko_pastur
from tailor.numerics.compressibility import compressibility
from tailor.numerics.distances import jensen_shannon, shuffled, wasserstein
from tailor.numerics.edge import noise_edge
from tailor.numerics.powerlaw import (
    Clauset,
    GoodnessOfFit,
    MatrixFit,
    NoFit,
    PowerLawFit,
    TailFit,
    p_value,
)
from tailor.numerics.spectrum import Spectrum, positive_floor, spectrum
from tailor.numerics.stable import Koutrouvelis, StableEstimator
from tailor.stages.analyze.record import Value

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
MOST_ENTRIES = 1 << 20  # of which a stable law or compressibility is estimated
LEAST_FOR_Z = 8  # shuffles: a standard deviation needs a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """All eigenvalues, through the Gram matrix on the smaller side.

    Attributes:
        precision: ``"float64"``; or ``"float32"``, twice as fast, with an error of about 1e-7
            of the largest eigenvalue in each, so that the smallest and the rank cannot be told.
        device: Where, as torch names it.
    """

    precision: str = "float64"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            names = " or ".join(PRECISIONS)
            raise UsageError(f"precision must be {names}, but is {self.precision!r}")

    def solve(self, stack: Shaped[Tensor, "count rows columns"]) -> Spectrum:
        """The pooled eigenvalues of a stack of matrices, for ``floor`` to be taken off."""
        return spectrum(stack, dtype=PRECISIONS[self.precision], device=self.device)

    def significant(
        self, eigenvalues: Float[ndarray, "n"], rows: int, columns: int
    ) -> Float[ndarray, "m"]:
        """Rising eigenvalues without those that are rounding errors."""
        floor = positive_floor(
            eigenvalues, rows=rows, columns=columns, dtype=PRECISIONS[self.precision]
        )
        return eigenvalues[np.searchsorted(eigenvalues, floor, side="right") :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What a measure may look at.

    Attributes:
        name: Canonical name, also the seed of what is random about it.
        stack: The matrices; for a low-rank one its core, with the same singular values.
        low_rank: Whether it is such a core, whose entries are not the weights.
        rows: Rows of one matrix.
        columns: Columns of one matrix.
        eigenvalues: Pooled, rising, without those that are rounding errors.
        whole: All of them.
        fit: Their power law.
        method: How that was fitted.
        solver: How eigenvalues are computed.
    """

    name: str
    stack: Shaped[Tensor, "count _ _"]
    low_rank: bool
    rows: int
    columns: int
    eigenvalues: Float[ndarray, "n"]
    whole: Float[ndarray, "all"]
    fit: PowerLawFit | NoFit
    method: TailFit | MatrixFit
    solver: Exact

    def seed(self, seed: int) -> int:
        """A seed of its own for every matrix, whatever the order and the worker."""
        return zlib.crc32(f"{seed} {self.name}".encode())

    def refit(
        self, stack: Shaped[Tensor, "count _ _"], whole: Float[ndarray, "all"]
    ) -> PowerLawFit | NoFit:
        """The same estimator on other matrices of the same shape, and their spectrum."""
        if isinstance(self.method, MatrixFit):
            return self.method.fit_matrices(stack)
        return self.method.fit(self.solver.significant(whole, self.rows, self.columns))


class Measure(ABC):
    """Something to measure of every matrix."""

    @abstractmethod
    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """Columns by name; None for a number that cannot be told."""


# Of the spectrum


@dataclass(frozen=True, slots=True, kw_only=True)
class MarchenkoPastur(Measure):
    """The bulk of a random matrix in the spectrum, and the spikes that stand out of it.

    ``sigma_mp, bulk_min, bulk_max, mp_softrank, num_spikes, W_scale`` as WeightWatcher has them;
    ``tw_edge`` is the largest eigenvalue that pure noise of the estimated level reaches with
    95 % probability (Tracy & Widom's law), ``tw_spikes`` counts those above it.
    """

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.bulk`` and ``numerics.edge``."""
        edge = noise_edge(
            matrix.whole, rows=matrix.rows, columns=matrix.columns, count=matrix.stack.shape[0]
        )
        noise = _columns(edge, tw_edge="edge", tw_spikes="spikes", noise_std="deviation")
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
    return _columns(found, **(columns if prefix else columns | {"W_scale": "scale"}))


def _columns(found: object, **fields: str) -> dict[str, Value]:
    """Fields of a record by column; all empty for a ``NoFit``."""
    refused = isinstance(found, NoFit)
    return {column: None if refused else getattr(found, field) for column, field in fields.items()}


def _alpha(fit: PowerLawFit | NoFit) -> float | None:
    return fit.alpha if isinstance(fit, PowerLawFit) else None


def _null(fit: PowerLawFit | NoFit, alphas: list[float]) -> dict[str, Value]:
    """Where alpha lies among those of the shuffles."""
    mean = float(np.mean(alphas)) if alphas else None
    spread = float(np.std(alphas, ddof=1)) if len(alphas) >= LEAST_FOR_Z else None
    alpha = _alpha(fit)
    z = (alpha - mean) / spread if alpha is not None and mean is not None and spread else None
    return {"null_alpha": mean, "null_sd": spread, "null_z": z}


@dataclass(frozen=True, slots=True, kw_only=True)
class PValue(Measure):
    """Goodness of the power law by a bootstrap: a small ``p_value`` speaks against it.

    Attributes:
        replicates: Size of the bootstrap.
        seed: Its seed; each matrix gets a stream of its own.
    """

    replicates: int = 100
    seed: int = 0

    def measure(self, matrix: Matrix) -> dict[str, Value]:
        """See ``numerics.powerlaw.p_value``; empty for an estimator that needs the matrices."""
        found: GoodnessOfFit | NoFit = NoFit(reason="", n=0)
        if isinstance(matrix.method, TailFit) and isinstance(matrix.fit, PowerLawFit):
            found = p_value(
                matrix.eigenvalues,
                matrix.method,
                replicates=self.replicates,
                seed=matrix.seed(self.seed),
            )
        return _columns(found, p_value="p", p_error="error")


# Of the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms(Measure):
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
            columns |= _columns(
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
        return _columns(
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
