"""Penalties that need every singular value: a tenth of a training step for a residual network."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.regularize.matrix import LiveMatrix
from tailor.stages.regularize.penalty import Penalty, Pull

FEWEST = 10  # eigenvalues; below, an exponent from the upper half is noise
LARGEST_ALPHA = 50.0  # orthogonal matrices have none; beyond this the exponent is held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HalfHill:
    """The Hill exponent of the upper half of a spectrum, and how it moves with each eigenvalue.

    Attributes:
        alpha: Density exponent 1 + k / S, with S = sum over the k largest of log(l_i / l_(k+1)),
            at most ``LARGEST_ALPHA``.
        slopes: Derivative of alpha by each eigenvalue.
        upper: Which eigenvalues are among the k largest.
    """

    alpha: Float[Tensor, ""]
    slopes: Float[Tensor, "side"]
    upper: Bool[Tensor, "side"]


def half_hill(eigenvalues: Float[Tensor, "side"]) -> HalfHill:
    """Hill's estimate from the larger half of the eigenvalues, largest first.

    k is half the number of eigenvalues that stand above rounding, rounded down (Xiao et al. 2023
    take the half; the reference value is the one below it, as in Hill 1975). No value is read
    on the host, so that nothing waits for an accelerator.
    """
    rounding = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues[0]
    spectral = eigenvalues > rounding
    k = (spectral.sum() // 2).clamp(min=1)
    place = torch.arange(len(eigenvalues), device=eigenvalues.device)
    upper = place < k
    logs = eigenvalues.clamp(min=torch.finfo(eigenvalues.dtype).tiny).log()
    reference = logs.gather(0, k.clamp(max=len(eigenvalues) - 1)[None])[0]
    total = torch.where(upper, logs - reference, 0.0).sum()
    alpha = 1 + k / total.clamp(min=torch.finfo(total.dtype).tiny)
    free = alpha < LARGEST_ALPHA
    by_log = -((alpha.clamp(max=LARGEST_ALPHA) - 1) ** 2) / k * free
    per_log = torch.where(upper, by_log, torch.where(place == k, -k * by_log, 0.0))
    return HalfHill(
        alpha=alpha.clamp(max=LARGEST_ALPHA),
        slopes=torch.where(per_log == 0, 0.0, per_log / eigenvalues),
        upper=upper,
    )


@dataclass(frozen=True, slots=True)
class TailExponent(Penalty):
    """The density exponent alpha of the spectrum's upper half: alone, or its way from a target.

    Alpha alone can be driven to 1.1 without any effect on accuracy (measured by us on digits): it
    moves the middle of the spectrum. It is here as the other ablation of ``WeightedAlpha``.

    Attributes:
        target: With one, the penalty is abs(alpha - target).
    """

    target: float | None = field(default=None, kw_only=True)

    def why_not(self, shape: tuple[int, int]) -> str | None:
        """See ``Penalty.why_not``."""
        return _too_small(shape)

    def pull(self, matrix: LiveMatrix) -> Pull:
        """See ``Penalty.pull``."""
        found = half_hill(matrix.spectrum.eigenvalues)
        pull = _through(matrix, found.alpha, found.slopes)
        if self.target is None:
            return pull
        distance = found.alpha - self.target
        turned = pull.times(distance.sign())
        return Pull(value=distance.abs(), left=turned.left, right=turned.right, norm=turned.norm)


@dataclass(frozen=True, slots=True)
class WeightedAlpha(Penalty):
    """alpha x log of the largest eigenvalue of W'W (Xiao et al. 2023, after Martin & Mahoney).

    Where it improved accuracy over weight decay in our measurements, the logarithm alone
    (``LogSpectralNorm``) did as well or better: the gain comes from the cap on the largest singular
    value.

    Attributes:
        threshold: The penalty is max(value - threshold, 0). It has to be there: below
            eigenvalue 1 the logarithm is negative, a larger alpha is rewarded, and the network
            collapses to zero.
    """

    threshold: float | None = field(default=0.0, kw_only=True)

    def check(self) -> None:
        """See ``Penalty.check``."""
        if self.threshold is None or not self.threshold > float("-inf"):
            raise UsageError(
                "WeightedAlpha without a threshold is unbounded below: where the largest "
                "eigenvalue is below 1 it rewards lighter tails and shrinks the layer to zero; "
                "give a number, such as threshold=0"
            )

    def why_not(self, shape: tuple[int, int]) -> str | None:
        """See ``Penalty.why_not``."""
        return _too_small(shape)

    def pull(self, matrix: LiveMatrix) -> Pull:
        """See ``Penalty.pull``."""
        eigenvalues = matrix.spectrum.eigenvalues
        found, largest = half_hill(eigenvalues), _largest(eigenvalues)
        slopes = largest.log() * found.slopes
        slopes[0] += found.alpha / largest
        return _through(matrix, found.alpha * largest.log(), slopes).beyond(self.threshold)


@dataclass(frozen=True, slots=True)
class PowerLawPrior(Penalty):
    """The eigenvalues of W'W have a power-law prior (Xiao et al. 2023; form derived by us).

    The penalty is a x sum of log(eigenvalue / xmin) over the eigenvalues above xmin: with a and
    xmin held, minus their log density. It is a logarithmic determinant with a bottom, which
    pushes small singular values down fastest: a prior for low rank. A factor of 3 to 10 in the
    weight separates no effect from collapse. It did not improve accuracy over weight decay
    (measured by us on digits: 9 points less with random labels, no effect on clean ones).

    Attributes:
        floor: xmin as a share of the largest eigenvalue at the first step.
        memory: a, the density exponent, follows the Hill exponent of the upper half with this
            factor (empirical Bayes).
        scope: All eigenvalues above xmin, or only the upper half of the spectrum (``"tail"``).
    """

    floor: float = field(default=1e-3, kw_only=True)
    memory: float = field(default=0.99, kw_only=True)
    scope: Literal["global", "tail"] = field(default="global", kw_only=True)

    def check(self) -> None:
        """See ``Penalty.check``."""
        if not 0 < self.floor < 1 or not 0 <= self.memory <= 1:
            raise UsageError(
                "PowerLawPrior needs floor in (0, 1) and memory in [0, 1], but got "
                f"{self.floor} and {self.memory}"
            )
        if self.scope not in ("global", "tail"):
            raise UsageError(f'scope must be "global" or "tail", but is {self.scope!r}')

    def why_not(self, shape: tuple[int, int]) -> str | None:
        """See ``Penalty.why_not``."""
        return _too_small(shape)

    def pull(self, matrix: LiveMatrix) -> Pull:
        """See ``Penalty.pull``."""
        eigenvalues = matrix.spectrum.eigenvalues
        found = half_hill(eigenvalues)
        exponent = matrix.memory.get("exponent", found.alpha).to(eigenvalues)
        matrix.memory["exponent"] = exponent.lerp(found.alpha, 1 - self.memory)
        xmin = matrix.memory.setdefault("xmin", self.floor * _largest(eigenvalues).clone())
        excess = (eigenvalues.clamp(min=torch.finfo(eigenvalues.dtype).tiny) / xmin).log()
        counted = excess > 0
        if self.scope == "tail":
            counted = counted & found.upper
        value = exponent * torch.where(counted, excess, 0.0).sum()
        return _through(matrix, value, torch.where(counted, exponent / eigenvalues, 0.0))


def _through(matrix: LiveMatrix, value: Float[Tensor, ""], slopes: Float[Tensor, "side"]) -> Pull:
    """The pull of a function of the eigenvalues l, whose derivative by l_i is slope_i.

    With W W' = U diag(l) U' its gradient by W is 2 U diag(slopes) U' W.
    """
    there = matrix.squares > torch.finfo(matrix.squares.dtype).tiny ** 0.5
    slopes = torch.where(there & torch.isfinite(slopes), slopes, 0.0)
    eigenvalues, U = matrix.spectrum.eigenvalues, matrix.spectrum.vectors
    middle = ((U * (2 * slopes)) @ U.T).to(matrix.W.dtype)
    norm = (4 * slopes.square() * eigenvalues).sum().sqrt().to(matrix.W.dtype)
    left, right = (matrix.W, middle) if matrix.tall else (middle, matrix.W)
    value = torch.where(there, value, 0.0).to(matrix.W.dtype)
    return Pull(value=value, left=left, right=right, norm=norm)


def _largest(eigenvalues: Float[Tensor, "side"]) -> Float[Tensor, ""]:
    return eigenvalues[0].clamp(min=torch.finfo(eigenvalues.dtype).tiny ** 0.5)


def _too_small(shape: tuple[int, int]) -> str | None:
    side = min(shape)
    if side >= FEWEST:
        return None
    return f"{side} eigenvalues, where an exponent needs at least {FEWEST}"
