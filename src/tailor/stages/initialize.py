"""Heavy-tailed starts: normal weights whose nodes have scales of a law, or stable weights."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tailor.errors import UsageError
from tailor.numerics.nodes import Equal, NodeLaw
from tailor.numerics.stable import sample_stable
from tailor.stages.targets import overwrite

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MATRICES = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StableWeights:
    """Independent symmetric stable weights, of scale fan_in^(-1/alpha).

    A sum of fan_in such weights times numbers of order one has the same law as one weight times a
    number of order one. At alpha = 2 the weights are normal of variance 1 / fan_in.

    Attributes:
        alpha: Tail index, in (0, 2]: P(|w| > x) falls like x^-alpha below 2.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 2:
            raise UsageError(f"StableWeights needs alpha in (0, 2], but got {self.alpha}")


def heavy_tailed_(
    target: nn.Module | Tensor,
    law: NodeLaw | StableWeights,
    *,
    generator: torch.Generator,
    gain: float = 1.0,
    nodes: str = "columns",
) -> None:
    """Overwrite weights with heavy-tailed ones, in place; biases stay as they are.

    A weight becomes gain sqrt(p lambda_j / fan_in) V with V standard normal, where lambda_j is
    the scale of node j among p. For the columns of a matrix that is sqrt(lambda_j) V, the model
    of Lee et al. (2022, arXiv 2205.08187, eq. 3); with ``Equal`` it is variance gain^2 / fan_in.

    Args:
        target: One weight (output axis first), or a module: all linear layers and convolutions in
            it. In a module with several, the first has equal scales where nodes are columns, and
            the last where they are rows: inputs and outputs of the network are no hidden nodes.
        law: Law of the scales, or ``StableWeights``, for which ``nodes`` has no meaning.
        generator: Source of randomness; every weight draws from it in turn.
        gain: Factor of all weights; sqrt(2) suits ReLU.
        nodes: Whether node j owns its outgoing weights, column j (input channel j), or its
            incoming ones, row j (filter j).

    Raises:
        UsageError: There is no weight with two axes or more; a weight is computed by a
            parametrization, has no memory yet, or is too narrow a type for what was drawn.
    """
    if nodes not in ("columns", "rows"):
        raise UsageError(f'nodes must be "columns" or "rows", but is {nodes!r}')
    if not (gain > 0 and math.isfinite(gain)):
        raise UsageError(f"gain must be positive and finite, but is {gain}")
    found = [_plain(target)] if isinstance(target, Tensor) else _in_module(target)
    plain = found[0 if nodes == "columns" else -1] if len(found) > 1 else None
    for one in found:
        chosen = Equal() if one is plain and isinstance(law, NodeLaw) else law
        _overwrite(one, gain * _draw(one, chosen, nodes, generator))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weight:
    """A weight with what its axes mean.

    Attributes:
        name: For messages.
        tensor: The weight.
        groups: Groups of a convolution.
        transposed: Whether the input axis comes first.
    """

    name: str
    tensor: Tensor
    groups: int = 1
    transposed: bool = False

    @property
    def grouped(self) -> tuple[int, ...]:
        """Its shape with the groups as an axis of their own, in front."""
        first, *rest = self.tensor.shape
        return (self.groups, first // self.groups, *rest)

    @property
    def fan_in(self) -> int:
        """Weights that one output adds up."""
        shape = self.grouped
        return shape[1 if self.transposed else 2] * math.prod(shape[3:])

    def axis(self, nodes: str) -> int:
        """Axis of the nodes in the grouped shape."""
        return 1 if (nodes == "rows") != self.transposed else 2


def _plain(tensor: Tensor) -> _Weight:
    return _checked(_Weight(name="the weight", tensor=tensor))


def _in_module(module: nn.Module) -> list[_Weight]:
    """Its weights in order of registration; a tied one stands once."""
    found: dict[int, _Weight] = {}
    for name, part in module.named_modules():
        if isinstance(part, MATRICES):
            if parametrize.is_parametrized(part, "weight"):
                raise UsageError(
                    f"{weight_name(name)} is computed by a "
                    "parametrization, so it cannot be overwritten; initialize first, parametrize "
                    "afterwards"
                )
            weight = _Weight(
                name=weight_name(name),
                tensor=part.weight,
                groups=1 if isinstance(part, nn.Linear) else part.groups,
                transposed=isinstance(part, _TRANSPOSED),
            )
            found.setdefault(id(part.weight), _checked(weight))
    if not found:
        raise UsageError(
            f"{type(module).__name__} holds no linear layer and no convolution; give a module "
            "that does, or the weight itself"
        )
    return list(found.values())


def weight_name(module: str) -> str:
    """Full name of a module's weight; the root module has the name ""."""
    return f"{module}.weight".removeprefix(".")


def _checked(weight: _Weight) -> _Weight:
    tensor = weight.tensor
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        raise UsageError(
            f"{weight.name} has no memory yet (lazy or on the meta device); materialize it first"
        )
    if tensor.ndim < 2 or tensor.numel() == 0 or not tensor.is_floating_point():
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise UsageError(
            "a weight needs two axes or more, entries, and floating point numbers, but "
            f"{weight.name} has shape {tuple(tensor.shape)} and type {dtype}"
        )
    return weight


def _draw(
    weight: _Weight, law: NodeLaw | StableWeights, nodes: str, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """New values for the whole weight, in double precision."""
    if isinstance(law, StableWeights):
        return _stable(weight, law.alpha, generator)
    shape, axis = weight.grouped, weight.axis(nodes)
    p = weight.groups * shape[axis]
    axes = [1] * len(shape)
    axes[0], axes[axis] = weight.groups, shape[axis]
    share = (p / weight.fan_in * law.sample(p, generator)).view(axes)
    normal = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (normal * share.sqrt()).view(weight.tensor.shape)


def _stable(weight: _Weight, alpha: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    scale = weight.fan_in ** (-1 / alpha) / math.sqrt(2)  # at alpha = 2 the variance is 2 scale^2
    return sample_stable(
        tuple(weight.tensor.shape),
        alpha,
        scale=scale,
        generator=generator,
        dtype=torch.float64,
        device=generator.device,
    )


def _overwrite(weight: _Weight, values: Float[Tensor, "*shape"]) -> None:
    narrow = values.to(weight.tensor.dtype)
    if not torch.isfinite(narrow).all():
        dtype = str(weight.tensor.dtype).removeprefix("torch.")
        raise UsageError(
            f"a value drawn for {weight.name} is too large for {dtype}; take a lighter tail or a "
            "wider type"
        )
    overwrite(weight.tensor, narrow)
