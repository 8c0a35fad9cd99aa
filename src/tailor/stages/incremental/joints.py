"""Where units of one layer can be scaled, and the next layer undoes it.

Between two layers without anything but positively homogeneous steps (ReLU, pooling, reshaping),
a unit whose incoming weights are multiplied by s > 0 and whose outgoing ones by 1/s computes the
same. A channel of a convolution is a unit.
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
class Joint:
    """Two layers with the units between them.

    Attributes:
        incoming: Name of the weight whose rows are the units.
        outgoing: Name of the weight that has as many columns for each unit, unit by unit.
    """

    incoming: str
    outgoing: str


def joints(model: nn.Module) -> list[Joint]:
    """All pairs of such layers inside plain ``nn.Sequential`` containers, from the input on."""
    return [
        joint
        for prefix, part in model.named_modules()
        if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward
        for joint in _joints(f"{prefix}." if prefix else "", part)
    ]


def even(weights: dict[str, Tensor], found: list[Joint]) -> dict[str, Tensor]:
    """Give every live unit incoming weights of root mean square 1 (over the non-zero ones)."""
    weights = dict(weights)
    for joint in found:
        into, out = weights[joint.incoming], weights[joint.outgoing]
        rows = into.flatten(1)
        scale = (rows.square().sum(dim=1) / (rows != 0).sum(dim=1).clamp(min=1)).sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        weights[joint.incoming] = (rows / scale[:, None]).reshape(into.shape)
        columns = out.reshape(len(out), len(scale), -1)
        weights[joint.outgoing] = (columns * scale[None, :, None]).reshape(out.shape)
    return weights


def drop_idle(weights: dict[str, Tensor], found: list[Joint]) -> dict[str, Tensor]:
    """Zero all weights of units without incoming or without outgoing weights."""
    weights = dict(weights)
    for _ in found:  # an idle unit may leave its neighbour in the next layer idle
        for joint in found:
            into, out = weights[joint.incoming], weights[joint.outgoing]
            rows, columns = into.flatten(1), out.reshape(len(out), len(into), -1)
            live = (rows != 0).any(dim=1) & (columns != 0).any(dim=2).any(dim=0)
            weights[joint.incoming] = (rows * live[:, None]).reshape(into.shape)
            weights[joint.outgoing] = (columns * live[None, :, None]).reshape(out.shape)
    return weights


def _joints(prefix: str, part: nn.Sequential) -> Iterator[Joint]:
    last: str | None = None
    for name, step in part.named_children():
        hooked = bool(step._forward_hooks or step._forward_pre_hooks)
        if isinstance(step, LAYERS) and not hooked:
            weight = f"{prefix}{name}.weight"
            if last is not None and getattr(step, "groups", 1) == 1:
                yield Joint(incoming=last, outgoing=weight)
            last = weight if step.bias is None else None
        elif not isinstance(step, HOMOGENEOUS) or hooked:
            last = None
