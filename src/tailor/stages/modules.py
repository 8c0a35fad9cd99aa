"""Modules of a network that a method puts others in the place of."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import NonFinite, UsageError
from tailor.stages.targets import as_dtensor, fitting
from tailor.weights.layer import Layer

# They read the weights of the modules inside them without calling these.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """What stays as it is.

    Attributes:
        name: Canonical name of the weight, or name of the module.
        reason: Why, for people.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A module that can be replaced.

    Attributes:
        name: Canonical name of its weight.
        path: Where the module is in the network; empty if it is the network itself.
        module: The module.
    """

    name: str
    path: str
    module: Any


def copied(model: nn.Module, *, who: str) -> nn.Module:
    """A copy of a network.

    Raises:
        UsageError: It cannot be copied, such as one with pending masks of torch's pruning.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"{who} needs a module, but got a {type(model).__name__}")
    for path, part in model.named_modules():
        if any(hasattr(part, f"{name}_mask") for name in _originals(part)):
            raise UsageError(
                f"{path or 'the model'} is masked by torch.nn.utils.prune; make it permanent with "
                f"prune.remove(module, name) before {who}"
            )
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UsageError(
            f"{who} works on a copy, but {type(model).__name__} cannot be copied ({error})"
        ) from error


def parts(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    layers: str | Sequence[str],
    skip: str | Sequence[str],
    *,
    who: str,
    because: Mapping[type[nn.Module], str] | None = None,
) -> tuple[list[Part], list[LeftAlone]]:
    """The modules of certain classes that can be replaced, and the matrices that cannot.

    Args:
        model: The network.
        kinds: Classes of the modules; a subclass may compute something else.
        layers: Patterns of names of weights.
        skip: Patterns of names to leave out; these are not listed.
        who: Whom error messages speak of.
        because: Why modules of other classes stay, where there is more to say than that.

    Raises:
        UsageError: No weight fits, or none of those that do belongs to such a module.
        NonFinite: A weight that would be replaced holds NaN or infinite values.
    """
    found: list[Part] = []
    left: list[LeftAlone] = []
    every = fitting(model, layers, skip, who=who)
    for layer in every:
        path, _, attribute = layer.key.rpartition(".")
        module = _owner(model, path, attribute)
        reason = (because or {}).get(type(module)) if module is not None else None
        reason = reason or _why_not(model, layer, path, module, kinds)
        if reason is None:
            check_finite(layer.name, layer.load())
            found.append(Part(name=layer.name, path=path, module=module))
        else:
            left.append(LeftAlone(name=layer.name, reason=reason))
    if not found:
        wanted = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
        said = "; ".join(f"{one.name}: {one.reason}" for one in left[:5])
        raise UsageError(f"{who} found no {wanted} that it can replace ({said})")
    return found, left


def replaced(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """The network with another module at a place; the network itself where the path is empty."""
    if not path:
        return new
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    return model


def check_finite(name: str, weight: Tensor) -> None:
    """Refuse a weight with NaN or infinite entries.

    Raises:
        NonFinite: It has some.
    """
    odd = int((~torch.isfinite(weight.detach())).sum())
    if odd:
        raise NonFinite(f"{name} holds {odd} NaN or infinite values; mend or reload the weights")


def _originals(part: nn.Module) -> list[str]:
    """Parameters that torch's pruning has renamed."""
    names = [name for name, _ in part.named_parameters(recurse=False)]
    return [name.removesuffix("_orig") for name in names if name.endswith("_orig")]


def _owner(model: nn.Module, path: str, attribute: str) -> nn.Module | None:
    """The module whose weight it is; None for a matrix that several make up, or another one."""
    try:
        return model.get_submodule(path) if attribute == "weight" else None
    except AttributeError:
        return None


def _why_not(
    model: nn.Module,
    layer: Layer,
    path: str,
    module: nn.Module | None,
    kinds: tuple[type[nn.Module], ...],
) -> str | None:
    """Why a module has to stay; None if it can be replaced."""
    wanted = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
    if module is None:
        return f"not the weight of an {wanted}"
    if hasattr(module, "parametrizations"):
        return "a parametrization computes it; call remove_parametrizations first"
    if type(module) not in kinds:
        return f"{type(module).__name__} is not {wanted}"
    if layer.aliases:
        return f"tied with {', '.join(layer.aliases)}"
    if _hooks(module):
        return "the module has hooks"
    parents = [model.get_submodule(above) for above in _above(path)]
    reader = next((one for one in parents if isinstance(one, READERS)), None)
    if reader is not None:
        return f"{type(reader).__name__} reads the weight without calling the module"
    if layer.dtype not in ("float64", "float32", "float16", "bfloat16"):
        return f"stored as {layer.dtype}"
    return None if as_dtensor(layer.load()) is None else "spread over processes"


def _above(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:i]) for i in range(len(steps))]


def _hooks(module: nn.Module) -> bool:
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )
