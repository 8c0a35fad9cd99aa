"""Hidden units of ReLU chains: which are dead, how they are scaled, how they are ordered.

Where a linear layer without bias feeds another one through a ReLU, a unit whose incoming or
outgoing weights are all zero does nothing; scaling a unit's incoming weights by s > 0 and its
outgoing ones by 1/s changes nothing; and neither does the order of the units. A short code
uses all three freedoms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Two layers with the units between them.

    Attributes:
        incoming: Name of the weight whose rows are the units.
        outgoing: Name of the weight whose columns are the units.
    """

    incoming: str
    outgoing: str


def chains(model: nn.Module) -> list[Chain]:
    """All chains Linear(bias=False) - ReLU - Linear inside ``nn.Sequential`` containers.

    A container that computes something else (a subclass with its own ``forward``, or hooks that
    could look at the units) is passed over.
    """
    found: list[Chain] = []
    for prefix, part in model.named_modules():
        if not isinstance(part, nn.Sequential) or type(part).forward is not nn.Sequential.forward:
            continue
        if any(child._forward_hooks or child._forward_pre_hooks for child in part):
            continue
        steps = list(part.named_children())
        for (a, first), (_, relu), (b, second) in zip(steps, steps[1:], steps[2:], strict=False):
            linear = isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
            if linear and isinstance(relu, nn.ReLU) and getattr(first, "bias", None) is None:
                dot = f"{prefix}." if prefix else ""
                found.append(Chain(incoming=f"{dot}{a}.weight", outgoing=f"{dot}{b}.weight"))
    return found


def drop_dead(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Zero all weights of units without incoming or without outgoing weights."""
    weights = dict(weights)
    for _ in found:  # a dead unit may leave its neighbour in the next chain dead
        for chain in found:
            into, out = weights[chain.incoming], weights[chain.outgoing]
            live = (into != 0).any(dim=1) & (out != 0).any(dim=0)
            weights[chain.incoming] = into * live[:, None]
            weights[chain.outgoing] = out * live[None, :]
    return weights


def rescale(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Give every live unit incoming weights of root mean square 1 (over the non-zero ones)."""
    weights = dict(weights)
    for chain in found:
        into, out = weights[chain.incoming], weights[chain.outgoing]
        count = (into != 0).sum(dim=1).clamp(min=1)
        scale = (into.square().sum(dim=1) / count).sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        weights[chain.incoming] = into / scale[:, None]
        weights[chain.outgoing] = out * scale[None, :]
    return weights


def live_first(weights: dict[str, Tensor], found: list[Chain]) -> dict[str, Tensor]:
    """Put live units before dead ones, otherwise in their old order."""
    weights = dict(weights)
    for chain in found:
        into, out = weights[chain.incoming], weights[chain.outgoing]
        order = (~(into != 0).any(dim=1)).to(torch.uint8).argsort(stable=True)
        weights[chain.incoming], weights[chain.outgoing] = into[order], out[:, order]
    return weights
