"""Singular values of a matrix and the norms that they give."""

import torch
from jaxtyping import Float
from torch import Tensor


def singular_values(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "min_rows_cols"]:
    """All singular values in float64, largest first.

    The matrix is decomposed in float64 whatever its own type, so that small singular values
    keep their relative accuracy (a Gram matrix would square the condition number).
    """
    wide = matrix.detach().to(device="cpu", dtype=torch.float64)
    values: Tensor = torch.linalg.svdvals(wide)
    return values


def eigenvalues(values: Float[Tensor, "n"], rows: int, columns: int) -> Float[Tensor, "positive"]:
    """Eigenvalues of the Gram matrix: squared singular values that are not rounding error.

    Those up to max(rows, columns) x eps x the largest are left out. The threshold is relative,
    so a fit to the rest does not depend on the scale of the matrix.
    """
    squares = values.square()
    if squares.numel() == 0:
        return squares
    floor = max(rows, columns) * torch.finfo(squares.dtype).eps
    return squares[squares > floor * squares[0]]


def stable_rank(values: Float[Tensor, "n"]) -> float:
    """Squared Frobenius norm over squared spectral norm; 0 for a zero matrix.

    Lies between 1 and the rank and does not change when the matrix is scaled
    (Rudelson & Vershynin 2007).
    """
    if values.numel() == 0 or values[0] == 0:
        return 0.0
    ratios = values / values[0]
    return float((ratios * ratios).sum())
