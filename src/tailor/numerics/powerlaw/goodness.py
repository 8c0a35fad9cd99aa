"""Could a power law have produced a tail as far from its fit as this one?

A semi-parametric bootstrap (Clauset, Shalizi & Newman 2009, section 4.1): replicates follow the
fitted power law above xmin and the sample itself below, each is fitted anew, and the p-value is
the share of replicates that lie at least as far from their fits as the sample from its own.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.clauset import Clauset, RobustClauset, candidates
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit, TailFit, positive
from tailor.numerics.powerlaw.search import any_closer, different


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodnessOfFit:
    """How often a true power law lies as far from its fit as the sample does.

    Attributes:
        p: Share of replicates with a KS distance of at least ``D``. A small p speaks against
            the power law (Clauset, Shalizi & Newman 2009 reject at 0.1 and below); a large one
            does not speak for it, least of all with few values.
        error: Binomial standard error of ``p``; 0 where all replicates agree, and then p is
            uncertain by about 3 / replicates.
        replicates: Replicates that could be fitted.
        D: KS distance of the sample.
    """

    p: float
    error: float
    replicates: int
    D: float


def p_value(
    values: Float[ndarray, "n"], method: TailFit, *, replicates: int = 100, seed: int = 0
) -> GoodnessOfFit | NoFit:
    """Goodness of the power law that ``method`` fits to the positive values.

    Each replicate has as many values as the fit considered. Each value is, with probability
    n_tail / n, a draw from the fitted power law, otherwise one of those below xmin.

    Args:
        values: The sample; order does not matter.
        method: Fits the sample and each replicate. ``Clauset`` and ``RobustClauset`` are quick:
            a replicate's search ends at the first tail closer than the sample's, since the
            least distance is then certainly smaller.
        replicates: Size of the bootstrap. The standard error of p is at most
            0.5 / sqrt(replicates).
        seed: Seed of the replicates.

    Returns:
        The p-value, or why there is none: the sample, or half of the replicates, has no fit.

    Raises:
        UsageError: A value is NaN or infinite, or there is no replicate.
    """
    if replicates < 1:
        raise UsageError(f"a p-value needs at least 1 replicate, but replicates is {replicates}")
    method = _without_interval(method)
    fit = method.fit(values)
    if isinstance(fit, NoFit):
        return fit
    draws = _replicates(positive(values)[-fit.n :], fit, replicates, seed)
    if isinstance(method, Clauset | RobustClauset):
        answers = [_as_far_quickly(body, tail, method, fit) for body, tail in draws]
    else:
        answers = [_as_far(body, tail, method, fit) for body, tail in draws]
    known = [answer for answer in answers if answer is not None]
    if 2 * len(known) < replicates:
        return NoFit(reason=f"only {len(known)} of {replicates} replicates have a fit", n=fit.n)
    p = sum(known) / len(known)
    error = float(np.sqrt(p * (1 - p) / len(known)))
    return GoodnessOfFit(p=p, error=error, replicates=len(known), D=fit.D)


def _without_interval(method: TailFit) -> TailFit:
    """The same method without its bootstrap interval, which nobody would look at here."""
    if not hasattr(method, "bootstrap"):
        return method
    settings: Any = method
    plain: TailFit = dataclasses.replace(settings, bootstrap=0)
    return plain


def _replicates(
    x: Float[ndarray, "n"], fit: PowerLawFit, replicates: int, seed: int
) -> Iterator[tuple[Float[ndarray, "a"], Float[ndarray, "b"]]]:
    """Logarithms of each replicate, unsorted: values below xmin, values of the tail."""
    generator = np.random.default_rng(seed)
    log = np.log(x)
    below = len(x) - fit.n_tail
    for _ in range(replicates):
        in_tail = int(generator.binomial(len(x), fit.n_tail / len(x)))
        drawn = generator.integers(0, max(below, 1), len(x) - in_tail)
        tail = generator.standard_exponential(in_tail) / (fit.alpha - 1)
        yield log[drawn], float(np.log(fit.xmin)) + tail


def _as_far_quickly(
    body: Float[ndarray, "a"],
    tail: Float[ndarray, "b"],
    method: Clauset | RobustClauset,
    fit: PowerLawFit,
) -> bool | None:
    """``_as_far``, without finding the best tail: is any tail closer than the sample's?"""
    log = np.concatenate((np.sort(body), np.sort(tail)))
    among = candidates(method, *different(log))
    return None if isinstance(among, NoFit) else not any_closer(among, fit.D)


def _as_far(
    body: Float[ndarray, "a"], tail: Float[ndarray, "b"], method: TailFit, fit: PowerLawFit
) -> bool | None:
    """Whether the refitted replicate is at least as far from its fit; None without a fit."""
    again = method.fit(np.exp(np.concatenate((body, tail))))
    return None if isinstance(again, NoFit) else again.D >= fit.D
