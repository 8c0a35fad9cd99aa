"""Weights to whole numbers, one feature after the other, the others making up for the error.

Each feature's weights are rounded to minimise (squared error under the curvature) + (bits), where
the curvature is that of the loss after all weights still free have been refitted: the Schur
complement of the Hessian. That is Optimal Brain Surgeon (Hassibi & Stork 1993) as GPTQ uses it
(Frantar et al. 2023), for the softmax of the last layer, with the rate of the code in the cost.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.stages.search.curvature import Smooth
from tailor.stages.search.head import HeadProblem

LN2 = math.log(2)
ROUNDS = 50
SHORTEST = 0.05  # share of a Newton step


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How the head is rounded.

    Attributes:
        smooth: The loss.
        zeros: Share of zeros that the rate of a weight assumes.
        rate: Multiplies the bits; 0 rounds to the nearest under the curvature.
        every: Features between two linearisations.
        jitter: Standard deviation of the random part in the order, in logarithms.
    """

    smooth: Smooth = field(default_factory=Smooth)
    zeros: float = 0.8
    rate: float = 1.0
    every: int = 8
    jitter: float = 0.0

    def costs(self) -> tuple[float, float]:
        """Nats of a weight that is zero and of one that is not, its sign included."""
        zero, other = -math.log2(self.zeros), 1 - math.log2(1 - self.zeros)
        return self.rate * zero * LN2, self.rate * other * LN2

    def round(
        self,
        problem: HeadProblem,
        seed: int,
        *,
        start: Float[Tensor, "classes features"] | None = None,
        free: Int[Tensor, "m"] | None = None,
    ) -> Float[Tensor, "classes features"]:
        """Whole numbers for all weights, or for those of some features given the rest.

        Args:
            problem: Examples and code.
            seed: Of the order.
            start: Weights to begin with; fitted without any rounding by default.
            free: Features whose weights are found anew; all by default.
        """
        narrow = problem.narrow
        if start is None:
            weights = self.smooth.fit(narrow, problem.labels, problem.classes).double()
        else:
            weights = start.T.double().clone()
        free = torch.arange(problem.shape[1]) if free is None else free
        order = self._order(problem, weights, free, seed)
        while len(order):
            block, order = order[: self.every], order[self.every :]
            self._block(problem, weights, block, order)
        return weights.T.contiguous()

    def _order(
        self, problem: HeadProblem, weights: Tensor, free: Tensor, seed: int
    ) -> Int[Tensor, "m"]:
        """Features with the largest effect first."""
        generator = torch.Generator().manual_seed(seed)
        effect = weights[free].square().sum(dim=1) * problem.narrow[:, free].square().sum(dim=0)
        noise = torch.randn(len(free), generator=generator, dtype=torch.float64)
        return free[(effect * torch.exp(self.jitter * noise)).argsort(descending=True)]

    def _block(self, problem: HeadProblem, weights: Tensor, block: Tensor, rest: Tensor) -> None:
        """Round the weights of a few features, and refit those that are still free."""
        k = problem.classes
        middle, spread = self._refitted(problem, weights, torch.cat([block, rest]))
        for i, feature in enumerate(block.tolist()):
            own, later = slice(i * k, (i + 1) * k), slice((i + 1) * k, None)
            bend = torch.linalg.inv(spread[own, own])
            bend = (bend + bend.T) / 2
            values = nearest(bend, middle[own], *self.costs(), problem.top)
            gain = spread[later, own] @ bend
            middle[later] += gain @ (values - middle[own])
            spread[later, later] -= gain @ spread[own, later]
            weights[feature] = values
        weights[rest] = middle[len(block) * k :].reshape(-1, k)

    def _refitted(
        self, problem: HeadProblem, weights: Tensor, free: Tensor
    ) -> tuple[Float[Tensor, "size"], Float[Tensor, "size size"]]:
        """The minimum by the free weights, about, and the inverse of the curvature there.

        One Newton step, shortened until the loss falls.
        """
        smooth = self.smooth
        part, scores = problem.narrow[:, free], problem.narrow @ weights.float()
        odds = torch.softmax(smooth.scale * scores, dim=1)
        slope = smooth.gradient(part, odds, problem.labels, weights[free])
        spread = torch.linalg.inv(smooth.hessian(part, odds))
        step = -(spread @ slope.reshape(-1)).reshape(slope.shape)
        moved = part @ step.float()
        now, length = smooth.loss(scores, problem.labels, weights[free]), 1.0
        while length > SHORTEST:
            after = weights[free] + length * step
            if smooth.loss(scores + length * moved, problem.labels, after) <= now:
                break
            length /= 2
        else:
            length = 0.0
        return (weights[free] + length * step).reshape(-1), spread


def nearest(
    bend: Float[Tensor, "k k"], middle: Float[Tensor, "k"], zero: float, other: float, top: int
) -> Float[Tensor, "k"]:
    """Whole numbers q that nearly minimise (q - middle)' bend (q - middle) / 2 + cost(q).

    By steps in one coordinate, from zero and from the nearest whole numbers.

    Args:
        bend: Curvature, positive definite.
        middle: Where the smooth minimum is.
        zero: Cost of a 0.
        other: Cost of any other number.
        top: Largest size of a number.
    """
    starts = (torch.zeros_like(middle), middle.round().clamp(-top, top))
    found = [_descend(bend, middle, start, other - zero, top) for start in starts]
    return min(found, key=lambda pair: pair[0])[1]


def _descend(
    bend: Tensor, middle: Tensor, start: Tensor, other: float, top: int
) -> tuple[float, Tensor]:
    q, slope = start.clone(), bend @ (start - middle)
    moves = torch.arange(-2 * top, 2 * top + 1, dtype=q.dtype)[:, None]
    for _ in range(ROUNDS):
        after = q + moves
        price = other * ((after != 0).double() - (q != 0).double())
        change = moves * slope + 0.5 * moves**2 * bend.diagonal() + price
        change = torch.where(after.abs() <= top, change, torch.inf)
        best = int(change.argmin())
        if change.flatten()[best] >= -1e-9:
            break
        move, place = float(moves[best // len(q)]), best % len(q)
        q[place] += move
        slope = slope + move * bend[:, place]
    error = q - middle
    return float(error @ bend @ error / 2 + other * (q != 0).sum()), q
