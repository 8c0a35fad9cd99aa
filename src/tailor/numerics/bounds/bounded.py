"""Occam's bound for losses in a known range, and risks estimated from a subsample."""

import math
from dataclasses import dataclass

from tailor.errors import UsageError
from tailor.numerics.bounds.kl import kl_upper
from tailor.numerics.bounds.occam import price
from tailor.numerics.bounds.rounding import (
    check_counts,
    check_delta,
    check_length,
    check_positive,
    up,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedBound:
    """Two forms of the Occam bound for a loss in [0, loss_range], in the loss's own unit.

    Attributes:
        kl: Inversion of the relative entropy after rescaling to [0, 1]: the tighter.
        hoeffding: Empirical mean plus loss_range times a square root.
        empirical: Observed mean loss.
    """

    kl: float
    hoeffding: float
    empirical: float


def occam_bounded(
    risk: float, n: int, bits: float, delta: float, loss_range: float
) -> BoundedBound:
    """Bound the expected loss of a predictor described by ``bits`` bits.

    The relative entropy serves any loss in [0, 1] (Hoeffding 1963, theorem 1); the binomial
    tail does not.

    Args:
        risk: Mean loss on the sample, or an upper bound on it.
        n: Sample size.
        bits: Length of the predictor's codeword in a prefix-free code fixed before the data.
        delta: Probability with which the bound may fail.
        loss_range: Largest value that the loss can take; its smallest is 0.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(0, n)
    check_delta(delta)
    check_length(bits)
    share = _share(risk, loss_range)
    nats = price(bits, delta)
    root = up(math.sqrt(up(nats / (2 * n))))
    return BoundedBound(
        kl=_in_units(kl_upper(share, up(nats / n)), loss_range),
        hoeffding=min(loss_range, up(risk + up(loss_range * root))),
        empirical=risk,
    )


def smoothing_range(vocabulary: int, alpha: float) -> float:
    """Range in bits of the log loss of predictions mixed with a uniform: log2(1 + (1-a) V / a).

    With p_a = (1 - a) p + a / V over V symbols (Lotfi et al. 2024), -log2 p_a lies between
    -log2(1 - a + a / V) and log2(V / a). Subtract the former to have a loss from 0 on. A weight
    picked from M declared ones costs log2 M bits.

    Args:
        vocabulary: Number of symbols V.
        alpha: Weight a of the uniform distribution, in (0, 1).

    Raises:
        UsageError: A number is outside its range.
    """
    if vocabulary < 1:
        raise UsageError(f"a vocabulary needs at least one symbol, but has {vocabulary}")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha must lie strictly between 0 and 1, but is {alpha}")
    return up(math.log1p(up((1 - alpha) * vocabulary / alpha)) / math.log(2))


def subsampled_upper(risk: float, draws: int, delta: float, loss_range: float) -> float:
    """Upper bound on the mean loss over a sample from uniform draws out of it.

    The predictor is fixed before the draws. Counts of 0-1 errors get the tighter
    `held_out_upper`, with draws that put back; this form also serves draws that do not (Hoeffding
    1963, section 6).

    Args:
        risk: Mean loss over the draws.
        draws: Number of draws, fixed beforehand.
        delta: Probability with which the bound may fail, to be added to the other bound's.
        loss_range: Largest value that the loss can take; its smallest is 0.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(0, draws)
    check_delta(delta)
    share = _share(risk, loss_range)
    return _in_units(kl_upper(share, up(price(0.0, delta) / draws)), loss_range)


def _share(risk: float, loss_range: float) -> float:
    check_positive("loss_range", loss_range)
    if not 0 <= risk <= loss_range:
        raise UsageError(f"a mean loss must lie between 0 and {loss_range}, but is {risk}")
    return min(1.0, up(risk / loss_range)) if risk else 0.0


def _in_units(share: float, loss_range: float) -> float:
    return min(loss_range, up(share * loss_range))
