"""Priors: laws of networks that were fixed before the examples that the bound counts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.posteriors import categorical_kl, diagonal_kl, full_kl, isotropic_kl
from tailor.stages.certify.gibbs.head import GaussianHead
from tailor.stages.certify.gibbs.network import DiscreteWeights, GaussianWeights
from tailor.stages.certify.gibbs.posterior import Learner, Posterior
from tailor.tasks import Data

ROUNDING = (
    2.0**-20
)  # a learned prior is rounded to these steps, so that other machines learn it too


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorTerms:
    """A prior as it stands in a certificate.

    Attributes:
        kind: Which prior.
        grid: Its scales, probabilities of 0, or the widening of one that was learned.
        share: Expected share of the examples that it was learned from, or None.
        salt: Of that cut, or None.
        n: Number of examples that it was learned from.
    """

    kind: str
    grid: tuple[float, ...]
    share: float | None = None
    salt: str | None = None
    n: int = 0


class Prior(ABC):
    """A law of networks that does not depend on the examples that the bound counts."""

    @abstractmethod
    def terms(self, first: Data | None) -> PriorTerms:
        """What a certificate says of it."""

    @abstractmethod
    def cut(self, data: Data) -> tuple[Data | None, Data]:
        """The examples that the prior may be made with, or None, and those that count."""

    @abstractmethod
    def divergence(self, posterior: Posterior, first: Data | None) -> float:
        """KL(posterior || prior) in nats, rounded up, with the price of a grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centred(Prior):
    """Independent normal weights of mean 0, or of a mean fixed before the data.

    With several scales the prior is, for each group of weights, their mixture in equal parts:
    KL from a mixture is at most KL from its best member plus ln of their number, so each group
    pays that and takes its own.

    Attributes:
        scales: Standard deviations. One is enough for `GaussianHead`, and for networks whose
            decisions do not change when a layer is scaled.
    """

    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise UsageError(f"a prior needs finite scales above 0, but got {self.scales}")

    def terms(self, first: Data | None) -> PriorTerms:
        """See ``Prior.terms``."""
        del first
        return PriorTerms(kind="centred", grid=self.scales)

    def cut(self, data: Data) -> tuple[Data | None, Data]:
        """See ``Prior.cut``: nothing is cut off."""
        return None, data

    def divergence(self, posterior: Posterior, first: Data | None) -> float:
        """See ``Prior.divergence``.

        Raises:
            UsageError: The posterior is not Gaussian, or has no positive spread.
        """
        del first
        if isinstance(posterior, GaussianHead):
            mean, factor = _flat(posterior), posterior.triangle()
            return _mixture(isotropic_kl(mean, factor, scale) for scale in self.scales)
        if isinstance(posterior, GaussianWeights):
            return _sum(
                _mixture([_around_zero(mean, deviation, scale) for scale in self.scales])
                for mean, deviation in posterior.pairs()
            )
        raise _misfit(self, posterior)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePrior(Prior):
    """Independent weights on the levels of a grid: 0 with one probability, the others alike.

    Attributes:
        zeros: Probabilities of the level 0; a mixture of them for each tensor, as in `Centred`.
    """

    zeros: tuple[float, ...] = (0.8,)

    def __post_init__(self) -> None:
        if not self.zeros or not all(0 < share < 1 for share in self.zeros):
            raise UsageError(
                f"probabilities of 0 must lie strictly between 0 and 1, but are {self.zeros}"
            )

    def terms(self, first: Data | None) -> PriorTerms:
        """See ``Prior.terms``."""
        del first
        return PriorTerms(kind="sparse", grid=self.zeros)

    def cut(self, data: Data) -> tuple[Data | None, Data]:
        """See ``Prior.cut``: nothing is cut off."""
        return None, data

    def divergence(self, posterior: Posterior, first: Data | None) -> float:
        """See ``Prior.divergence``.

        Raises:
            UsageError: The posterior is not discrete, or 0 is none of its levels.
        """
        del first
        if not isinstance(posterior, DiscreteWeights) or 0.0 not in posterior.levels:
            raise _misfit(self, posterior)
        levels = torch.tensor(posterior.levels, dtype=torch.float64)
        return _sum(
            _mixture([categorical_kl(table, _sparse(levels, zero)) for zero in self.zeros])
            for table in posterior.tables()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FromPart(Prior):
    """A Gaussian learned from a part of the examples; the bound counts the others only.

    The part is cut off by a hash of each example before anything is fitted, so n is the number
    of the other examples. The learned mean and the root of its precision are rounded to steps of
    2^-20 relative to their size, and the rounded law is the prior.

    Attributes:
        learn: From the part to a `GaussianHead`. It is run again by whoever checks, so it must
            be deterministic.
        share: Expected share of the part, strictly in (0, 1).
        salt: Makes another cut; fixed before the data are seen.
        widen: Factor of the prior's deviations, fixed before the data are seen.
    """

    learn: Learner = field(repr=False)
    share: float
    salt: str
    widen: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 < self.widen < math.inf:
            raise UsageError(
                "a prior that is learned from data needs a share of them strictly between 0 and "
                f"1 and a finite widening above 0, but got {self.share} and {self.widen}"
            )

    def terms(self, first: Data | None) -> PriorTerms:
        """See ``Prior.terms``."""
        count = 0 if first is None else len(first)
        return PriorTerms(
            kind="from part", grid=(self.widen,), share=self.share, salt=self.salt, n=count
        )

    def cut(self, data: Data) -> tuple[Data | None, Data]:
        """See ``Prior.cut``."""
        return data.split(self.share, self.salt)

    def divergence(self, posterior: Posterior, first: Data | None) -> float:
        """See ``Prior.divergence``.

        Raises:
            UsageError: There is no part, or the laws are not of the same features and classes.
        """
        if first is None:
            raise UsageError("a prior that is learned from data needs the part that it may see")
        learned = self.learn(first)
        if not isinstance(posterior, GaussianHead) or not isinstance(learned, GaussianHead):
            raise _misfit(self, posterior)
        if posterior.mean.shape != learned.mean.shape:
            raise _misfit(self, posterior)
        mean, root = self.law(learned)
        return full_kl(_flat(posterior), posterior.triangle(), mean, root)

    def law(self, learned: GaussianHead) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, "d d"]]:
        """Mean of the prior, and an upper triangular R so that its precision is R R'."""
        factor = learned.triangle()
        eye = torch.eye(len(factor), dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        return _rounded(_flat(learned)), _rounded(inverse.T / self.widen).triu()


def _flat(head: GaussianHead) -> Float64[Tensor, "dim"]:
    return head.mean.detach().to(torch.float64).flatten()


def _around_zero(mean: Tensor, deviation: Tensor, scale: float) -> float:
    zero = torch.zeros_like(mean)
    return diagonal_kl(mean, deviation, zero, zero + scale)


def _sparse(levels: Float64[Tensor, "levels"], zero: float) -> Float64[Tensor, "levels"]:
    law = torch.full_like(levels, (1 - zero) / (len(levels) - 1))
    law[levels == 0] = zero
    return law


def _mixture(members: Iterable[float]) -> float:
    """Divergence from the best member of a grid, plus ln of the number of members."""
    grid = [*members]
    price = math.nextafter(math.log(len(grid)), math.inf) if len(grid) > 1 else 0.0
    return _sum([min(grid), price])


def _sum(parts: Iterable[float]) -> float:
    """Their sum, rounded up."""
    return math.nextafter(math.fsum(parts), math.inf)


def _rounded(values: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """To whole multiples of a power of 2 near 2^-20 of the largest."""
    largest = float(values.abs().max())
    step = 2.0 ** math.ceil(math.log2(largest)) * ROUNDING if largest > 0 else 1.0
    return torch.round(values / step) * step


def _misfit(prior: Prior, posterior: Posterior) -> UsageError:
    return UsageError(
        f"{type(prior).__name__} is no prior for this {type(posterior).__name__}: use Centred or "
        "FromPart for Gaussian laws (FromPart for a GaussianHead of the same features and "
        "classes), and SparsePrior for discrete ones with a level 0"
    )
