"""The relative entropy between two coins, and its inverse rounded up."""

import math
from functools import partial

from tailor.errors import UsageError
from tailor.numerics.bounds.rounding import EPS, chernoff_guess, root_above


def kl_upper(q: float, c: float) -> float:
    """Largest p with kl(q, p) <= c, rounded up.

    kl is the relative entropy between two coins, in nats.

    Args:
        q: Observed share.
        c: Level in nats.

    Raises:
        UsageError: ``q`` is no share, or ``c`` is negative.
    """
    if not (0 <= q <= 1 and c >= 0):
        raise UsageError(f"needs a share in [0, 1] and c >= 0, but got {q} and {c}")

    guess = chernoff_guess(q, c)
    if guess == 1 and 0 < q < 1:
        guess = -math.expm1(math.log1p(-q) - (c - q * math.log(q)) / (1 - q))
    return root_above(partial(_excess, q, c), q, guess)


def _excess(q: float, c: float, p: float) -> tuple[float, float, float]:
    """(kl(q, p) - c, a bound on its rounding error, its slope by -ln(1 - p)), for q < p < 1."""
    hit = q * (math.log(q) - math.log(p)) if q > 0 else 0.0
    miss = (1 - q) * (math.log1p(-q) - math.log1p(-p))
    size = abs(hit) + abs(miss) - 2 * math.log(p) * q - 2 * math.log1p(-p) + c + 1
    return hit + miss - c, 8 * EPS * size, (p - q) / p
