"""A stack of matrices read in blocks: brought to one type and to entries of about one.

A power of two is the only factor, so every result can be scaled back without rounding.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

Stack: TypeAlias = Shaped[Tensor, "count rows columns"]

BLOCK = 1 << 25  # bytes of one converted block
NEAR_ONE = 20  # entries up to 2^20 are squared and summed as they are, even in float32


def working_dtype(dtype: torch.dtype, of: torch.dtype) -> torch.dtype:
    """``dtype``, or its complex counterpart where the entries are complex."""
    return dtype.to_complex() if of.is_complex else dtype


def largest_entries(stack: Stack) -> Float64[Tensor, "count"]:
    """Largest absolute entry of every matrix, or part of a complex one; NaN where there is NaN."""
    found = torch.zeros(len(stack), dtype=torch.float64)
    for start, stop in _ranges(stack, torch.float32):
        part = stack[:, start:stop]
        if part.is_complex():
            part = torch.view_as_real(part).flatten(2)
        if part.dtype.itemsize == 1 or not part.is_floating_point():
            part = part.to(torch.float32)  # eight-bit floats have no arithmetic of their own
        largest = torch.maximum(part.amax((1, 2)), -part.amin((1, 2)))
        found = torch.maximum(found, largest.to(device="cpu", dtype=torch.float64))
    return found


def exponents(largest: Float64[Tensor, "count"]) -> Int64[Tensor, "count"]:
    """The power of two just above every number; 0 for a zero."""
    return torch.frexp(largest).exponent.to(torch.int64)


def blocks(stack: Stack, dtype: torch.dtype, powers: Int64[Tensor, "count"]) -> Iterator[Stack]:
    """Blocks of rows, converted to ``dtype`` and divided by two to the power of each matrix.

    Each is contiguous, or its transpose is if that of the stack is.
    """
    large = stack.dtype in (torch.float64, torch.complex128)  # must not meet float32 unscaled
    wide = stack.dtype if large else dtype
    half = powers // 2  # in two steps, since the inverse of the least float is no float
    factors = [
        torch.from_numpy(np.ldexp(1.0, -power.numpy()))[:, None, None].to(stack.device, wide)
        for power in (half, powers - half)
        if powers.any()
    ]
    for start, stop in _ranges(stack, dtype):
        part = stack[:, start:stop]
        turned = part.stride(1) == 1
        shape = part.mT.shape if turned else part.shape
        room = torch.empty(shape, dtype=wide, device=stack.device)
        block = (room.mT if turned else room).copy_(part)
        for factor in factors:
            block *= factor
        yield block.to(dtype)


def whole(stack: Stack, dtype: torch.dtype, powers: Int64[Tensor, "count"]) -> Stack:
    """The blocks together."""
    return torch.cat(list(blocks(stack, dtype, powers)), dim=1)


def _ranges(stack: Stack, dtype: torch.dtype) -> Iterator[tuple[int, int]]:
    """Ranges of rows: a block takes BLOCK bytes in ``dtype``, or an eighth of the Gram."""
    count, rows, columns = stack.shape
    step = max(1, columns // 8, BLOCK // (count * columns * dtype.itemsize))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
