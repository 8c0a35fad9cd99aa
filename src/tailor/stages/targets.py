"""Which parameters of a model a method acts on, and the part of each that this process holds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.weights.layer import Layer
from tailor.weights.source import read, select

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """One weight of a model.

    Attributes:
        name: Canonical name, without wrapper prefixes.
        parameter: The parameter itself.
        kind: Class of the module that owns it, such as ``"linear"`` or ``"conv2d"``.
    """

    name: str
    parameter: nn.Parameter
    kind: str


def targets(
    model: nn.Module, layers: str | Sequence[str] = "*", skip: str | Sequence[str] = (), *, who: str
) -> tuple[Target, ...]:
    """The weights that fit, in natural order; a tied one stands once.

    Args:
        model: Any module, also wrapped by DDP, ``torch.compile`` or ``fully_shard``.
        layers: Patterns of canonical names, as in a shell (``*``, ``?``, ``[...]``).
        skip: Patterns of names to leave out all the same.
        who: Whom error messages speak of, such as ``"StableRank"``.

    Raises:
        UsageError: No weight fits; one that fits is frozen, computed by a parametrization, or of
            half precision, in which small changes are lost.
    """
    return tuple(
        Target(name=one.name, parameter=in_place(one.name, one.load(), who=who), kind=one.kind)
        for one in fitting(model, layers, skip, who=who)
    )


def in_place(name: str, weight: Tensor, *, who: str) -> nn.Parameter:
    """The weight, if it is a parameter that can be changed in place without loss.

    Raises:
        UsageError: It is computed by a parametrization, frozen or of half precision.
    """
    if not isinstance(weight, nn.Parameter):
        raise UsageError(
            f"{name} is computed anew in each forward pass (a parametrization or a buffer), so "
            f"{who} cannot change it in place; leave it out with skip=({name!r},)"
        )
    if not weight.requires_grad:
        raise UsageError(
            f"{who} would change {name}, which is frozen (requires_grad is False); "
            f"leave it out with skip=({name!r},)"
        )
    if weight.dtype in HALF:
        dtype = str(weight.dtype).removeprefix("torch.")
        raise UsageError(
            f"{name} is stored in {dtype}, in which most small changes round to nothing; keep the "
            f"weights in float32 and use autocast, or leave it out of {who} with skip"
        )
    return weight


def fitting(
    model: nn.Module, layers: str | Sequence[str] = "*", skip: str | Sequence[str] = (), *, who: str
) -> tuple[Layer, ...]:
    """The layers that ``read`` finds and the patterns keep.

    Raises:
        UsageError: None is left.
    """
    try:
        return select(read(model), patterns(layers), patterns(skip)).layers
    except UsageError as error:
        raise UsageError(f"{who}: {error}") from error


def ends(model: nn.Module) -> tuple[str, ...]:
    """Names of embeddings, of the first convolution and of the last matrix of a network.

    The first and the last are so in the order of the modules; a shared weight stands where it
    comes last. None where nothing else is there.
    """
    every = model.named_parameters(remove_duplicate=False)
    place = {id(parameter): i for i, (_, parameter) in enumerate(every)}
    layers = sorted(read(model).layers, key=lambda one: place.get(id(one.load()), -1))
    embeddings = [one for one in layers if one.kind == "embedding"]
    convolutions = [one for one in layers if "conv" in one.kind]
    outer = {one.name for one in (*embeddings, *convolutions[:1], *layers[-1:])}
    return (
        tuple(one.name for one in layers if one.name in outer) if len(outer) < len(layers) else ()
    )


def patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    """Patterns of names, of which one alone may be given as it is."""
    return (given,) if isinstance(given, str) else tuple(given)


# A parameter that fully_shard has spread over processes is a DTensor; anything else is whole.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The rows of a parameter that this process holds.

    Attributes:
        local: These rows, sharing memory with the parameter; may be empty.
        first: Index of the first of them in the whole.
        total: Rows of the whole.
    """

    local: Shaped[Tensor, "held *rest"]
    first: int
    total: int


def rows(tensor: Tensor) -> Rows:
    """What this process holds of a tensor.

    Raises:
        UsageError: A DTensor is spread otherwise than over its first axis, by one mesh axis.
    """
    spread = as_dtensor(tensor)
    if spread is None:
        return Rows(local=tensor.detach(), first=0, total=len(tensor))
    local, cut = spread.detach().to_local(), _cut(spread)
    if cut is None:
        return Rows(local=local, first=0, total=len(tensor))
    size, rank = spread.device_mesh.size(cut), spread.device_mesh.get_local_rank(cut)
    each = -(-len(tensor) // size)  # as torch.chunk cuts: full pieces, a rest, then empty ones
    return Rows(local=local, first=min(len(tensor), rank * each), total=len(tensor))


def whole(tensor: Tensor) -> Tensor:
    """All rows, on every process; a collective call if the tensor is spread."""
    spread = as_dtensor(tensor)
    if spread is None:
        return tensor.detach()
    _cut(spread)
    gathered: Tensor = spread.detach().full_tensor()
    return gathered


def overwrite(weight: Tensor, full: Tensor) -> None:
    """Put all rows into a weight, of which this process holds some."""
    held = rows(weight)
    held.local.copy_(full[held.first : held.first + len(held.local)])


def spread_as(weight: Tensor, full: Tensor) -> Tensor:
    """All rows of something as the weight is: itself, or spread over the processes alike."""
    if as_dtensor(weight) is None:
        return full
    held = rows(weight)
    return from_local(full[held.first : held.first + len(held.local)], weight)


def from_local(local: Tensor, like: Any) -> Tensor:
    """The DTensor of which every process holds such a part, spread as ``like`` is."""
    made: Tensor = type(like).from_local(
        local,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return made


def as_dtensor(tensor: Tensor) -> Any:
    """The tensor if it is a DTensor, else None; does not import what most programs never use."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return tensor if loaded is not None and isinstance(tensor, loaded.DTensor) else None


def _cut(tensor: Any) -> int | None:
    """The mesh axis over which the rows are spread; None if every process has them all."""
    cuts = [axis for axis, place in enumerate(tensor.placements) if not place.is_replicate()]
    if not cuts:
        return None
    if len(cuts) > 1 or not tensor.placements[cuts[0]].is_shard(0):
        raise UsageError(
            f"a weight is spread as {tensor.placements}, but only Shard(0) over one mesh axis "
            "(with replicas over others) is supported; shard with fully_shard alone"
        )
    return cuts[0]
