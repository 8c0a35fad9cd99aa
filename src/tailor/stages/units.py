"""Hidden units of chains of layers: which are dead, how they are scaled, how they are ordered.

Where nothing but positively homogeneous steps (ReLU, pooling, reshaping) stands between two layers
and the first has no bias, a unit whose incoming or outgoing weights are all zero does nothing;
scaling a unit's incoming weights by s > 0 and its outgoing ones by 1/s changes nothing; and
neither does the order of the units. A short code uses all three freedoms. A channel of a
convolution is a unit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
HOMOGENEOUS = (
    *(nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Two layers with the units between them.

    Attributes:
        incoming: Name of the weight whose rows are the units.
        outgoing: Name of the weight that has as many columns for each unit, unit by unit.
    """

    incoming: str
    outgoing: str


def chains(model: nn.Module) -> list[Chain]:
    """All chains Linear(bias=False) - ReLU - Linear inside ``nn.Sequential`` containers.

    A container that computes something else (a subclass with its own ``forward``, or hooks that
    could look at the units) is passed over.
    """
    found: list[Chain] = []
    for dot, part in _containers(model):
        if any(child._forward_hooks or child._forward_pre_hooks for child in part):
            continue
        steps = list(part.named_children())
        for (a, first), (_, relu), (b, second) in zip(steps, steps[1:], steps[2:], strict=False):
            linear = isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
            if linear and isinstance(relu, nn.ReLU) and getattr(first, "bias", None) is None:
                found.append(Chain(incoming=f"{dot}{a}.weight", outgoing=f"{dot}{b}.weight"))
    return found


def wide_chains(model: nn.Module) -> list[Chain]:
    """The same with convolutions, and with any positively homogeneous steps in between."""
    return [chain for dot, part in _containers(model) for chain in _wide(dot, part)]


def drop_dead(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Zero all weights of units without incoming or without outgoing weights."""
    weights = dict(weights)
    for _ in found:  # a dead unit may leave its neighbour in the next chain dead
        for chain in found:
            into, out = weights[chain.incoming], weights[chain.outgoing]
            rows, columns = into.flatten(1), out.reshape(len(out), len(into), -1)
            live = (rows != 0).any(dim=1) & (columns != 0).any(dim=2).any(dim=0)
            weights[chain.incoming] = (rows * live[:, None]).reshape(into.shape)
            weights[chain.outgoing] = (columns * live[None, :, None]).reshape(out.shape)
    return weights


def rescale(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Give every live unit incoming weights of root mean square 1 (over the non-zero ones)."""
    weights = dict(weights)
    for chain in found:
        into, out = weights[chain.incoming], weights[chain.outgoing]
        rows, columns = into.flatten(1), out.reshape(len(out), len(into), -1)
        scale = (rows.square().sum(dim=1) / (rows != 0).sum(dim=1).clamp(min=1)).sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        weights[chain.incoming] = (rows / scale[:, None]).reshape(into.shape)
        weights[chain.outgoing] = (columns * scale[None, :, None]).reshape(out.shape)
    return weights


def live_first(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Put live units before dead ones, otherwise in their old order."""
    weights = dict(weights)
    for chain in found:
        into, out = weights[chain.incoming], weights[chain.outgoing]
        rows, columns = into.flatten(1), out.reshape(len(out), len(into), -1)
        order = (~(rows != 0).any(dim=1)).to(torch.uint8).argsort(stable=True)
        weights[chain.incoming] = into[order]
        weights[chain.outgoing] = columns[:, order].reshape(out.shape)
    return weights


def _containers(model: nn.Module) -> Iterator[tuple[str, nn.Sequential]]:
    """Plain containers, with what the names of their children begin with."""
    for prefix, part in model.named_modules():
        if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            yield f"{prefix}." if prefix else "", part


def _wide(dot: str, part: nn.Sequential) -> Iterator[Chain]:
    last: str | None = None
    for name, step in part.named_children():
        hooked = bool(step._forward_hooks or step._forward_pre_hooks)
        if isinstance(step, LAYERS) and not hooked:
            weight = f"{dot}{name}.weight"
            if last is not None and getattr(step, "groups", 1) == 1:
                yield Chain(incoming=last, outgoing=weight)
            last = weight if step.bias is None else None
        elif not isinstance(step, HOMOGENEOUS) or hooked:
            last = None
