"""Two thin modules for one."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.utils import skip_init

from tailor.errors import NonFinite, UsageError
from tailor.numerics.truncation import Center, Directions, columnwise, double
from tailor.stages.factorize.rank import Rule
from tailor.stages.inputs import Inputs
from tailor.stages.modules import LeftAlone, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Factored:
    """A layer that two thin ones replace.

    Attributes:
        name: Canonical name of the weight.
        shape: Shape of the weight.
        rank: Width between the two.
        before: Entries of the weight.
        after: Entries of the two weights together.
        weight_error: ||W - B|| / ||W|| in the Frobenius norm, B being the product.
        output_error: ||(W - B) X|| / ||W X|| on the given inputs; None without them.
        note: What a user has to know; empty if nothing.
    """

    name: str
    shape: tuple[int, ...]
    rank: int
    before: int
    after: int
    weight_error: float
    output_error: float | None
    note: str = ""


def two(
    part: Part, rule: Rule, seen: Inputs | None, damp: float, center: Center
) -> tuple[nn.Sequential, Factored] | LeftAlone:
    """Two modules for one, or why not."""
    module = part.module
    W = double(module.weight.flatten(1))
    gram = None if seen is None else _gram(part.name, seen, W)
    reason = _pointless(module, W, gram)
    if reason is not None:
        return LeftAlone(name=part.name, reason=reason)
    metric = None if gram is None else _damped(gram, damp)
    middle = columnwise(W, center)
    directions = Directions.of(W - middle, metric)
    limit = W.numel() / sum(W.shape)
    kept = int(center == "median")  # the medians take one of the rank
    whole = _energy(W, metric)
    lost = torch.cat([directions.energies.new_full((kept,), whole * 2), directions.dropped()])
    rank = rule(part.name, lost, whole, limit)
    if rank is None:
        return LeftAlone(name=part.name, reason="no rank was given for it")
    if rank >= limit:
        after = rank * sum(W.shape)
        said = f"rank {rank} takes {after:,} parameters, and the matrix has {W.numel():,}"
        return LeftAlone(name=part.name, reason=said)
    U = directions.leading(rank - kept)
    left, right = _balanced(U, U.mT @ (W - middle))
    if kept:
        left = torch.cat([left, left.new_ones(len(left), 1)], dim=1)
        right = torch.cat([right, middle[None]])
    new = _modules(module, left, right)
    return new, _row(part.name, module.weight, W, new, gram, seen)


def _pointless(
    module: nn.Module, W: Float64[Tensor, "out in"], gram: Float64[Tensor, "in in"] | None
) -> str | None:
    if getattr(module, "groups", 1) != 1:
        return f"a convolution of {module.groups} groups"
    if not bool(W.any()):
        return "all its weights are zero"
    return None if gram is None or bool(gram.any()) else "all that it saw is zero"


def _gram(name: str, seen: Inputs, W: Float64[Tensor, "out in"]) -> Float64[Tensor, "in in"]:
    """The Gram matrix of a layer's inputs, where the layer is."""
    if seen.gram is None or seen.gram.shape != (W.shape[1], W.shape[1]):
        came = "none" if seen.gram is None else f"one of shape {tuple(seen.gram.shape)}"
        raise UsageError(
            f"factorize needs the Gram matrix of the {W.shape[1]} inputs of {name}, but got "
            f"{came}; collect the inputs with Gram matrices"
        )
    if not bool(torch.isfinite(seen.gram).all()):
        raise NonFinite(f"the Gram matrix of {name} holds NaN or infinite values; check the data")
    return seen.gram.to(W)


def _damped(gram: Float64[Tensor, "in in"], damp: float) -> Float64[Tensor, "in in"]:
    return gram + damp * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)


def _energy(W: Float64[Tensor, "out in"], gram: Float64[Tensor, "in in"] | None) -> float:
    """||W X||^2, with X = identity where there is no Gram matrix."""
    return float((W * (W if gram is None else W @ gram)).sum())


def _balanced(
    U: Float64[Tensor, "out rank"], V: Float64[Tensor, "rank in"]
) -> tuple[Float64[Tensor, "out rank"], Float64[Tensor, "rank in"]]:
    """Share the sizes: columns of one and rows of the other become equally long.

    For the singular value decomposition these are (U S^1/2) and (S^1/2 V^T).
    """
    root = torch.linalg.vector_norm(V, dim=1).sqrt()
    return U * root, V / torch.where(root > 0, root, 1.0)[:, None]


def _modules(
    module: Any, left: Float64[Tensor, "out rank"], right: Float64[Tensor, "rank in"]
) -> nn.Sequential:
    """The modules with these weights."""
    rank, like = len(right), {"device": module.weight.device, "dtype": module.weight.dtype}
    outer: dict[str, Any] = like | {"bias": module.bias is not None}
    if isinstance(module, nn.Conv2d):
        inner = like | {
            name: getattr(module, name)
            for name in ("stride", "padding", "dilation", "padding_mode")
        }
        sides = module.in_channels, rank, module.kernel_size
        first = _empty(nn.Conv2d, *sides, bias=False, **inner)
        second = _empty(nn.Conv2d, rank, module.out_channels, 1, **outer)
    else:
        first = _empty(nn.Linear, module.in_features, rank, bias=False, **like)
        second = _empty(nn.Linear, rank, module.out_features, **outer)
    with torch.no_grad():
        first.weight.copy_(right.reshape(first.weight.shape))
        second.weight.copy_(left.reshape(second.weight.shape))
    if module.bias is not None:
        second.bias = module.bias
    for made in (first, second):
        made.weight.requires_grad_(module.weight.requires_grad)
    return nn.Sequential(first, second).train(module.training)


def _empty(kind: type[nn.Module], *sides: Any, **keywords: Any) -> Any:
    """A module without values; drawing them would move the global random state."""
    return skip_init(kind, *sides, **keywords)  # type: ignore[no-untyped-call]


def _row(
    name: str,
    weight: Tensor,
    W: Float64[Tensor, "out in"],
    new: nn.Sequential,
    gram: Float64[Tensor, "in in"] | None,
    seen: Inputs | None,
) -> Factored:
    """What came of it, from the weights as they are stored."""
    first, second = (double(one.get_parameter("weight").flatten(1)) for one in new)
    rest = W - second @ first
    note = ""
    if seen is not None and seen.count < W.shape[1]:
        note = f"{seen.count} inputs tell little about {W.shape[1]} columns; give more data"
    return Factored(
        name=name,
        shape=tuple(weight.shape),
        rank=len(first),
        before=W.numel(),
        after=first.numel() + second.numel(),
        weight_error=_ratio(_energy(rest, None), _energy(W, None)),
        output_error=None if gram is None else _ratio(_energy(rest, gram), _energy(W, gram)),
        note=note,
    )


def _ratio(part: float, whole: float) -> float:
    return math.sqrt(max(part, 0.0) / whole) if whole else 0.0
