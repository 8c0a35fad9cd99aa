"""The one place where a failure probability is split."""

import math
from dataclasses import dataclass

from tailor.errors import UsageError
from tailor.numerics.bounds.rounding import check_delta


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSplit:
    """Parts of a failure probability; by the union bound they add up to no more than the whole.

    Attributes:
        bound: For the generalization bound itself.
        monte_carlo: For a Gibbs risk estimated from draws.
        subsample: For an empirical risk estimated from a subsample.
        disagreement: For the step from one predictor to another.
        certificates: Number of certificates that share the whole.
    """

    bound: float
    monte_carlo: float = 0.0
    subsample: float = 0.0
    disagreement: float = 0.0
    certificates: int = 1

    @property
    def each(self) -> float:
        """The failure probability of one certificate."""
        return math.fsum((self.bound, self.monte_carlo, self.subsample, self.disagreement))


def split_delta(
    total: float,
    *,
    monte_carlo: float = 0.0,
    subsample: float = 0.0,
    disagreement: float = 0.0,
    certificates: int = 1,
) -> DeltaSplit:
    """Give the bound what the other parts leave; with J certificates, each part is a J-th.

    Args:
        total: Probability with which any of the printed certificates may fail.
        monte_carlo: Part of ``total`` for draws from a posterior.
        subsample: Part of ``total`` for a subsample.
        disagreement: Part of ``total`` for the step to another predictor.
        certificates: Number of certificates of which the best may be reported.

    Raises:
        UsageError: A part is negative, the parts leave nothing for the bound, or there is no
            certificate.
    """
    check_delta(total)
    if certificates < 1:
        raise UsageError(f"delta is split among 1 or more certificates, but got {certificates}")
    parts = (monte_carlo, subsample, disagreement)
    if not all(0 <= part < total for part in parts):
        raise UsageError(f"each part must lie between 0 and delta = {total}, but they are {parts}")
    share = tuple(part / certificates for part in parts)
    return DeltaSplit(
        bound=_remainder(total, share, certificates),
        monte_carlo=share[0],
        subsample=share[1],
        disagreement=share[2],
        certificates=certificates,
    )


def _remainder(total: float, share: tuple[float, ...], certificates: int) -> float:
    """Largest float near total / certificates - sum(share) that keeps the union within total."""
    bound = total / certificates - math.fsum(share)
    while bound > 0 and math.fsum((bound, *share) * certificates) > total:
        bound = math.nextafter(bound, 0.0)
    if bound <= 0:
        raise UsageError(f"the parts leave nothing of delta = {total} for the bound")
    return bound
