"""Where noise ends: the level of the noise in a spectrum, and the largest eigenvalue it explains.

The median of the spectrum gives a first estimate of the noise (Gavish & Donoho 2014, section
3E), which spikes hardly move; the mean of the eigenvalues that this noise explains gives a
sharper one. The largest eigenvalue of noise follows Tracy & Widom's law for real matrices
(Johnstone 2001), so a threshold with a stated probability can be given.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.bulk import whole_spectrum
from tailor.numerics.powerlaw.fit import NoFit

CAUTIOUS = 0.999  # probability of the edge that parts spikes from noise to estimate (by us)

# Upper tail probabilities of Tracy & Widom's law for real matrices and their quantiles,
# from the Fredholm determinant of Ferrari & Spohn (2005), equation 1.
TAIL = (
    *(0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3),
    *(1e-3, 5e-4, 2e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6),
)
QUANTILE = (
    *(-1.2686, -0.7752, -0.1653, 0.4501, 0.9793, 1.5978, 2.0234, 2.4223, 2.9174),
    *(3.2722, 3.6129, 4.0448, 4.3594, 4.8849, 5.3443, 5.8290, 6.2564),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseEdge:
    """The largest eigenvalue that noise explains.

    Both sigmas belong to eigenvalues of mean 1, to compare with ``Bulk.sigma``: 1 if all is
    noise, less the more of the squared norm is in spikes.

    Attributes:
        sigma: Level of the noise, from the mean of what the noise explains.
        sigma_median: Level of the noise, from the median.
        deviation: Standard deviation of an entry of the noise, in the units of the weights.
        edge: With the probability ``level`` no eigenvalue of such noise exceeds this, all
            pooled matrices together; in the units of the eigenvalues.
        level: That probability.
        spikes: Number of eigenvalues above ``edge``.
        n: Number of eigenvalues, zeros included.
    """

    sigma: float
    sigma_median: float
    deviation: float
    edge: float
    level: float
    spikes: int
    n: int


def noise_edge(
    eigenvalues: Float[ndarray, "n"],
    *,
    rows: int,
    columns: int,
    count: int = 1,
    level: float = 0.95,
) -> NoiseEdge | NoFit:
    """Estimate the noise in the eigenvalues of W^T W (not divided by N) and count what is above.

    Entries of the noise are taken to be independent and of equal variance with finite fourth
    moment. Trained weights need not be so: a count far above zero says that they are no such
    noise, not that each spike is a feature.

    Args:
        eigenvalues: Squared singular values of one matrix, or of ``count`` matrices of equal
            shape pooled, in any order. If there are fewer than count * min(rows, columns),
            the others are taken to be zero.
        rows: One side of one matrix.
        columns: Other side; the order does not matter.
        count: Number of pooled matrices.
        level: Probability that pure noise stays below ``edge``, in [0.5, 1).

    Raises:
        UsageError: An eigenvalue is negative, NaN or infinite, there are too many, or a size
            or the level is outside its range.
    """
    if not 0.5 <= level < 1:
        raise UsageError(f"level must lie in [0.5, 1), but is {level}")
    x = whole_spectrum(eigenvalues, rows=rows, columns=columns, count=count)
    if isinstance(x, NoFit):
        return x
    long, short = max(rows, columns), min(rows, columns)
    first = float(np.median(x)) / (long * marchenko_pastur_median(short / long))
    explained = x[x <= first * tracy_widom_edge(long, short, CAUTIOUS ** (1 / count))]
    # A spike takes one dimension of the rows with it, on average over the pooled matrices.
    dimensions = long - (len(x) - len(explained)) / count
    variance = float(explained.mean()) / dimensions if first > 0 else 0.0
    edge = variance * tracy_widom_edge(long, short, level ** (1 / count))
    share = long * len(x) / float(x.sum())
    return NoiseEdge(
        sigma=math.sqrt(variance * share),
        sigma_median=math.sqrt(first * share),
        deviation=math.sqrt(variance),
        edge=edge,
        level=level,
        spikes=int(np.count_nonzero(x > edge)),
        n=len(x),
    )


def marchenko_pastur_median(ratio: float) -> float:
    """Median of Marchenko & Pastur's law of variance 1 and ratio M / N in (0, 1].

    With x = 1 + ratio + 2 sqrt(ratio) cos(phi) the density becomes
    2 sin(phi)^2 / (pi x), which has an integral in closed form; its middle is bisected.
    """
    A, B = 1 + ratio, 2 * math.sqrt(ratio)
    narrow = (1 - math.sqrt(ratio)) / (1 + math.sqrt(ratio))

    def above(phi: float) -> float:
        turn = math.atan(narrow * math.tan(phi / 2))
        whole = (A * phi - 2 * (1 - ratio) * turn) / B**2 - math.sin(phi) / B
        return 2 / math.pi * whole

    low, high = 0.0, math.pi
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) < 0.5 else (low, middle)
    return A + B * math.cos(low)


def tracy_widom_edge(long: int, short: int, level: float) -> float:
    """Value that the largest eigenvalue of W^T W stays below with probability ``level``.

    For noise of variance 1: Johnstone (2001), theorem 1.1, with Tracy & Widom's law for real
    matrices, and with both sides less one half, which makes it exact to second order
    (Ma 2012, theorem 1).
    """
    n, p = math.sqrt(long - 0.5), math.sqrt(short - 0.5)
    centre, spread = (n + p) ** 2, (n + p) * math.cbrt(1 / n + 1 / p)
    return centre + spread * tracy_widom_quantile(level)


def tracy_widom_quantile(level: float) -> float:
    """Quantile of Tracy & Widom's law for real matrices, ``level`` from 0.5 to 1 - 1e-6.

    From a table, linear in the logarithm of the tail probability: exact to the four digits of
    the table at its points (0.9, 0.95, 0.98, 0.99, ...), between them up to 0.02 too low, which
    is 2 % of the tail probability.
    """
    tail = math.log(max(1 - level, TAIL[-1]))
    quantile = np.interp(-tail, [-math.log(p) for p in TAIL], QUANTILE)
    return float(quantile)
