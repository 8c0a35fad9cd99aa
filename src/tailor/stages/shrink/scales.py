"""Trained scales of nodes, multiplied into the weights."""

import copy

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.nodes import NodeScale
from tailor.stages.shrink.operations import POINTWISE_MODULES
from tailor.stages.shrink.removal import shrink


def shrink_nodes(model: nn.Module) -> nn.Sequential:
    """The same function without its silent nodes: a smaller network of plain layers.

    Each ``NodeScale`` is multiplied into the matrix after it; then ``shrink`` takes out the nodes
    without effect. Outputs agree up to rounding. The model itself is left as it is.

    Args:
        model: An ``nn.Sequential`` of ``nn.Linear``, activations that act on each node alone,
            dropout, and ``NodeScale`` directly before a linear layer.

    Raises:
        UsageError: The model holds something else.
    """
    plain = _without_scales(model)
    matrices = [layer for layer in plain if isinstance(layer, nn.Linear)]
    if len(matrices) < 2:
        return plain
    weight = matrices[0].weight
    example = torch.zeros(1, weight.shape[1], dtype=weight.dtype, device=weight.device)
    small = shrink(plain, 0.0, example).model
    assert isinstance(small, nn.Sequential)
    return small


def _without_scales(model: nn.Module) -> nn.Sequential:
    """A copy whose weights have taken up the scales."""
    layers: list[nn.Module] = []
    factors: Tensor | None = None
    for layer in _checked(model):
        if isinstance(layer, NodeScale):
            factors = layer.factors.detach()
            continue
        layers.append(copy.deepcopy(layer))
        if factors is not None:
            layers[-1].get_parameter("weight").detach().mul_(factors)
        factors = None
    plain = nn.Sequential(*layers)
    plain.training = model.training  # the layers have kept their own modes
    return plain


def _checked(model: nn.Module) -> list[nn.Module]:
    if not isinstance(model, nn.Sequential):
        raise UsageError(f"shrink_nodes needs an nn.Sequential, but got {type(model).__name__}")
    layers = list(model)
    for at, layer in enumerate(layers):
        if type(layer) not in (nn.Linear, NodeScale, *POINTWISE_MODULES):
            raise UsageError(
                f"shrink_nodes cannot tell whether {type(layer).__name__} (layer {at}) acts on "
                "each node alone; it takes linear layers, activations, dropout and NodeScale"
            )
        if type(layer) is NodeScale and type(layers[min(at + 1, len(layers) - 1)]) is not nn.Linear:
            raise UsageError(
                f"the NodeScale at layer {at} has to stand directly before a linear layer"
            )
    return layers
