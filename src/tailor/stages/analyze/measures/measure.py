"""What a measure is, and what it may look at."""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.powerlaw import MatrixFit, NoFit, PowerLawFit, TailFit
from tailor.numerics.spectrum import Spectrum, positive_floor, spectrum
from tailor.stages.analyze.record import Value

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


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


def columns_of(found: object, **fields: str) -> dict[str, Value]:
    """Fields of a record by column; all empty for a ``NoFit``."""
    refused = isinstance(found, NoFit)
    return {column: None if refused else getattr(found, field) for column, field in fields.items()}
