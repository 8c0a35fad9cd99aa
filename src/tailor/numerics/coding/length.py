"""Ideal code lengths in closed form, without running the coder."""

import math

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from tailor.numerics.coding.tensors import Plain, Raw, matrix

LN2 = math.log(2)
UNARY = 15  # levels up to here have an adaptive coin each; larger ones an Elias gamma escape


def code_length(tensor: Plain) -> dict[str, float]:
    """Ideal length of one tensor's code in bits, part by part.

    ``encode`` spends the sum over all tensors plus at most two bits, rounded up to bytes.
    """
    if isinstance(tensor, Raw):
        return {"mode": 1.0, "raw": 8.0 * len(tensor.data)}
    levels = matrix(tensor.levels)
    parts = min(
        (sparse_length(levels, r, c) for r in (False, True) for c in (False, True)),
        key=lambda option: sum(option.values()),
    )
    return {"mode": 3.0, "step": 1.0 if tensor.step == 1.0 else 17.0, **parts}


def sparse_length(matrix: Int[ndarray, "r c"], by_row: bool, by_column: bool) -> dict[str, float]:
    """Bits of a matrix whose rows and columns are flagged as live or not, part by part."""
    occupied = matrix != 0
    rows, columns = occupied.any(axis=1), occupied.any(axis=0)
    n_rows = int(rows.sum()) if by_row else len(rows)
    n_columns = int(columns.sum()) if by_column else len(columns)
    lines = (_flags_length(rows) if by_row else 0.0) + (
        _flags_length(columns) if by_column else 0.0
    )
    if n_rows == 0 or n_columns == 0:
        return {"rows and columns": lines}
    sizes = np.abs(matrix[occupied])
    top = max(1, int(sizes.max(initial=1)))
    return {
        "rows and columns": lines,
        "positions": _coin_length(n_rows * n_columns - len(sizes), len(sizes)),
        "signs": float(len(sizes)),
        "levels": _gamma_length(top) + _levels_length(sizes, top),
    }


def _flags_length(flags: Bool[ndarray, "n"]) -> float:
    before = np.concatenate([[True], flags])[: len(flags)]
    return sum(
        _coin_length(int((~flags[before == value]).sum()), int(flags[before == value].sum()))
        for value in (False, True)
    )


def _levels_length(sizes: Int[ndarray, "n"], top: int) -> float:
    bits = 0.0
    for reached in range(1, min(top - 1, UNARY) + 1):
        more = int((sizes > reached).sum())
        bits += _coin_length(int((sizes >= reached).sum()) - more, more)
    if top > UNARY:
        bits += sum(_gamma_length(int(size) - UNARY) for size in sizes[sizes > UNARY])
    return bits


def _coin_length(zeros: int, ones: int) -> float:
    """Bits that an adaptive coin spends on so many zeros and ones, in any order."""
    ratio = math.lgamma(zeros + 0.5) + math.lgamma(ones + 0.5) - math.lgamma(zeros + ones + 1)
    return (math.log(math.pi) - ratio) / LN2


def _gamma_length(value: int) -> float:
    return 2.0 * (value.bit_length() - 1) + 1.0
