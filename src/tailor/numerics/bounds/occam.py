"""The finite-hypothesis (Occam) bound: a predictor pays for its codeword."""

import math
from dataclasses import dataclass

from tailor.numerics.bounds.binomial import binomial_upper
from tailor.numerics.bounds.kl import kl_upper
from tailor.numerics.bounds.rounding import (
    LN2,
    check_counts,
    check_delta,
    check_length,
    share_up,
    up,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OccamBound:
    """Three forms of the finite-hypothesis (Occam) bound for one predictor.

    With probability at least 1 - delta over an i.i.d. sample of size n, for all predictors h
    of a prefix-free code at once, the true 0-1 error of h is at most each of these
    (Blumer et al. 1987; Langford 2005 for the binomial form).

    Attributes:
        binomial: Inversion of the binomial tail at level delta * 2^-bits: the tightest.
        kl: Inversion of the relative entropy (Chernoff form).
        hoeffding: Empirical error plus a square root.
        empirical: Observed share of errors.
    """

    binomial: float
    kl: float
    hoeffding: float
    empirical: float


def occam(errors: int, n: int, bits: float, delta: float) -> OccamBound:
    """Bound the true error of a predictor described by ``bits`` bits.

    Args:
        errors: Number of 0-1 errors on the sample.
        n: Sample size.
        bits: Length of the predictor's codeword in a prefix-free code fixed before the data.
        delta: Probability with which the bound may fail.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(errors, n)
    check_delta(delta)
    check_length(bits)
    nats = price(bits, delta)
    share = share_up(errors, n)
    return OccamBound(
        binomial=binomial_upper(errors, n, -nats),
        kl=kl_upper(share, up(nats / n)),
        hoeffding=min(1.0, up(share + up(math.sqrt(up(nats / (2 * n)))))),
        empirical=errors / n,
    )


def price(bits: float, delta: float) -> float:
    """ln(1 / (delta 2^-bits)) in nats, rounded up."""
    return up(bits * LN2 - math.log(delta))
