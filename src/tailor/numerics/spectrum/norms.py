"""Norms of a matrix without its spectrum: Frobenius, and spectral by Golub-Kahan-Lanczos."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.numerics.spectrum.blocks import NEAR_ONE, blocks, exponents, largest_entries, whole

CHECK_EVERY = 4  # steps between two looks at the residual
STEPS = 300  # enough for Gaussian noise of side 4096 at the default tolerance, about 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralNorm:
    """An estimate of the largest singular value, from below.

    Attributes:
        value: The estimate. In exact arithmetic it is never too large.
        residual: A singular value lies within this distance of ``value``. The error itself is
            usually far smaller, about residual^2 over the distance to the next singular value.
        steps: Number of Lanczos steps, of two matrix-vector products each.
    """

    value: float
    residual: float
    steps: int


def frobenius_norm(matrix: Float[Tensor, "rows columns"]) -> float:
    """Root of the sum of the squared entries, summed in float64.

    Raises:
        NonFinite: An entry is NaN or infinite.
        UsageError: The matrix is empty.
    """
    stack = matrix.detach()[None]
    power = _power(stack)
    squares = sum(float(block.square().sum()) for block in blocks(stack, torch.float64, power))
    return float(np.ldexp(np.sqrt(squares), int(power)))


def spectral_norm(
    matrix: Float[Tensor, "rows columns"],
    *,
    steps: int = STEPS,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> SpectralNorm:
    """Largest singular value by Golub-Kahan-Lanczos with full reorthogonalisation.

    Golub & Kahan (1965); Golub & Van Loan (2013), section 10.4. Stops when the residual is at
    most ``tolerance`` times the estimate, or after ``steps``: compare the two. Products are in
    float64 for a float64 matrix and in float32 for every other, on the device of the matrix.

    Args:
        matrix: Any real matrix.
        steps: Most steps that are taken.
        tolerance: Largest residual, relative to the value.
        seed: Of the random vector that it starts from.

    Raises:
        NonFinite: An entry is NaN or infinite.
        UsageError: The matrix is empty, or ``steps`` is below 1.
    """
    if steps < 1:
        raise UsageError(f"a spectral norm needs at least 1 step, but steps is {steps}")
    matrix, power = _scaled(matrix.detach())
    steps = min(steps, min(matrix.shape) + 1)  # one more: the start lies outside the row space
    start = np.random.default_rng(seed).standard_normal(matrix.shape[1])
    found = _lanczos(matrix, torch.from_numpy(start).to(matrix), steps, tolerance)
    value, residual = np.ldexp([found.value, found.residual], power).tolist()
    return SpectralNorm(value=value, residual=residual, steps=found.steps)


def _scaled(matrix: Float[Tensor, "rows columns"]) -> tuple[Float[Tensor, "rows columns"], int]:
    """The matrix in the type of the products, and a power of two that was divided out."""
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    power = _power(matrix[None])
    if abs(int(power)) <= NEAR_ONE:  # squares neither overflow nor vanish
        return matrix.to(dtype), 0
    return whole(matrix[None], dtype, power)[0], int(power)


def _power(stack: Float[Tensor, "1 rows columns"]) -> Int64[Tensor, "1"]:
    """The power of two just above the largest entry.

    Raises:
        UsageError: There is none.
    """
    if stack.numel() == 0:
        raise UsageError(f"a norm needs entries, but the shape is {tuple(stack.shape[1:])}")
    largest = largest_entries(stack)
    if not largest.isfinite().all():
        raise NonFinite("a norm needs finite entries, but some are NaN or infinite")
    return exponents(largest)


def _lanczos(
    A: Float[Tensor, "rows columns"], start: Float[Tensor, "columns"], steps: int, tolerance: float
) -> SpectralNorm:
    """A V = U B with B upper bidiagonal; the largest singular value of B from below."""
    U, V = A.new_zeros(steps, A.shape[0]), A.new_zeros(steps, A.shape[1])
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    found = SpectralNorm(value=0.0, residual=0.0, steps=0)
    v = start / torch.linalg.vector_norm(start)
    for step in range(steps):
        V[step] = v
        u = A @ v
        diagonal[step], U[step] = _next(u, U[:step])
        v = A.mT @ U[step]
        beside[step], v = _next(v, V[: step + 1])
        k = step + 1
        if beside[step] == 0 or k == steps or k % CHECK_EVERY == 0:
            found = _ritz(diagonal[:k], beside[:k])
            if found.residual <= tolerance * found.value:
                break
    return found


def _next(
    vector: Float[Tensor, "n"], basis: Float[Tensor, "k n"]
) -> tuple[float, Float[Tensor, "n"]]:
    """Length and direction of what a vector adds to a basis; 0 and zeros if it is rounding."""
    before = torch.linalg.vector_norm(vector)
    for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
        vector = vector - basis.mT @ (basis @ vector)
    length = torch.linalg.vector_norm(vector)
    if length <= 4 * torch.finfo(vector.dtype).eps * before:
        return 0.0, torch.zeros_like(vector)
    return float(length), vector / length


def _ritz(diagonal: Float[ndarray, "k"], beside: Float[ndarray, "k"]) -> SpectralNorm:
    """Largest singular value of the bidiagonal matrix, and the residual of its vectors."""
    left, values, _ = np.linalg.svd(np.diag(diagonal) + np.diag(beside[:-1], 1))
    residual = float(beside[-1] * abs(left[-1, 0]))
    return SpectralNorm(value=float(values[0]), residual=residual, steps=len(diagonal))
