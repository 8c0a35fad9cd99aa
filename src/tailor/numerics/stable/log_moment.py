"""Mohammadi, Mohammadpour & Ogata (2015): sums of m stable values are m^(1/index) times one."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit
from tailor.numerics.stable.fit import (
    LEAST_VALUES,
    StableEstimator,
    StableFit,
    around,
    distance,
    finite,
    ordered,
)

_GROUPS = 20  # disjoint parts whose spread gives the standard error
_LEAST_GROUP = 100  # with smaller parts the sample is resampled instead
_RESAMPLES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMoment(StableEstimator):
    """How fast sums of m values grow with m, on a logarithmic scale.

    Mohammadi, Mohammadpour & Ogata (2015), corollary 2.4: 1 / index is
    (mean log|sum of m values| - mean log|one value|) / log m. The estimate is the median over
    block sizes m and over random orders of the sample, at most 2, as in the code of Barsbey et
    al. (2021). With ``blocks=(), orders=0, center=False`` it is the estimator of Simsekli et
    al. (2019): one block size, the largest divisor of n that is at most sqrt(n), in the order
    given.

    The median is taken of 1 / index, so that a block size whose sums are smaller than single
    values (1 / index < 0) counts as light tails; in the code above it counts as the heaviest.
    Values and sums that are exactly 0 are left out of the means; if n is prime, so is one value.
    It is meant for symmetric stable values; there it is three to ten times less precise than
    the other methods, and it is misled as easily: Laplace values give an index of 1.75.

    Attributes:
        blocks: Candidate block sizes; each is lowered to a divisor of n, and those above n / 2
            are dropped. The largest divisor up to sqrt(n) is always added.
        orders: Random orders over which the median is taken; 0 takes the order as given.
        center: Subtract the median first (Barsbey et al. 2021).
        seed: Seed of the orders and of the standard error.
    """

    blocks: tuple[int, ...] = (2, 5, 10, 20, 50, 100, 500, 1000)
    orders: int = 5
    center: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.orders < 0 or any(block < 2 for block in self.blocks):
            raise UsageError(
                "orders must not be negative and blocks must be at least 2, but they are "
                f"{self.orders} and {self.blocks}"
            )

    def fit(self, values: Float[ndarray, "n"]) -> StableFit | NoFit:
        """See ``StableEstimator.fit``."""
        x = ordered(values)
        if isinstance(x, NoFit):
            return x
        rows = np.asarray(values, dtype=np.float64)[:, None]
        return _record(self, rows, x)


def log_moment_rows(
    rows: Float[ndarray, "n d"], method: LogMoment | None = None
) -> StableFit | NoFit:
    """The index shared by the coordinates of n vectors, by the multivariate log-moment method.

    The same formula with Euclidean norms in place of absolute values (Mohammadi, Mohammadpour &
    Ogata 2015, corollary 2.4); centring subtracts each coordinate's median. Vectors of common
    random length, such as elliptical ones, are seen here, while ``LogMoment.fit`` on all entries
    takes them for independent.

    Args:
        rows: One vector a row.
        method: Settings; ``LogMoment()`` if none are given.

    Raises:
        UsageError: A value is NaN or infinite.
    """
    x = finite(rows)
    if len(x) < LEAST_VALUES:
        return NoFit(reason=f"{len(x)} vectors, needs {LEAST_VALUES}", n=len(x))
    if not (x != x[0]).any():
        return NoFit(reason="all vectors are equal", n=len(x))
    return _record(method or LogMoment(), x, None)


def _record(
    method: LogMoment, rows: Float[ndarray, "n d"], x: Float[ndarray, "n"] | None
) -> StableFit | NoFit:
    """The fit to rows; x holds the values in rising order if there is one a row."""
    if method.center:
        rows = rows - np.median(rows, axis=0)
    generator = np.random.default_rng(method.seed)
    inverse = _inverse(rows, method, generator)
    if inverse is None:
        return NoFit(reason="more than half of the sums are 0", n=len(rows))
    index = 1 / max(inverse, 0.5)
    error, how = _error(rows, method, generator)
    sigma = index**2 * error  # from 1 / index to index
    low, high = around(index, sigma)
    return StableFit(
        index=index,
        sigma=sigma,
        low=low,
        high=high,
        interval=how,
        scale=None,
        location=None,
        skew=None,
        D=None if x is None else distance(x, index),
        n=len(rows),
        method="log-moment",
    )


def _inverse(rows: Float[ndarray, "n d"], method: LogMoment, generator: Generator) -> float | None:
    """1 / index: the median over orders of the median over block sizes; None if all are 0."""
    n, sizes = _sizes(len(rows), method.blocks)
    one = _mean_log(rows)
    found = []
    for _ in range(max(1, method.orders)):
        mixed = (generator.permutation(rows) if method.orders else rows)[:n]
        sums = [mixed.reshape(n // m, m, -1).sum(axis=1) for m in sizes]
        growth = [
            (_mean_log(total) - one) / math.log(m) for total, m in zip(sums, sizes, strict=True)
        ]
        found.append(float(np.median(growth)))
    inverse = float(np.median(found))
    return inverse if math.isfinite(inverse) else None


def _sizes(n: int, blocks: tuple[int, ...]) -> tuple[int, list[int]]:
    """How many values are used, and the block sizes, all of which divide that number."""
    while True:
        wanted = [block for block in blocks if block <= n / 2] + [math.isqrt(n)]
        lowered = [next(m for m in range(block, 0, -1) if n % m == 0) for block in wanted]
        sizes = [m for m in lowered if m > 1]
        if sizes:
            return n, sizes
        n -= 1  # n was prime


def _mean_log(rows: Float[ndarray, "n d"]) -> float:
    """Mean logarithm of the lengths that are not 0; minus infinity if most of them are."""
    size = np.abs(rows[:, 0]) if rows.shape[1] == 1 else np.linalg.norm(rows, axis=1)
    size = size[size > 0]
    return float(np.log(size).mean()) if 2 * len(size) >= len(rows) else -math.inf


def _error(
    rows: Float[ndarray, "n d"], method: LogMoment, generator: Generator
) -> tuple[float, str]:
    """Standard error of 1 / index, and how it was made."""
    n = len(rows)
    if n >= _GROUPS * _LEAST_GROUP:
        size = n // _GROUPS
        mixed = generator.permutation(rows) if method.orders else rows
        parts = [mixed[k * size : (k + 1) * size] for k in range(_GROUPS)]
        ratio = _rate(n, method.blocks) / _rate(size, method.blocks)
        how = f"spread over {_GROUPS} parts"
    else:
        parts = [rows[generator.integers(n, size=n)] for _ in range(_RESAMPLES)]
        ratio, how = 1.0, "bootstrap"
    found = [_inverse(part, method, generator) for part in parts]
    return float(np.std([value for value in found if value is not None], ddof=1)) * ratio, how


def _rate(n: int, blocks: tuple[int, ...]) -> float:
    """What the standard error of 1 / index is proportional to: n / m sums, each over log m."""
    n, sizes = _sizes(n, blocks)
    return float(np.median([math.sqrt(m / n) / math.log(m) for m in sizes]))
