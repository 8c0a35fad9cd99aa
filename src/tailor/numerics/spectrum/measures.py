"""Numbers that a spectrum gives: pure functions of eigenvalues of A^H A in rising order."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

ENTROPY_OFFSET = 1e-10  # added to every share by WeightWatcher 0.7.7, and so here


def stable_rank(eigenvalues: Float[ndarray, "n"]) -> float:
    """Squared Frobenius norm over squared spectral norm; 0 for a zero matrix.

    Lies between 1 and the rank and does not change when the matrix is scaled
    (Rudelson & Vershynin 2007).
    """
    if eigenvalues.size == 0 or eigenvalues[-1] == 0:
        return 0.0
    return float((eigenvalues / eigenvalues[-1]).sum())


def entropy(eigenvalues: Float[ndarray, "n"], rank: int) -> float:
    """Entropy of the shares of the eigenvalues, over that of ``rank`` equal ones.

    -sum p ln p / ln(rank), where p is the share of an eigenvalue in their sum plus 1e-10, as
    ``matrix_entropy`` of WeightWatcher 0.7.7 has it. About 1 for equal eigenvalues, near 0 where
    one outweighs the rest; 0 for a rank of 0 or 1, where the quotient means nothing.
    """
    if rank < 2 or eigenvalues.size == 0 or eigenvalues[-1] == 0:
        return 0.0
    shares = _over_sum(eigenvalues) + ENTROPY_OFFSET
    return float(-(shares * np.log(shares)).sum() / np.log(rank + ENTROPY_OFFSET))


def positive_floor(
    eigenvalues: Float[ndarray, "n"],
    *,
    rows: int,
    columns: int,
    dtype: torch.dtype = torch.float64,
) -> float:
    """What an eigenvalue has to exceed to be no rounding error, for instance in a tail fit.

    max(rows, columns) x eps x the largest, for a spectrum computed in ``dtype``. The threshold
    is relative, so a fit to the rest does not depend on the scale of the matrix.
    """
    if eigenvalues.size == 0:
        return 0.0
    return max(rows, columns) * torch.finfo(dtype).eps * float(eigenvalues[-1])


def determinant_count(eigenvalues: Float[ndarray, "n"]) -> int:
    """How many of the largest eigenvalues have a product of about one, their mean being one.

    The count at which the product, taken from the largest downwards, first falls below 1; all of
    them if it never does (``detX`` of WeightWatcher 0.7.7). 0 where all eigenvalues are equal.
    """
    if eigenvalues.size < 2 or eigenvalues[0] == eigenvalues[-1]:
        return 0
    with np.errstate(divide="ignore"):  # the logarithm of a zero eigenvalue is -inf, as it should
        logs = np.log(_over_sum(eigenvalues)[::-1]) + np.log(eigenvalues.size)
    below = np.flatnonzero(np.cumsum(logs) < 0)
    return int(below[0]) + 1 if len(below) > 0 else int(eigenvalues.size)


def _over_sum(eigenvalues: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Shares of the sum, which itself may be too large for a float."""
    ratios = eigenvalues / eigenvalues[-1]
    shares: ndarray = ratios / ratios.sum()
    return shares
