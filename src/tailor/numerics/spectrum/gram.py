"""Gram matrices of a stack and their eigenvalues, by the fastest routine that is at hand.

The Gram matrix is formed on the smaller side: rows x columns^2 multiplications and
4/3 columns^3 for the eigenvalues, against 8/3 columns^3 and more, half of them bound by memory,
for the singular values (Golub & Van Loan 2013, sections 8.3 and 8.6).
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.numerics.spectrum import openblas
from tailor.numerics.spectrum.blocks import NEAR_ONE, Stack, blocks

# Sides from which one routine overtakes another, tuned by us with one thread: torch's MKL,
# numpy's OpenBLAS, and the same library called directly.
NUMPY_FROM = 100
DIRECT_FROM = 128


def gram_eigenvalues(
    stack: Stack, dtype: torch.dtype, powers: Int64[Tensor, "count"]
) -> Float64[ndarray, "count least"]:
    """Eigenvalues of A^H A for every matrix divided by two to its power, in rising order.

    All ``min(rows, columns)`` of them, not clipped: rounding makes some slightly negative.
    Computed in ``dtype``, on the device of the stack.
    """
    if stack.shape[1] < stack.shape[2]:
        stack = stack.mT  # the eigenvalues of A A^H and of conj(A) A^T are the same
    before = torch.where(powers.abs() <= NEAR_ONE, 0, powers)  # the rest is divided out later
    parts = _parts(stack, dtype, before)
    factor = np.ldexp(1.0, 2 * (before - powers).numpy())[:, None, None]
    if stack.device.type != "cpu":
        return eigenvalues_by_torch(parts, torch.from_numpy(factor).to(stack.device))
    side = stack.shape[2]
    if side >= DIRECT_FROM and not dtype.is_complex and openblas.available():
        return _directly((part.numpy() for part in parts), factor)
    total = _sum_of_squares(part.numpy() for part in parts)
    total *= factor.astype(total.real.dtype)
    double = dtype in (torch.float64, torch.complex128)  # numpy widens float32, and is slow
    if double and side >= NUMPY_FROM:
        values: ndarray = np.linalg.eigvalsh(total)
        return values
    return _eigvalsh_by_torch(torch.from_numpy(total))


def _parts(stack: Stack, dtype: torch.dtype, powers: Int64[Tensor, "count"]) -> Iterator[Stack]:
    """The stack in blocks, or as it is where there is nothing to convert."""
    regular = 1 in (stack.stride(1), stack.stride(2))
    if stack.dtype == dtype and regular and not powers.any():
        return iter([stack])
    return blocks(stack, dtype, powers)


def eigenvalues_by_torch(
    parts: Iterator[Stack], factor: Float64[Tensor, "count 1 1"]
) -> Float64[ndarray, "count n"]:
    """Eigenvalues of the sum of the parts' Gram matrices, times a factor; on any device."""
    first = next(parts)
    total = first.mH @ first
    for part in parts:
        total.baddbmm_(part.mH, part)
    total *= factor.to(total.real.dtype)
    return _eigvalsh_by_torch(total)


def _eigvalsh_by_torch(gram: Shaped[Tensor, "count n n"]) -> Float64[ndarray, "count n"]:
    values: ndarray = torch.linalg.eigvalsh(gram).to(device="cpu", dtype=torch.float64).numpy()
    return values


def _directly(
    parts: Iterator[Float[ndarray, "count _ n"]], factor: Float64[ndarray, "count 1 1"]
) -> Float64[ndarray, "count n"]:
    """Eigenvalues of real Gram matrices, of which only a triangle is formed."""
    total: ndarray | None = None
    for part in parts:
        if total is None:
            count, _, side = part.shape
            total = np.zeros((count, side, side), part.dtype)
        for gram, block in zip(total, part, strict=True):
            openblas.add_square(gram, block)
    assert total is not None  # a stack has at least one row
    total *= factor.astype(total.dtype)
    return np.stack([openblas.eigenvalues(gram) for gram in total]).astype(np.float64)


def _sum_of_squares(
    parts: Iterator[Shaped[ndarray, "count _ n"]],
) -> Shaped[ndarray, "count n n"]:
    """The Gram matrices by numpy, which sees that both factors are one: half the work."""
    total = _square(next(parts))
    for part in parts:
        total += _square(part)
    return total


def _square(x: Shaped[ndarray, "count rows n"]) -> Shaped[ndarray, "count n n"]:
    """x^H x; for real x numpy calls syrk, which needs to see the very same buffer twice."""
    transposed = x.swapaxes(1, 2)
    product: ndarray = (np.conj(transposed) if np.iscomplexobj(x) else transposed) @ x
    return product
