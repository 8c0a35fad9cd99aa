"""Finding the law of a last layer for which the PAC-Bayes bound itself is smallest."""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.bounds import pac_bayes_kl
from tailor.stages.certify.gibbs.head import GaussianHead, contrasts
from tailor.stages.certify.gibbs.posterior import pieces
from tailor.tasks import Data

CHUNK = 4096  # examples at a time
STARTS = ((0.1, 0.3, 1.0, 3.0), (2.0, 4.0, 8.0, 16.0, 32.0))  # precision per example; size of mean
PRICES = (0.5, 4.0)  # of an error, in nats: between these
FAINT = 1e-6  # examples that curve so much less than others are left out
LEAST = 1e-3  # step at which an attempt is given up
Law = tuple[Float[Tensor, "dim"], Float[Tensor, "dim dim"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a fit went.

    Attributes:
        risk: Expected errors per example, summed over rivals: at least the empirical risk.
        divergence: From the prior, in nats, as the fit computes it.
        bound: What these two would certify at this delta; certify computes the rest.
    """

    risk: float
    divergence: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Point:
    """A Gaussian with what the next step needs.

    Attributes:
        mean: Of the contrasts' coefficients, flat.
        precision: Inverse covariance.
        risk: Sum over examples and rivals of the probability of being beaten.
        divergence: KL from the prior.
        slope: Derivative of ``risk`` by the mean.
        curvature: Twice its derivative by the covariance.
    """

    mean: Float[Tensor, "dim"]
    precision: Float[Tensor, "dim dim"]
    risk: float
    divergence: float
    slope: Float[Tensor, "dim"]
    curvature: Float[Tensor, "dim dim"]


def fit_head(
    head: GaussianHead,
    data: Data,
    *,
    steps: int = 30,
    rate: float = 0.5,
    delta: float = 0.05,
    prior: Law | None = None,
    start: GaussianHead | None = None,
    dtype: torch.dtype = torch.float64,
) -> Fit:
    """Minimise KL + price x errors over all Gaussians, in place, by natural gradients.

    The expected errors of a Gaussian have a closed form up to a union over rivals: class k beats
    y with probability Phi(-a / s), where a and s^2 are the mean and the variance of their
    difference. By the identities of Bonnet and Price, the natural gradient of KL + price x errors
    moves the precision towards prior precision + price x 2 d errors / d covariance, and the mean
    along the new covariance (Khan & Lin 2017; Khan & Rue 2023, section 1.3). The price of an
    error is what the bound pays for one: minus the slope of kl(q, B) by q at the bound B
    (Catoni's beta at its optimum), so at the end the bound itself is stationary. A step that
    makes the objective worse is halved.

    Args:
        head: Set to the law that is found. Its features must be fixed before the data.
        data: The examples; the bound holds for whatever is done with them.
        steps: Evaluations of the gradient.
        rate: First step size.
        delta: For the price of an error.
        prior: Mean and root R of the precision R R'; independent standard normal by default.
        start: Law to start from; by default a ridge regression and the best of a few scales.
        dtype: Of the computation. Single precision is enough and twice as fast.

    Raises:
        UsageError: There are no examples, or no steps.
    """
    if len(data) < 1 or steps < 1:
        raise UsageError(f"a fit needs examples and steps, but got {len(data)} and {steps}")
    problem = _Problem.of(head, data, prior, dtype)
    price = 1.0
    found = problem.begin(start, price)
    for step in range(steps):
        moved = problem.move(found, rate, price)
        worse = moved.divergence + price * moved.risk > found.divergence + price * found.risk
        if worse and rate > LEAST:
            rate /= 2
            continue
        found, rate = moved, min(0.5, rate * 1.3)
        if step >= 4:
            price = _price(found, len(data), delta)
    root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(found.precision)))
    head.set(found.mean.view_as(head.mean), root)
    risk = min(1.0, found.risk / len(data))
    bound = pac_bayes_kl(risk, len(data), max(0.0, found.divergence), delta)
    return Fit(risk=risk, divergence=found.divergence, bound=bound)


def _price(point: _Point, n: int, delta: float) -> float:
    """Nats that an error costs where the bound is level: ln of the odds ratio of B and q."""
    q = min(0.5, max(point.risk, 0.5) / n)
    bound = min(0.99, pac_bayes_kl(q, n, max(0.0, point.divergence), delta))
    ratio = math.log(bound * (1 - q) / (q * (1 - bound))) if bound > q else 0.0
    return min(PRICES[1], max(PRICES[0], ratio))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """Features, labels and prior.

    Attributes:
        x: Features.
        y: Classes.
        basis: Contrasts.
        mean: Of the prior.
        precision: Of the prior.
        log_det: Of that precision.
    """

    x: Float[Tensor, "n width"]
    y: Int[Tensor, "n"]
    basis: Float[Tensor, "classes contrasts"]
    mean: Float[Tensor, "dim"]
    precision: Float[Tensor, "dim dim"]
    log_det: float

    @classmethod
    def of(
        cls, head: GaussianHead, data: Data, prior: Law | None, dtype: torch.dtype
    ) -> "_Problem":
        """Compute the features once."""
        with torch.no_grad():
            features = copy.deepcopy(head.features).to(torch.float64).eval()
            parts = torch.split(data.x, CHUNK)
            x = torch.cat([features(part.to(torch.float64)).to(dtype) for part in parts])
        size = head.mean.numel()
        mean, root = prior or (torch.zeros(size), torch.eye(size))
        root = root.to(torch.float64)
        return cls(
            x=x,
            y=data.y.long(),
            basis=contrasts(head.classes).to(dtype),
            mean=mean.to(dtype),
            precision=(root @ root.T).to(dtype),
            log_det=2 * float(root.diagonal().log().sum()),
        )

    def begin(self, start: GaussianHead | None, price: float) -> _Point:
        """The given law; or the prior's mean plus a ridge regression, at the best scales."""
        if start is not None:
            mean = start.mean.detach().flatten().to(self.x.dtype)
            triangle = start.triangle().to(self.x.dtype)
            return self.at(mean, torch.cholesky_inverse(triangle))
        gram = self.x.T @ self.x
        eye = torch.eye(len(gram), dtype=gram.dtype)
        target = self.x.T @ self.basis[self.y]
        fitted = torch.linalg.solve(gram + eye, target).T.flatten()
        contrast = torch.eye(self.basis.shape[1], dtype=gram.dtype)
        best: _Point | None = None
        for tau in STARTS[0]:
            precision = self.precision + tau * torch.kron(contrast, gram)
            for size in STARTS[1]:
                point = self.at(self.mean + size * fitted, precision, slopes=False)
                value = point.divergence + price * point.risk
                if best is None or value < best.divergence + price * best.risk:
                    best = point
        assert best is not None
        return self.at(best.mean, best.precision)

    def move(self, point: _Point, rate: float, price: float) -> _Point:
        """One natural gradient step; shorter where the precision would not be positive."""
        target = self.precision + price * point.curvature
        while True:
            precision = (1 - rate) * point.precision + rate * target
            root, failed = torch.linalg.cholesky_ex(precision)
            if int(failed) == 0:
                break
            rate /= 2
        slope = self.precision @ (point.mean - self.mean) + price * point.slope
        return self.at(
            point.mean - rate * torch.cholesky_solve(slope[:, None], root)[:, 0], precision
        )

    def at(
        self, mean: Float[Tensor, "dim"], precision: Float[Tensor, "dim dim"], slopes: bool = True
    ) -> _Point:
        """Evaluate a law."""
        root = torch.linalg.cholesky(precision)
        covariance = torch.cholesky_inverse(root)
        off = mean - self.mean
        divergence = (
            (float((self.precision * covariance).sum() + off @ self.precision @ off) - len(mean))
            / 2
            + float(root.diagonal().log().sum())
            - self.log_det / 2
        )
        risk, slope, curvature = self._errors(mean, covariance, slopes)
        return _Point(
            mean=mean,
            precision=precision,
            risk=risk,
            divergence=divergence,
            slope=slope,
            curvature=curvature,
        )

    def _errors(
        self, mean: Float[Tensor, "dim"], covariance: Float[Tensor, "dim dim"], slopes: bool
    ) -> tuple[float, Float[Tensor, "dim"], Float[Tensor, "dim dim"]]:
        """Expected errors, and their derivatives."""
        contrast, width = self.basis.shape[1], self.x.shape[1]
        blocks = covariance.view(contrast, width, contrast, width)
        slope = torch.zeros_like(mean).view(contrast, width)
        curvature = torch.zeros_like(blocks) if slopes else blocks
        total = 0.0
        for part in pieces(len(self.x), CHUNK):
            x, y = self.x[part], self.y[part]
            apart = self.basis[y][:, None] - self.basis  # of y from each rival, in contrasts
            spread = _spread(x, blocks)
            gap = torch.einsum("nck,nk->nc", apart, x @ mean.view(contrast, width).T)
            variance = torch.einsum("nck,nkl,ncl->nc", apart, spread, apart).clamp(min=1e-12)
            beaten, first, second = _beaten(gap, variance, y)
            total += float(beaten.double().sum())
            if slopes:
                slope += torch.einsum("nc,nck,nd->kd", first, apart, x)
                live = second.abs().amax(dim=1) > FAINT * second.abs().max()
                weight = torch.einsum("nc,nck,ncl->nkl", second[live], apart[live], apart[live])
                _add_grams(curvature, x[live], weight)
        for k in range(contrast if slopes else 0):
            for other in range(k):
                curvature[k, :, other] = curvature[other, :, k].T
        return total, slope.flatten(), curvature.reshape(len(mean), len(mean))


def _spread(
    x: Float[Tensor, "n width"], blocks: Float[Tensor, "c width c width"]
) -> Float[Tensor, "n c c"]:
    """Covariance of each example's contrasts."""
    size, width = blocks.shape[:2]
    out = x.new_empty(len(x), size, size)
    for k in range(size):
        half = (x @ blocks[k, :, k:].reshape(width, -1)).view(len(x), size - k, width)
        out[:, k, k:] = torch.einsum("ncd,nd->nc", half, x)
        out[:, k:, k] = out[:, k, k:]
    return out


def _beaten(
    gap: Float[Tensor, "n classes"], variance: Float[Tensor, "n classes"], y: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n classes"], Float[Tensor, "n classes"]]:
    """Probability that each rival beats y; its derivative by the gap, twice that by variance."""
    deviation = variance.sqrt()
    z = (gap / deviation).scatter(1, y[:, None], math.inf)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    second = torch.where(density > 0, density * z.nan_to_num(posinf=0.0) / variance, 0.0)
    return torch.special.ndtr(-z), -density / deviation, second


def _add_grams(
    sums: Float[Tensor, "c width c width"],
    x: Float[Tensor, "n width"],
    weight: Float[Tensor, "n c c"],
) -> None:
    """Add the sum over examples of weight (k, l) x x', for l >= k."""
    size, width = sums.shape[:2]
    for k in range(size):
        weighted = (x[:, None] * weight[:, k, k:, None]).reshape(len(x), -1)
        sums[k, :, k:] += (x.T @ weighted).view(width, size - k, width)
