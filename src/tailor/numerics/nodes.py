"""Laws of node scales: how much each node of a layer counts, so that few of them count most.

Node j of a layer with p nodes has a scale lambda_j >= 0, and its outgoing weights are
sqrt(lambda_j) V[:, j] with V normal. The scales are independent, with a law that depends on p
such that their sum has a limit law as p grows. Where p P(lambda > x) tends to 0 the wide layer
is a Gaussian process; where it tends to something else, few nodes matter however many there are
(Lee, Ayed, Jung, Lee, Yang & Caron 2022, arXiv 2205.08187).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError

LEAST_SCALE = 1e-300  # smaller scales count as this one, so that logarithms stay finite
_LARGEST_LOG = 700.0  # exp of it is still a double
_LEAST_LOG_T = -14.0  # a smaller t changes the density by less than 1e-6, and costs digits
_TERMS = 18  # of a series in u < 1 whose k-th term is below u^k / k!


class NodeLaw(ABC):
    """The law of the scales of a layer's nodes; positive, and dependent on their number p."""

    fixed: ClassVar[bool] = False  # whether the law leaves nothing to learn

    @abstractmethod
    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """Independent scales of the p nodes of a layer, in double precision.

        Raises:
            UsageError: p is below 1.
        """

    @abstractmethod
    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """Logarithm of the density of one scale in a layer of p nodes; differentiable.

        Computed in double precision, returned in the precision of ``scales``. Scales below
        1e-300 count as 1e-300.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal(NodeLaw):
    """Every scale is 1/p: independent normal weights, the usual start. Nothing is to be learnt."""

    fixed: ClassVar[bool] = True

    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """See ``NodeLaw.sample``; nothing is drawn."""
        _check_nodes(p)
        return torch.full((p,), 1 / p, dtype=torch.float64, device=generator.device)

    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """Zero: a constant has probability one."""
        return torch.zeros_like(scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class Horseshoe(NodeLaw):
    """lambda = (pi C / (2 p))^2 with C half-Cauchy (Carvalho, Polson & Scott 2010).

    p P(lambda > x) tends to x^(-1/2), so the sum of all scales tends to a positive stable law of
    index 1/2, namely the Levy law of scale pi/2, whose median is 3.45.
    """

    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """See ``NodeLaw.sample``."""
        cauchy = _random(p, generator).standard_cauchy(p)
        return _tensor((math.pi / (2 * p) * cauchy) ** 2, generator)

    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """See ``NodeLaw.log_density``."""
        x = _double(scales)
        per_unit = 2 * p / math.pi  # C = per_unit sqrt(lambda)
        constant = math.log(per_unit / math.pi)
        log = constant - 0.5 * x.log() - torch.log1p(per_unit**2 * x)
        return log.to(scales.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseGamma(NodeLaw):
    """Inverse gamma scales of a tail index; below index 1 their sum is in the limit stable.

    The scale parameter in a layer of p nodes is ``scale`` / p^max(1, 1/shape). Above shape 1 the
    sum tends to the constant scale / (shape - 1), so the wide layer is a Gaussian process; below
    it tends to a positive stable law of index ``shape``. At shape 1 there is no limit.

    Attributes:
        shape: Tail index: P(lambda > x) falls like x^-shape. Lee et al. (2022) take 2.
        scale: All scales are proportional to it.
    """

    shape: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.shape > 0 and self.scale > 0) or self.shape == 1:
            raise UsageError(
                "InverseGamma needs shape > 0 other than 1 (where the sum of the scales has no "
                f"limit) and scale > 0, but got {self.shape} and {self.scale}"
            )

    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """See ``NodeLaw.sample``."""
        gamma = np.maximum(_random(p, generator).standard_gamma(self.shape, p), LEAST_SCALE)
        return _tensor(math.exp(self._log_scale(p)) / gamma, generator)

    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """See ``NodeLaw.log_density``."""
        log_x, log_scale = _double(scales).log(), self._log_scale(p)
        constant = self.shape * log_scale - math.lgamma(self.shape)
        inverse = (log_scale - log_x).clamp(max=_LARGEST_LOG).exp()
        return (constant - (self.shape + 1) * log_x - inverse).to(scales.dtype)

    def _log_scale(self, p: int) -> float:
        return math.log(self.scale) - max(1.0, 1 / self.shape) * math.log(p)


@dataclass(frozen=True, slots=True, kw_only=True)
class GGP(NodeLaw):
    """Jumps of a generalised gamma process, a tilted stable one, by p independent scales.

    The density is proportional to x^(-1-alpha) exp(-beta x) (1 - exp(-t x)), where t grows with p
    (Lee, Miscouridou & Caron 2016). In the limit the sum has the Levy density
    mean beta^(1-alpha) / Gamma(1-alpha) x^(-1-alpha) exp(-beta x), and mean ``mean``: between
    many small scales the law is a power law, and large ones are exponentially rare.

    Attributes:
        alpha: Power of the small scales, in (0, 1); larger leaves more of the sum to small ones.
        beta: Rate of the exponential decay.
        mean: Mean of the sum of all scales in the limit.
    """

    alpha: float = 0.5
    beta: float = 1.0
    mean: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and self.beta > 0 and self.mean > 0):
            raise UsageError(
                "GGP needs alpha in (0, 1), beta > 0 and mean > 0, but got "
                f"{self.alpha}, {self.beta} and {self.mean}"
            )

    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """See ``NodeLaw.sample``."""
        random = _random(p, generator)
        log_low, log_high = math.log(self.beta), self._log_high(p)
        return _tensor(_tilted_stable(random, self.alpha, log_low, log_high, p), generator)

    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """See ``NodeLaw.log_density``."""
        x = _double(scales)
        constant = _log_constant(self.alpha, math.log(self.beta), self._log_high(p))
        power = constant - (1 + self.alpha) * x.log() - self.beta * x
        log = power + _log_one_minus_exp(x.log() + self._log_t(p))
        return log.to(scales.dtype)

    def _log_t(self, p: int) -> float:
        """Where the power law begins: t^alpha = alpha p / (mean beta^(1-alpha))."""
        level = self.alpha * p / self.mean
        return (math.log(level) - (1 - self.alpha) * math.log(self.beta)) / self.alpha

    def _log_high(self, p: int) -> float:
        return float(np.logaddexp(math.log(self.beta), self._log_t(p)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GBFRY(NodeLaw):
    """Generalised BFRY scales: one power law for small scales and another for large ones.

    A scale is c X Z: X as in ``GGP`` with beta = 1, Z Pareto with tail index ``tau``, and
    c = mean (tau - 1) / (tau - alpha) (Ayed, Lee & Caron 2019; Lee et al. 2022). In the limit the
    Levy density falls like x^(-1-alpha) near 0 and like x^(-1-tau) at infinity.

    Attributes:
        alpha: Power of the small scales, in (0, 1).
        tau: Tail index of the large scales, above 1; Lee et al. (2022) train with 5.
        mean: Mean of the sum of all scales in the limit.
    """

    alpha: float = 0.5
    tau: float = 5.0
    mean: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 < self.tau < math.inf and self.mean > 0):
            raise UsageError(
                "GBFRY needs alpha in (0, 1), tau > 1 and mean > 0, but got "
                f"{self.alpha}, {self.tau} and {self.mean}"
            )

    def sample(self, p: int, generator: torch.Generator) -> Float[Tensor, "p"]:
        """See ``NodeLaw.sample``."""
        random = _random(p, generator)
        small = _tilted_stable(random, self.alpha, 0.0, self._log_high(p), p)
        return _tensor(self._factor() * small * (1 + random.pareto(self.tau, p)), generator)

    def log_density(self, scales: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
        """See ``NodeLaw.log_density``."""
        y = _double(scales) / self._factor()
        log_high = self._log_high(p)
        constant = _log_constant(self.alpha, 0.0, log_high) + math.log(self.tau / self._factor())
        log_gap = _log_gap(self.tau - self.alpha, y.log(), log_high)
        return (constant - (1 + self.alpha) * y.log() + log_gap).to(scales.dtype)

    def _factor(self) -> float:
        return self.mean * (self.tau - 1) / (self.tau - self.alpha)

    def _log_high(self, p: int) -> float:
        """log(1 + t) with t^alpha = alpha p tau / (tau - alpha)."""
        log_t = math.log(self.alpha * p * self.tau / (self.tau - self.alpha)) / self.alpha
        return float(np.logaddexp(0.0, max(log_t, _LEAST_LOG_T)))


def _check_nodes(p: int) -> None:
    if p < 1:
        raise UsageError(f"a layer needs at least one node, but p is {p}")


def _random(p: int, generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator that one draw of the given one determines: torch draws no gamma law."""
    _check_nodes(p)
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))


def _tensor(values: Float[ndarray, "p"], generator: torch.Generator) -> Float[Tensor, "p"]:
    return torch.from_numpy(np.maximum(values, LEAST_SCALE)).to(generator.device)


def _double(scales: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return scales.to(torch.float64).clamp(min=LEAST_SCALE)


def _tilted_stable(
    random: np.random.Generator, alpha: float, log_low: float, log_high: float, p: int
) -> Float[ndarray, "p"]:
    """Values of density proportional to x^(-1-alpha) (exp(-low x) - exp(-high x)).

    They are G / R with G gamma of shape 1 - alpha and R^alpha uniform from low^alpha to
    high^alpha: the integral of exp(-r x) over r gives the difference.
    """
    share = random.random(p)
    span = math.expm1(alpha * (log_high - log_low))
    log_rate = log_low + np.log1p(share * span) / alpha
    values: ndarray = random.standard_gamma(1 - alpha, p) * np.exp(-log_rate)
    return values


def _log_constant(alpha: float, log_low: float, log_high: float) -> float:
    """Logarithm of what makes the density of ``_tilted_stable`` integrate to one."""
    span = alpha * log_low + math.log(math.expm1(alpha * (log_high - log_low)))
    return math.log(alpha) - math.lgamma(1 - alpha) - span


def _log_one_minus_exp(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 - exp(-u)), also where u is too small for the subtraction."""
    u = log_u.clamp(min=-30, max=_LARGEST_LOG).exp()
    return torch.where(log_u < -30, log_u, (-torch.expm1(-u)).log())


# The incomplete gamma integral of order s with the power taken out is, for u > 0,
# h(u) = int_0^1 v^(s-1) exp(-u v) dv, which falls from 1/s to 0. Differences of it survive where
# those of the incomplete gamma function are lost to rounding.


def _log_gap(s: float, log_y: Float[Tensor, "*shape"], log_high: float) -> Float[Tensor, "*shape"]:
    """log(h(y) - h(y high)), by the way that loses fewer digits."""
    y = log_y.clamp(max=_LARGEST_LOG).exp()
    u = (log_y + log_high).clamp(max=_LARGEST_LOG).exp()
    share = _gamma_share(s, u)
    left = share * (math.lgamma(s) - s * u.clamp(min=1).log()).exp()  # h(u), for u >= 1
    fallen = torch.where(u < 1, _fallen(s, u.clamp(max=1)), 1 / s - left)
    near = fallen - _fallen(s, y.clamp(max=1))
    far = _gamma_share(s, y) - share * math.exp(-s * log_high)
    log_far = far.log() + math.lgamma(s) - s * log_y
    return torch.where(log_y < 0, near.clamp(min=0).log(), log_far)


def _fallen(s: float, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1/s - h(u) for u <= 1: the sum over k >= 1 of -(-u)^k / (k! (s + k))."""
    k = torch.arange(1, _TERMS + 1, dtype=u.dtype, device=u.device)
    signs = 2 * (k % 2) - 1
    terms = u.unsqueeze(-1) ** k * (signs / ((s + k) * (k + 1).lgamma().exp()))
    return terms.sum(-1)


def _gamma_share(s: float, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The regularised incomplete gamma function; below u = 1 its value there."""
    share: Tensor = torch.special.gammainc(torch.full_like(u, s), u.clamp(min=1))
    return share
