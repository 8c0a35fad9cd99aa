"""What spectra alone say: the worst case of a layerwise change, and the rank that is left."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.measures.chain import Chain, Link, chain_of, norms, outputs, pieces
from tailor.stages.measures.explanatory import Explanatory
from tailor.stages.measures.margin import margin_values
from tailor.tasks import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """How far one layer moved.

    Attributes:
        name: Of the layer.
        norm: Spectral norm of A; for a convolution a bound on it from above.
        change: Spectral norm of A - A^, likewise.
        bias: Norm of the change of the bias.
    """

    name: str
    norm: float
    change: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralPerturbation(Explanatory):
    """How far the scores of two networks can be apart on some examples, at worst.

    Attributes:
        n: Number of examples.
        layers: By layer.
        lemma: The largest of Lemma 9's bounds over the examples; None where it does not apply.
        reason: Why not; empty if it does.
        propagated: The largest bound by following norms through the layers, with the values of
            the first network: error_i <= (||A_i|| + ||D_i||) error_(i-1) + ||D_i|| ||u_i|| + bias.
        measured: The largest distance that there is.
        unchanged: Share of examples whose class provably stays: the margin exceeds sqrt(2) times
            the propagated bound.
    """

    n: int
    layers: tuple[LayerChange, ...]
    lemma: float | None
    reason: str
    propagated: float
    measured: float
    unchanged: float
    why_not: str = "It holds for these examples and says nothing about others."


@torch.no_grad()
def spectral_perturbation(
    model: nn.Module, compressed: nn.Module, data: Data
) -> SpectralPerturbation:
    """Bound the change of the scores when each layer is replaced, without running the other one.

    Lemma 9 of Arora et al. (2018), after Neyshabur et al. (2018): if ||A_i - A^_i|| <= ||A_i|| / d
    for all d layers, then ||f(x) - f^(x)|| <= e ||x|| prod ||A_i|| sum ||A_i - A^_i|| / ||A_i||.
    Both bounds are deterministic and, for more than a layer or two, far from what is measured.

    Args:
        model: A chain as for ``arora``; pooling windows must not overlap.
        compressed: The same chain with other weights.
        data: Examples.

    Raises:
        UsageError: A network is no such chain, or the two differ in more than their weights.
    """
    chain, other = (chain_of(one, who="spectral_perturbation") for one in (model, compressed))
    _check_same(chain, other)
    layers = tuple(_change(one, two) for one, two in zip(chain, other, strict=True))
    lemma, reason = _factor(chain, layers)
    starts, bounds, apart, scores = [], [], [], []
    for x in pieces(chain, data):
        values = outputs(chain, x)
        starts.append(norms(chain[0].enter(x)))
        bounds.append(_propagated(chain, layers, [x, *values[:-1]]))
        apart.append(norms(values[-1] - outputs(other, x)[-1]))
        scores.append(values[-1])
    bound = torch.cat(bounds)
    sure = margin_values(torch.cat(scores), data) > math.sqrt(2) * bound
    return SpectralPerturbation(
        n=len(data),
        layers=layers,
        lemma=None if lemma is None else lemma * float(torch.cat(starts).max()),
        reason=reason,
        propagated=float(bound.max()),
        measured=float(torch.cat(apart).max()),
        unchanged=float(sure.double().mean()),
    )


def operator_norm(link: Link, weight: Tensor) -> float:
    """Largest singular value of a layer's linear map, or for a convolution a bound on it.

    ||K * x||^2 is the sum over the patches of ||R p||^2 with the kernel's matrix R, at most
    ||R||^2 times the sum of ||p||^2, and each input lies in at most ceil(side / stride) patches
    along each side.
    """
    if isinstance(link.module, nn.Linear):
        return float(torch.linalg.matrix_norm(weight, 2))
    blocks = weight.flatten(1).reshape(link.module.groups, -1, weight[0].numel())
    sides = zip(link.module.kernel_size, link.module.stride, link.module.dilation, strict=True)
    seen = math.prod(k if d > 1 else -(-k // s) for k, s, d in sides)
    return math.sqrt(seen) * float(torch.linalg.matrix_norm(blocks, 2).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation(Explanatory):
    """The rank that is left when small singular values are dropped.

    Attributes:
        rank: How many are at least ``share`` times the largest.
        bound: ||A||_F^2 / (share^2 ||A||_2^2), which the rank never exceeds.
        stable_rank: ||A||_F^2 / ||A||_2^2.
        share: Singular values below this share of the largest are dropped.
    """

    rank: int
    bound: float
    stable_rank: float
    share: float
    why_not: str = "It describes one matrix; no data and no network are involved."


def truncated_rank(matrix: Float[Tensor, "rows columns"], share: float) -> Truncation:
    """Count the singular values that are kept, beside Lemma 1's bound (Arora et al. 2018).

    Raises:
        UsageError: The share is not in (0, 1], or the matrix is all zeros.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share must lie in (0, 1], but is {share}")
    if not bool(matrix.any()):
        raise UsageError("a matrix of zeros has no largest singular value to compare with")
    values = torch.linalg.svdvals(matrix.detach().double())
    stable = float(values.square().sum() / values[0] ** 2)
    return Truncation(
        rank=int((values >= share * values[0]).sum()),
        bound=stable / share**2,
        stable_rank=stable,
        share=share,
    )


def _check_same(chain: Chain, other: Chain) -> None:
    named = [
        [(link.name, tuple(link.module.weight.shape)) for link in one] for one in (chain, other)
    ]
    if named[0] != named[1]:
        raise UsageError(
            f"the two networks must have the same layers, but theirs are {named[0]} and {named[1]}"
        )
    for pool in (pool for link in chain for pool in link.pools):
        if not isinstance(pool, nn.Module) or _overlaps(pool):
            raise UsageError("pooling windows must not overlap, and must be modules, for a bound")


def _overlaps(pool: Any) -> bool:
    """Whether a value is in several windows, or how many it is in is not known."""
    if not hasattr(pool, "kernel_size"):
        return True
    sides, strides = (
        (one,) if isinstance(one, int) else tuple(one) for one in (pool.kernel_size, pool.stride)
    )
    dilation = getattr(pool, "dilation", 1)
    spread = dilation if isinstance(dilation, int) else max(dilation)
    return spread > 1 or max(sides) > min(strides)


def _change(link: Link, other: Link) -> LayerChange:
    b, c = (torch.zeros(1) if one.module.bias is None else one.module.bias for one in (link, other))
    return LayerChange(
        name=link.name,
        norm=operator_norm(link, link.module.weight),
        change=operator_norm(link, link.module.weight - other.module.weight),
        bias=float((b.double() - c.double()).norm()),
    )


def _factor(chain: Chain, layers: tuple[LayerChange, ...]) -> tuple[float | None, str]:
    """What the norm of an input is multiplied with, or why the lemma does not apply."""
    if any(link.module.bias is not None for link in chain):
        return None, "Lemma 9 is for networks without biases"
    large = [one.name for one in layers if one.change > one.norm / len(layers) or one.norm == 0]
    if large:
        return None, f"{large[0]} changes by more than its norm over the depth"
    return (
        math.e
        * math.prod(one.norm for one in layers)
        * sum(one.change / one.norm for one in layers)
    ), ""


def _propagated(
    chain: Chain, layers: tuple[LayerChange, ...], before: list[Tensor]
) -> Float[Tensor, "n"]:
    """ReLU and pooling without overlap bring no two vectors further apart."""
    error = torch.zeros(len(before[0]), dtype=torch.float64)
    for link, layer, x in zip(chain, layers, before, strict=True):
        u = norms(link.enter(x))
        error = (
            (layer.norm + layer.change) * error + layer.change * u + layer.bias * _places(link, x)
        )
    return error


def _places(link: Link, x: Tensor) -> float:
    """By how much a kernel's bias counts for more than once: the root of the number of pixels."""
    out = link.follow(x[:1])
    return math.sqrt(out[0].numel() / out.shape[1])
