"""What the spectrum would be if the entries of a matrix were independent."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

GRID = 400  # angles at which the law is computed before it is thinned


def marchenko_pastur_survival(
    *, rows: int, columns: int, count: int, norm: float, points: int
) -> tuple[Float[ndarray, "k"], Float[ndarray, "k"]]:
    """Eigenvalues x of W^T W, rising, and the share of all that are at least x.

    Marchenko & Pastur's law (1967) for real or complex matrices of independent entries of mean 0
    and equal variance, in the limit of large matrices. With x = s^2 N (1 + c + 2 sqrt(c) cos(phi)),
    c = M / N, the density becomes 2 sin(phi)^2 / (pi x), which has an integral in closed form. The
    curve ends where less than half an eigenvalue is left.

    Args:
        rows: One side of one matrix.
        columns: Other side; the order does not matter.
        count: Number of pooled matrices.
        norm: Root of the sum of squares of all their entries, from which the variance comes.
        points: At most so many points.
    """
    long, short = max(rows, columns), min(rows, columns)
    ratio, variance = short / long, norm * norm / (rows * columns * count)
    phi = np.pi * np.linspace(1, 0, GRID) ** 2  # dense near the upper edge
    A, B = 1 + ratio, 2 * math.sqrt(ratio)
    narrow = (1 - math.sqrt(ratio)) / (1 + math.sqrt(ratio))
    turn = np.arctan2(narrow * np.sin(phi / 2), np.cos(phi / 2))
    share = 2 / np.pi * ((A * phi - 2 * (1 - ratio) * turn) / B**2 - np.sin(phi) / B)
    x = variance * long * (A + B * np.cos(phi))
    kept = np.flatnonzero((share * short * count >= 0.5) & (x > 0))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, points).round().astype(int))]
    return x[kept], np.minimum(share[kept], 1.0)
