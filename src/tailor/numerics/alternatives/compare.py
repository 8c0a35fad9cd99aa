"""Likelihood-ratio tests of a power law against its rivals (Vuong 1989).

The tests follow Clauset, Shalizi & Newman (2009), section 5 and appendix C. What they cannot
say: the lognormal and the stretched exponential have the power law as a limit, so at their true
maximum they are never worse, and the sign of R cannot speak for the power law. On a true power
law R is near zero with a large p.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.alternatives.rivals import exponential, lognormal, stretched_exponential
from tailor.numerics.alternatives.tail import Member, power_law, tail_above
from tailor.numerics.alternatives.truncated import cut_off
from tailor.numerics.powerlaw.fit import NoFit

LEAST = 10  # values in the tail; tuned by us, since the tests hold for many values
FAMILIES = {  # name: (fit, whether the power law is one of its members)
    "exponential": (exponential, False),
    "lognormal": (lognormal, False),
    "stretched_exponential": (stretched_exponential, False),
    "truncated_power_law": (cut_off, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another law against the power law.

    Attributes:
        name: Name of the law.
        parameters: Its maximum-likelihood parameters, in the units of the values:
            ``rate``; ``mu`` and ``sigma`` of ln x; ``log_rate`` and ``beta``; ``alpha`` and
            ``rate``. Empty if they grow without bound (``limit``).
        loglik: Log likelihood of the tail.
        R: Log likelihood of the power law less that of the rival: above 0 speaks for the
            power law.
        normalized: R / (sqrt(n) times the standard deviation of its terms).
        p: Two-sided probability of so large an R if neither law is the better one: Vuong's
            normal law, or for ``nested`` laws the chi-square law of 2 |R| with one degree of
            freedom (conservative, since the power law lies on the border of the rival).
        nested: Whether the power law is a member of the rival family.
        limit: Whether no member of the family is better than the power law; R is then 0.
    """

    name: str
    parameters: dict[str, float]
    loglik: float
    R: float
    normalized: float
    p: float
    nested: bool
    limit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """A power law above xmin and the laws that it was compared with.

    Attributes:
        alpha: Density exponent of the power law.
        xmin: Where the tail begins.
        loglik: Log likelihood of the power law.
        n_tail: Number of values at or above xmin.
        rivals: One for each law, in the order of ``FAMILIES``.
    """

    alpha: float
    xmin: float
    loglik: float
    n_tail: int
    rivals: tuple[Rival, ...]


def compare(values: Float[ndarray, "n"], xmin: float) -> Alternatives | NoFit:
    """Fit the power law and its rivals to the values at or above xmin, and test them.

    xmin is taken as given, though it was chosen to suit the power law; where that matters,
    the test leans towards it.

    Args:
        values: Positive values in any order; those below xmin are left out.
        xmin: Where the tail begins, for instance from a ``TailFit``.

    Raises:
        UsageError: xmin is not positive, or a value is NaN or infinite.
    """
    tail = tail_above(values, xmin, LEAST)
    if isinstance(tail, NoFit):
        return tail
    n = len(tail.log)
    logs = n * math.log(xmin) + float(tail.log.sum())  # from densities of t to those of x
    law = power_law(tail)
    rivals = tuple(
        _tested(name, nested, law, fit(tail), logs) for name, (fit, nested) in FAMILIES.items()
    )
    return Alternatives(
        alpha=law.parameters["alpha"],
        xmin=xmin,
        loglik=float(law.density.sum()) - logs,
        n_tail=n,
        rivals=rivals,
    )


def _tested(name: str, nested: bool, law: Member, rival: Member, logs: float) -> Rival:
    """Vuong (1989), equation 5.6, or the chi-square test of nested laws."""
    terms = law.density - rival.density
    R = float(terms.sum())
    deviation = math.sqrt(len(terms)) * float(terms.std())
    if rival.limit or deviation == 0:
        R, normalized, p = 0.0, 0.0, 1.0
    else:
        normalized = R / deviation
        p = math.erfc(math.sqrt(abs(R)) if nested else abs(normalized) / math.sqrt(2))
    return Rival(
        name=name,
        parameters=rival.parameters,
        loglik=float(rival.density.sum()) - logs,
        R=R,
        normalized=normalized,
        p=p,
        nested=nested,
        limit=rival.limit,
    )
