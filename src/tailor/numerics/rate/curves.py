"""Bits at a given error: of a quantiser, of any code, of pruning alone, of samples."""

import math
from dataclasses import dataclass
from statistics import median

import numpy as np

from tailor.errors import UsageError
from tailor.numerics.codebooks import nearest_levels, step_within
from tailor.numerics.coding.entropy import order0_bits
from tailor.numerics.rate.laws import Law
from tailor.numerics.rate.quantised import below, rate_at, surprise


def rate(law: Law, error: float) -> float:
    """Bits a weight of an entropy-coded uniform quantiser at a relative squared error.

    Cell by cell by numerical integration, to about 1e-6 bits.

    Raises:
        UsageError: The error lies outside (0, 1), or the law's variance is infinite, so that the
            relative error depends on the sample; see ``sampled_rate``.
    """
    return rate_at(law, check_error(error) * _finite_variance(law))


def gaussian_limit(error: float) -> float:
    """Shannon's rate-distortion function of the Gaussian law, (1/2) log2(1 / D) bits."""
    return -0.5 * math.log2(check_error(error))


def shannon_lower_bound(law: Law, error: float) -> float:
    """No code for independent weights takes fewer bits: h(X) - (1/2) log2(2 pi e D), or 0.

    D is the mean squared error and h the differential entropy (Shannon 1959).

    Raises:
        UsageError: As for ``rate``.
    """
    lost = check_error(error) * _finite_variance(law)
    edges = np.concatenate([[0.0], 2.0 ** np.arange(-60, 120, 0.5)])
    return max(0.0, surprise(law, edges) - 0.5 * math.log2(2 * math.pi * math.e * lost))


def kept(law: Law, error: float) -> float:
    """The least share of weights that pruning alone may keep at a relative squared error.

    Raises:
        UsageError: As for ``rate``.
    """
    lost = check_error(error) * _finite_variance(law)
    low, high = 0.0, math.sqrt(law.variance())
    while below(law, high, 2) < lost:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(law, middle, 2) < lost else (low, middle)
    return 1 - below(law, high, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRate:
    """What samples of a law gave.

    Where the variance is infinite, the largest of the n weights decide: more weights take fewer
    bits each, and equal samples differ.

    Attributes:
        bits: Median of the bits a weight at the relative squared error.
        low: Least bits among the samples.
        high: Most bits.
        kept: Median of the least share that pruning alone may keep.
        n: Number of weights in a sample.
        samples: Number of samples.
    """

    bits: float
    low: float
    high: float
    kept: float
    n: int
    samples: int


def sampled_rate(law: Law, error: float, *, n: int, seed: int = 0, samples: int = 5) -> SampledRate:
    """Quantise samples of n weights to that error, and measure their order-0 entropy.

    For every law, also those of infinite variance.

    Raises:
        UsageError: The error lies outside (0, 1).
    """
    found, shares = [], []
    for number in range(samples):
        values = law.draw(n, seed + number)
        step = step_within(values, check_error(error))
        found.append(math.inf if step is None else order0_bits(nearest_levels(values, step)) / n)
        rest = np.cumsum(np.sort(np.square(values)))
        shares.append(1 - int(np.searchsorted(rest, error * rest[-1], side="right")) / n)
    return SampledRate(
        bits=median(found),
        low=min(found),
        high=max(found),
        kept=median(shares),
        n=n,
        samples=samples,
    )


def check_error(error: float) -> float:
    """The relative squared error, if it is one.

    Raises:
        UsageError: It lies outside (0, 1).
    """
    if not 0 < error < 1:
        raise UsageError(f"a relative squared error must lie between 0 and 1, but is {error}")
    return error


def _finite_variance(law: Law) -> float:
    variance = law.variance()
    if math.isinf(variance):
        raise UsageError(
            f"{law} has no variance, so the relative error depends on the sample; "
            "use sampled_rate with the number of weights"
        )
    return variance
