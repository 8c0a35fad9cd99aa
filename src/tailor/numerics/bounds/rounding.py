"""Rounding outward, and the checks that every bound makes of its numbers."""

import math
from collections.abc import Callable

import numpy as np

from tailor.errors import UsageError

LN2 = math.log(2)
EPS = float(np.finfo(np.float64).eps)
STEPS = 200  # a bisection stops earlier, when no float lies between its ends


def up(value: float) -> float:
    """The next float but three: covers the rounding of a few operations."""
    for _ in range(4):
        value = math.nextafter(value, math.inf)
    return value


def share_up(errors: int, n: int) -> float:
    """The share errors / n, rounded up but never above 1."""
    return min(1.0, up(errors / n)) if errors else 0.0


def first_beyond(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """The end on the safe side of a bisection: ``beyond`` holds there, or it is ``high``.

    Args:
        beyond: False below a root and true above it; may say false near the root when
            rounding leaves it in doubt.
        low: Where ``beyond`` is taken to be false.
        high: A number that is safe whatever ``beyond`` says.
    """
    for _ in range(STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if beyond(middle):
            high = middle
        else:
            low = middle
    return high


def root_above(
    excess: Callable[[float], tuple[float, float, float]], low: float, p: float
) -> float:
    """A p at which an increasing function is certified to lie above 0, and hardly above its root.

    Newton's steps in u = -ln(1 - p), in which the function must be convex: they end above the root.
    The bracket only guards against rounding.

    Args:
        excess: Gives the function, a bound on its rounding error, and its slope by u.
        low: Where the function is not above 0; the answer lies in (low, 1].
        p: A first guess.
    """
    high = 1.0
    for _ in range(STEPS):
        if not low < p < high:
            p = (low + high) / 2
            if not low < p < high:
                break
        value, slack, slope = excess(p)
        step = (value - 1.5 * slack) / slope if slope > 0 else -math.inf
        ahead = p - math.expm1(min(step, 50.0)) * (1 - p)
        if value <= slack:
            low, p = p, max(ahead, p + 2 * EPS * p)
            continue
        high = p
        if value <= 2 * slack or ahead >= p - 4 * EPS * p:
            break
        p = ahead
    return high


def chernoff_guess(q: float, c: float) -> float:
    """Where (p - q)^2 / (2 v) = c: above the root of kl(q, p) = c, or 1.

    The variance v of a coin between q and p is at most p, at most 1/4, and for q >= 1/2 at most
    that of q.
    """
    variance = q * (1 - q) if q > 0.5 else 0.25
    return min(1.0, q + min(c + math.sqrt(c * (c + 2 * q)), math.sqrt(2 * c * variance)))


def check_counts(errors: int, n: int) -> None:
    """Refuse a sample without examples and a count outside 0 to n."""
    if n < 1:
        raise UsageError(f"a bound needs at least one example, but n is {n}")
    if not 0 <= errors <= n:
        raise UsageError(f"errors must lie between 0 and n = {n}, but is {errors}")


def check_delta(delta: float) -> None:
    """Refuse a failure probability outside (0, 1)."""
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie strictly between 0 and 1, but is {delta}")


def check_share(name: str, value: float) -> None:
    """Refuse a risk outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must lie between 0 and 1, but is {value}")


def check_length(bits: float) -> None:
    """Refuse a code length that is negative, infinite or not a number."""
    if not 0 <= bits < math.inf:
        raise UsageError(f"a code length must be 0 bits or more, but is {bits}")


def check_positive(name: str, value: float) -> None:
    """Refuse anything but a finite number above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be a finite number above 0, but is {value}")


def check_kl(kl: float) -> None:
    """Refuse a divergence that is negative, infinite or not a number."""
    if not 0 <= kl < math.inf:
        raise UsageError(f"a divergence must be 0 nats or more, but is {kl}")
