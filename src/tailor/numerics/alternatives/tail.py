"""A tail without its scale, and what a law fitted to it gives.

Every law is fitted to t = ln(x / xmin) >= 0 rather than to x, so that no result depends on the
units; a density of x is the density of t divided by x.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Values at or above xmin.

    Attributes:
        xmin: Where the tail begins.
        log: t = ln(x / xmin).
        excess: x / xmin - 1.
    """

    xmin: float
    log: Float[ndarray, "n"]
    excess: Float[ndarray, "n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """The member of a family of laws with the largest likelihood.

    Attributes:
        parameters: Names and values in the units of x; without those that are not finite
            in the limit.
        density: Log density of t at each value.
        limit: Whether the likelihood rises up to the family's border, which is a power law:
            no true member is better than the power law.
    """

    parameters: dict[str, float]
    density: Float[ndarray, "n"]
    limit: bool = False


def tail_above(values: Float[ndarray, "n"], xmin: float, least: int) -> Tail | NoFit:
    """The values at or above xmin, if there are enough and they differ.

    Raises:
        UsageError: xmin is not positive, or a value is NaN or infinite.
    """
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise UsageError("a tail fit needs finite values, but some are NaN or infinite")
    if not 0 < xmin < np.inf:
        raise UsageError(f"xmin must be positive and finite, but is {xmin}")
    x = x[x >= xmin]
    if len(x) < least:
        return NoFit(reason=f"{len(x)} values in the tail, needs {least}", n=len(x))
    log = np.log(x / xmin)
    if not np.ptp(log) > 0:
        return NoFit(reason="the values of the tail are all equal", n=len(x))
    return Tail(xmin=xmin, log=log, excess=(x - xmin) / xmin)


def power_law(tail: Tail) -> Member:
    """p(x) ~ x^-alpha; t is exponential with rate alpha - 1 (Clauset et al. 2009, eq. 3.1)."""
    index = 1 / float(tail.log.mean())
    return Member(parameters={"alpha": 1 + index}, density=np.log(index) - index * tail.log)


def falling_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where the falling function f crosses zero between low (f > 0) and high (f < 0).

    False position with halved weights (the Illinois rule: Dowell & Jarratt 1971), which keeps
    the bracket and needs no derivative.
    """
    above, below, side = f(low), f(high), 0
    middle = low
    for _ in range(100):
        middle = (low * below - high * above) / (below - above)
        value = f(middle)
        if value == 0 or high - low <= 1e-14 * abs(high):
            break
        if value > 0:
            low, above = middle, value
            below = below / 2 if side > 0 else below
            side = 1
        else:
            high, below = middle, value
            above = above / 2 if side < 0 else above
            side = -1
    return middle
