"""The bulk of a spectrum: Marchenko & Pastur's law fitted to it, as WeightWatcher does.

The N x M entries of a matrix of pure noise with standard deviation s give eigenvalues of W^T W
(not divided by N, N >= M) that fill the interval s^2 (sqrt N -+ sqrt M)^2 (Marchenko & Pastur
1967). The fit is done on eigenvalues rescaled to mean 1, where Q = N / M, and sigma = 1 for
such noise.

``mp_fit=True`` of WeightWatcher 0.7.7 is reproduced step by step: least squares between the law
and a kernel density of the spectrum. The density does not depend on sigma, so it is computed
once here, and all trial values of sigma are compared with it at once. Its sigma is pulled up by
spikes and smoothed by the kernel; ``tailor.numerics.edge`` has an estimate without these flaws
and the threshold that belongs to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit

Misfit: TypeAlias = Callable[[Any], Any]  # of a sigma or of an array of them

LEAST = 8  # eigenvalues; the least that WeightWatcher analyzes (min_evals)
BANDWIDTH = 0.1  # this and the next three: WeightWatcher 0.7.7, RMT_Util.resid_mp
GRID = 1000
MARGIN = 0.5
THIN = 0.01  # where the density is lower than this, the law is not compared with it
TRIALS = (0.05, 2.0, 0.01)  # first, end and step in units of the sigma that reaches lambda_max
TOLERANCE = 1e-4  # of Nelder & Mead's search; the default of scipy.optimize.fmin


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """Marchenko & Pastur's law in a spectrum.

    ``low``, ``high`` and ``threshold`` have the units of the eigenvalues that were given; sigma
    belongs to eigenvalues of mean 1. An entry of the noise has the standard deviation
    sigma / (scale * sqrt(N)).

    Attributes:
        sigma: Least-squares estimate; WeightWatcher's ``sigma_mp``. For a square matrix it is
            only a height: WeightWatcher's quarter circle ends at 2 whatever sigma is.
        scale: sqrt(n / sum of the eigenvalues), the factor that brings the matrix to mean
            eigenvalue 1; ``W_scale``.
        low: Lower edge of the fitted law; ``bulk_min``.
        high: Upper edge; ``bulk_max``.
        threshold: Upper edge plus WeightWatcher's allowance for fluctuations.
        spikes: Number of eigenvalues above ``threshold``; ``num_spikes``, and ``num_traps``
            for the spectrum of shuffled weights (correlation traps).
        softrank: ``high`` over the largest eigenvalue; ``mp_softrank``. Above 1 if the
            largest eigenvalue lies inside the bulk.
        n: Number of eigenvalues, zeros included.
    """

    sigma: float
    scale: float
    low: float
    high: float
    threshold: float
    spikes: int
    softrank: float
    n: int


def marchenko_pastur(
    eigenvalues: Float[ndarray, "n"],
    *,
    rows: int,
    columns: int,
    count: int = 1,
) -> Bulk | NoFit:
    """Fit Marchenko & Pastur's law to the eigenvalues of W^T W and count the spikes above it.

    The result does not depend on the scale of W, apart from fields in the units of the
    eigenvalues. WeightWatcher reports the least sigma that it tries, and meaningless edges,
    where no bulk is found; here this is a ``NoFit``.

    Args:
        eigenvalues: Squared singular values of one matrix, or of ``count`` matrices of equal
            shape pooled, in any order. If there are fewer than count * min(rows, columns),
            the others are taken to be zero.
        rows: One side of one matrix.
        columns: Other side; the order does not matter.
        count: Number of pooled matrices.

    Raises:
        UsageError: An eigenvalue is negative, NaN or infinite, there are too many, or a size
            is not positive.
    """
    x = whole_spectrum(eigenvalues, rows=rows, columns=columns, count=count)
    if isinstance(x, NoFit):
        return x
    long, short = max(rows, columns), min(rows, columns)
    scale = math.sqrt(len(x) / float(x.sum()))
    sigma = _least_squares_sigma(x * (scale * scale), long / short)
    if sigma is None:
        return NoFit(reason="no Marchenko-Pastur law has its bulk where the spectrum has", n=len(x))
    low, high, threshold = (t / scale**2 for t in _edges(sigma, long / short, short))
    return Bulk(
        sigma=sigma,
        scale=scale,
        low=low,
        high=high,
        threshold=threshold,
        spikes=int(np.count_nonzero(x > threshold)),
        softrank=high / float(x[-1]),
        n=len(x),
    )


def whole_spectrum(
    eigenvalues: Float[ndarray, "n"], *, rows: int, columns: int, count: int
) -> Float[ndarray, "total"] | NoFit:
    """The eigenvalues in rising order, with the zeros that were left out.

    Raises:
        UsageError: See ``marchenko_pastur``.
    """
    if min(rows, columns, count) < 1:
        raise UsageError(f"sizes must be positive, but are {rows} x {columns}, count {count}")
    x, total = np.sort(np.asarray(eigenvalues, dtype=np.float64)), min(rows, columns) * count
    if not np.isfinite(x).all():
        raise UsageError("eigenvalues must be finite, but some are NaN or infinite")
    if len(x) > total:
        raise UsageError(f"{len(x)} eigenvalues came, but matrices of this size have {total}")
    if len(x) and x[0] < -1e-6 * abs(x[-1]):  # what is smaller is rounding of a Gram matrix
        raise UsageError(f"eigenvalues of W^T W are not negative, but the least is {x[0]:g}")
    if total < LEAST:
        return NoFit(reason=f"{total} eigenvalues, needs {LEAST}", n=total)
    if len(x) == 0 or x[-1] <= 0:
        return NoFit(reason="all eigenvalues are zero", n=total)
    return np.concatenate([np.zeros(total - len(x)), np.maximum(x, 0.0)])


def _edges(sigma: float, Q: float, short: int) -> tuple[float, float, float]:
    """(lower edge, upper edge, WeightWatcher's threshold) for eigenvalues of mean 1."""
    low = (sigma * (1 - 1 / math.sqrt(Q))) ** 2
    high = (sigma * (1 + 1 / math.sqrt(Q))) ** 2
    allowance = 1 / math.sqrt(Q) * high ** (2 / 3) * short ** (-2 / 3)
    return low, high, high + math.sqrt(allowance)


def _least_squares_sigma(x: Float[ndarray, "n"], Q: float) -> float | None:
    """Sigma of the law nearest to the kernel density; None if no trial value is admitted.

    Args:
        x: Eigenvalues of mean 1 in rising order.
        Q: Aspect ratio N / M; at 1 the singular values are compared with a quarter circle.
    """
    reach = math.sqrt(float(x[-1]) / (1 + 1 / math.sqrt(Q)) ** 2)
    grid, density = _kernel_density(np.sqrt(x) if Q == 1 else x)
    trials = np.arange(*(part * reach for part in TRIALS))
    if Q == 1:
        circle = _quarter_circle(grid, density)
        return _nelder_mead(circle, float(trials[np.argmin(circle(trials))]))
    misfits = _misfit(trials, Q, grid, density)
    best = int(np.argmin(misfits))
    if not np.isfinite(misfits[best]):
        return None
    return _nelder_mead(
        lambda sigma: float(_misfit(np.array([sigma]), Q, grid, density)[0]), float(trials[best])
    )


def _kernel_density(x: Float[ndarray, "n"]) -> tuple[Float[ndarray, "g"], Float[ndarray, "g"]]:
    """Triangular-kernel density of rising x on a grid, without the grid points where it is thin.

    A triangle is the second difference of ramps, and the sum of ramps (t - x)+ over all x
    needs only how many x lie below t and their sum.
    """
    grid = np.linspace(0, x[-1] + MARGIN, GRID)
    sums = np.append(0.0, np.cumsum(x))
    density = _ramps(x, sums, grid + BANDWIDTH) - 2 * _ramps(x, sums, grid)
    density += _ramps(x, sums, grid - BANDWIDTH)
    density /= len(x) * BANDWIDTH**2
    thick = density > THIN
    return grid[thick], density[thick]


def _ramps(
    x: Float[ndarray, "n"], sums: Float[ndarray, "m"], t: Float[ndarray, "t"]
) -> Float[ndarray, "t"]:
    """Sum of (t - x)+ over all x, whose partial sums are given, from 0 on."""
    below = np.searchsorted(x, t)
    area: ndarray = below * t - sums[below]
    return area


def _quarter_circle(x: Float[ndarray, "g"], density: Float[ndarray, "g"]) -> Misfit:
    """Sum of squared differences between a quarter circle and the density, of one or many sigmas.

    The circle of WeightWatcher has its radius fixed at 2, so sigma only scales it.
    """
    circle = np.sqrt(np.maximum(4 - x * x, 0.0)) / math.pi
    first, second = float(circle @ density), float(circle @ circle)
    third = float(density @ density)

    def misfit(sigma: Any) -> Any:
        height = 1 / (sigma * sigma)
        return second * height * height - 2 * first * height + third

    return misfit


def _misfit(
    sigmas: Float[ndarray, "s"], Q: float, x: Float[ndarray, "g"], density: Float[ndarray, "g"]
) -> Float[ndarray, "s"]:
    """Sum of squared differences between law and density, for each sigma.

    Infinite where the upper edge of the law lies below the density's peak or beyond its end,
    or the lower edge above the peak.
    """
    squares = (sigmas * sigmas)[:, None]
    high = squares[:, 0] * (1 + math.sqrt(1 / Q)) ** 2
    low = squares[:, 0] * (1 - math.sqrt(1 / Q)) ** 2
    peak = x[np.argmax(density)]
    admitted = (high >= peak) & (high <= x[-1]) & (low <= peak)
    misfits = np.full(len(sigmas), np.inf)
    inside = (high[admitted, None] - x) * (x - low[admitted, None])
    law = np.sqrt(np.maximum(inside, 0.0, out=inside), out=inside)
    law *= Q / (2 * math.pi) / (squares[admitted] * np.where(x > 0, x, 1.0))
    law -= density
    misfits[admitted] = np.einsum("ij,ij->i", law, law)
    return misfits


def _nelder_mead(f: Callable[[float], float], start: float) -> float:
    """Where f is least near ``start``, by the simplex search of Nelder & Mead (1965) on a line.

    Step for step scipy.optimize.fmin with its defaults, as the misfit has several minima: which
    of them is found, and how closely, is part of what ``sigma`` means.
    """
    best, worst = (f(start), start), (f(1.05 * start), 1.05 * start)
    for _ in range(200):
        best, worst = sorted((best, worst), key=itemgetter(0))
        at, other = best[1], worst[1]
        if abs(other - at) <= TOLERANCE and abs(worst[0] - best[0]) <= TOLERANCE:
            break
        mirrored = _at(f, 2 * at - other)
        if mirrored[0] < best[0]:
            farther = _at(f, 3 * at - 2 * other)
            worst = farther if farther[0] < mirrored[0] else mirrored
            continue
        if mirrored[0] < worst[0]:
            nearer, bound = _at(f, 1.5 * at - 0.5 * other), mirrored[0]
            accepted = nearer[0] <= bound
        else:
            nearer, bound = _at(f, 0.5 * at + 0.5 * other), worst[0]
            accepted = nearer[0] < bound
        worst = nearer if accepted else _at(f, at + 0.5 * (other - at))
    return min(best, worst, key=itemgetter(0))[1]


def _at(f: Callable[[float], float], x: float) -> tuple[float, float]:
    return f(x), x
