"""All eigenvalues of A^H A for every matrix of a stack, pooled into one spectrum."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.numerics.spectrum.blocks import (
    BLOCK,
    Stack,
    exponents,
    largest_entries,
    whole,
    working_dtype,
)
from tailor.numerics.spectrum.gram import gram_eigenvalues

# A Gram matrix is trusted where its least eigenvalue is this many times the error bound, so
# that even the least is known to a tenth, and its root to a twentieth. Tuned by us: measured
# errors are at most a tenth of the bound, and a random Gaussian matrix of side 4096 falls below
# only once in forty times.
TRUSTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """The pooled eigenvalues of A^H A: squared singular values.

    Attributes:
        eigenvalues: In rising order, ``count x min(rows, columns)`` of them; what rounding
            made negative is 0.
        error: Bound of the absolute error of each, max(rows, columns, 10) x eps x the largest.
            Measured errors are a tenth of it or less.
        rank: Number of singular values above max(rows, columns) x eps(float64) x the largest of
            their own matrix, summed over the matrices; None where it cannot be told.
        least: Least singular value of all; None where it cannot be told to a twentieth.
        method: ``"gram"``, or ``"svd"`` where a matrix needed its singular values.
    """

    eigenvalues: Float64[ndarray, "n"]
    error: float
    rank: int | None
    least: float | None
    method: str


def spectrum(
    stack: Stack, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> Spectrum:
    """Eigenvalues of A^H A for every matrix of the stack, from its Gram matrix.

    In float64 each eigenvalue of a matrix is exact to a tenth or better (usually 1e-10), or the
    matrix is decomposed into singular values instead, without its zero rows and columns. In
    float32, a fast mode, eigenvalues below ``error`` are noise, and rank and least singular
    value are None if any are. Scaling by a power of two scales the result exactly.

    Args:
        stack: Matrices of one shape; of any real or complex type.
        dtype: Precision of the computation, ``torch.float64`` or ``torch.float32``.
        device: Where to compute.

    Raises:
        NonFinite: An entry is NaN or infinite, or the squares of the singular values exceed
            float64.
        UsageError: The stack is empty, ``dtype`` is another type, or the device is not there.
    """
    if dtype not in (torch.float64, torch.float32):
        raise UsageError(f"a spectrum is computed in float64 or float32, not in {dtype}")
    if stack.numel() == 0:
        raise UsageError(f"a spectrum needs entries, but the shape is {tuple(stack.shape)}")
    _refuse_absent(device)
    stack = stack.detach().resolve_conj().resolve_neg().to(device)
    largest = largest_entries(stack)
    if not largest.isfinite().all():
        raise NonFinite("a spectrum needs finite entries, but some are NaN or infinite")
    powers = exponents(largest)
    solved = [_solve(stack[group], dtype, powers[group]) for group in _groups(stack, dtype)]
    return _pool(solved, _bound(stack, dtype))


def _refuse_absent(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on its build
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}); use cpu") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solved:
    """A group of matrices: their eigenvalues, their ranks (None: cannot be told), the method."""

    eigenvalues: Float64[ndarray, "count n"]
    ranks: list[int | None]
    by_svd: bool


def _groups(stack: Stack, dtype: torch.dtype) -> list[slice]:
    """Matrices that are solved in one call: many small ones, or one large one."""
    count, rows, columns = stack.shape
    step = max(1, BLOCK // (rows * columns * dtype.itemsize))
    return [slice(start, start + step) for start in range(0, count, step)]


def _solve(stack: Stack, dtype: torch.dtype, powers: Int64[Tensor, "count"]) -> _Solved:
    """Eigenvalues and ranks, in the units of the matrices, each by the way that it needs."""
    working = working_dtype(dtype, stack.dtype)
    values = gram_eigenvalues(stack, working, powers)
    largest = values[:, -1].copy()
    weak = (values[:, 0] < TRUSTED * _bound(stack, dtype) * largest) & (largest > 0)
    values = values.clip(0)
    ranks: list[int | None] = [values.shape[1] if top > 0 else 0 for top in largest.tolist()]
    by_svd = False
    for index in np.flatnonzero(weak).tolist():
        ranks[index] = None
        if dtype == torch.float64:
            one = slice(index, index + 1)
            matrix = whole(stack[one], working, powers[one])[0]
            values[index], ranks[index], used = _precise(matrix)
            by_svd = by_svd or used
    with np.errstate(over="ignore"):  # found by _pool
        scaled = np.ldexp(values, 2 * powers.numpy()[:, None])
    return _Solved(eigenvalues=scaled, ranks=ranks, by_svd=by_svd)


def _precise(
    matrix: Shaped[Tensor, "rows columns"],
) -> tuple[Float64[ndarray, "n"], int, bool]:
    """Eigenvalues and rank to float64 of the singular values, and whether those were needed."""
    side = min(matrix.shape)
    present = matrix != 0
    kept = matrix[present.any(dim=1)][:, present.any(dim=0)]
    zeros = np.zeros(side - min(kept.shape))
    if len(zeros) > 0:  # zero rows or columns alone may be why the Gram matrix is singular
        values = gram_eigenvalues(kept[None], kept.dtype, torch.zeros(1, dtype=torch.int64))[0]
        if values[0] >= TRUSTED * _bound(matrix, torch.float64) * values[-1]:
            return np.append(zeros, values), len(values), False
    singular = _singular_values(kept)
    threshold = max(matrix.shape) * torch.finfo(torch.float64).eps * singular[-1]
    rank = int(np.count_nonzero(singular > threshold))
    return np.append(zeros, singular * singular), rank, True


def _singular_values(matrix: Shaped[Tensor, "rows columns"]) -> Float64[ndarray, "n"]:
    """All singular values, rising; on the CPU by numpy, whose LAPACK is the faster here."""
    if matrix.device.type == "cpu":
        values: ndarray = np.linalg.svd(matrix.numpy(), compute_uv=False)
    else:
        values = torch.linalg.svdvals(matrix).cpu().numpy()
    return values[::-1]


def _bound(matrix: Tensor, dtype: torch.dtype) -> float:
    """Relative to the largest, what rounding may do to an eigenvalue of the Gram matrix."""
    return float(max(10, *matrix.shape[-2:]) * torch.finfo(dtype).eps)


def _pool(solved: list[_Solved], bound: float) -> Spectrum:
    values = np.sort(np.concatenate([group.eigenvalues.ravel() for group in solved]))
    if not np.isfinite(values[-1]):
        raise NonFinite(
            "the squares of the singular values exceed float64; divide the matrix by a power of two"
        )
    ranks = [rank for group in solved for rank in group.ranks]
    known = [rank for rank in ranks if rank is not None]
    told = len(known) == len(ranks)
    return Spectrum(
        eigenvalues=values,
        error=float(bound * values[-1]),
        rank=sum(known) if told else None,
        least=float(np.sqrt(values[0])) if told else None,
        method="svd" if any(group.by_svd for group in solved) else "gram",
    )
