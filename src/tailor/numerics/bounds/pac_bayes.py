"""PAC-Bayes bounds on the risk of a Gibbs (randomised) predictor.

The prior is fixed before the sample; each bound then holds, with probability at least
1 - delta, for all posteriors at once. It speaks of the predictor that draws a fresh network for
every prediction, not of the mean or of the majority vote.
"""

import math
from collections.abc import Sequence

from tailor.errors import UsageError
from tailor.numerics.bounds.binomial import held_out_upper
from tailor.numerics.bounds.kl import kl_upper
from tailor.numerics.bounds.rounding import (
    check_counts,
    check_delta,
    check_kl,
    check_positive,
    check_share,
    up,
)


def pac_bayes_kl(risk: float, n: int, kl: float, delta: float) -> float:
    """Largest p with kl(risk, p) <= (KL + ln(2 sqrt(n) / delta)) / n, rounded up.

    Langford & Seeger (2001) with the constant of Maurer (2004), proved there for n >= 8; for
    smaller n the sum that it bounds lies below 2 sqrt(n) too. For losses in [0, 1].

    Args:
        risk: Expected empirical loss of the posterior, or an upper bound on it.
        n: Sample size.
        kl: KL(posterior || prior) in nats, rounded up.
        delta: Probability with which the bound may fail.

    Raises:
        UsageError: A number is outside its range.
    """
    _check(risk, n, kl, delta)
    nats = up(up(kl + math.log(2 * math.sqrt(n))) - math.log(delta))
    return kl_upper(risk, up(nats / n))


def catoni(risk: float, n: int, kl: float, delta: float, beta: float) -> float:
    """(1 - exp(-beta risk - (KL + ln(1/delta)) / n)) / (1 - exp(-beta)), rounded up, at most 1.

    Catoni (2007, section 1.2), for losses in [0, 1]. ``beta`` is fixed before the sample; see
    `catoni_grid` for one that is not. Its smallest value over beta is the inverse relative
    entropy at (KL + ln(1/delta)) / n.

    Args:
        risk: Expected empirical loss of the posterior, or an upper bound on it.
        n: Sample size.
        kl: KL(posterior || prior) in nats, rounded up.
        delta: Probability with which the bound may fail.
        beta: Inverse temperature per example, above 0.

    Raises:
        UsageError: A number is outside its range.
    """
    _check(risk, n, kl, delta)
    check_positive("beta", beta)
    nats = up(up(kl - math.log(delta)) / n)
    exponent = up(up(beta * risk) + nats)
    return min(1.0, up(math.expm1(-exponent) / math.expm1(-beta)))


def catoni_grid(risk: float, n: int, kl: float, delta: float, betas: Sequence[float]) -> float:
    """Smallest of Catoni's bounds over a grid declared before the sample, each at delta / size.

    What the choice of beta costs: ln(size of the grid) nats. `pac_bayes_kl` needs no grid.

    Args:
        risk: Expected empirical loss of the posterior, or an upper bound on it.
        n: Sample size.
        kl: KL(posterior || prior) in nats, rounded up.
        delta: Probability with which the bound may fail.
        betas: The grid.

    Raises:
        UsageError: A number is outside its range, or the grid is empty.
    """
    check_delta(delta)
    if not betas:
        raise UsageError("a grid needs at least one beta, but has none")
    return min(catoni(risk, n, kl, delta / len(betas), beta) for beta in betas)


def gibbs_risk_upper(errors: int, draws: int, delta: float) -> float:
    """Upper bound on a Gibbs predictor's empirical risk from fresh draws.

    Every draw takes an example uniformly from the sample and a fresh network from the posterior,
    independent of all other draws: the pooled errors are then binomial (Clopper & Pearson 1934).
    A network that serves many examples is one draw, not many.

    Args:
        errors: Number of draws in which the network erred.
        draws: Number of draws, fixed beforehand.
        delta: Probability with which the bound may fail, to be added to the PAC-Bayes bound's.

    Raises:
        UsageError: A number is outside its range.
    """
    return held_out_upper(errors, draws, delta)


def majority_vote_upper(gibbs: float) -> float:
    """Twice a bound on the Gibbs risk: holds for the majority vote of the same posterior.

    Where the vote errs, at least half of the posterior does (Langford & Shawe-Taylor 2002).
    """
    check_share("a risk", gibbs)
    return min(1.0, 2 * gibbs)


def _check(risk: float, n: int, kl: float, delta: float) -> None:
    check_counts(0, n)
    check_delta(delta)
    check_share("an empirical risk", risk)
    check_kl(kl)
