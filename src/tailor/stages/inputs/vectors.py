"""The vectors that a module multiplies with its matrix.

Seen are ``nn.Linear``, convolutions without groups, and the ``Conv1D`` of Hugging Face, which is
a linear layer with its weight transposed. Not seen are embeddings, which multiply nothing;
transposed and grouped convolutions, recurrent and bilinear layers; and ``nn.MultiheadAttention``,
which hands its matrices to a function without calling a module.
"""

import math
from collections.abc import Iterator
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

CHUNK = 2**22  # numbers that are unfolded at a time
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def columns(module: nn.Module) -> int | None:
    """Inputs of a module's matrix; None where they cannot be seen."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # in MultiheadAttention, never called
        return None
    if isinstance(module, nn.Linear):
        return module.in_features
    if _is_convolution(module):
        return math.prod(module.weight.shape[1:]) if module.groups == 1 else None
    weight = module._parameters.get("weight")
    return len(weight) if is_turned(module) and weight is not None else None


def is_turned(module: nn.Module) -> bool:
    """Whether it is a linear layer that keeps its weight as inputs by outputs."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _is_convolution(module: nn.Module) -> TypeGuard[Convolution]:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def geometry(module: nn.Module) -> tuple[object, ...]:
    """Equal for modules that make the same vectors of the same tensor."""
    if not _is_convolution(module):
        return ()
    padding = tuple(module._reversed_padding_repeated_twice)
    return (module.kernel_size, module.stride, module.dilation, padding, module.padding_mode)


def vectors(module: nn.Module, x: Tensor) -> Iterator[Float[Tensor, "count inputs"]]:
    """All that the matrix is multiplied with, a piece at a time, in float64."""
    if _is_convolution(module):
        yield from _patches(module, x)
        return
    flat = x.reshape(-1, x.shape[-1])
    for piece in torch.split(flat, max(1, CHUNK // max(1, flat.shape[1]))):
        yield exact(piece)


def _patches(module: Convolution, x: Tensor) -> Iterator[Float[Tensor, "count inputs"]]:
    axes = len(module.kernel_size)
    x = x[None] if x.ndim == axes + 1 else x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    size = math.prod(x.shape[1:]) * math.prod(module.kernel_size)
    for piece in torch.split(x, max(1, CHUNK // max(1, size))):
        one = functional.pad(exact(piece), module._reversed_padding_repeated_twice, mode=mode)
        for axis in range(axes):
            dilation = module.dilation[axis]
            span = dilation * (module.kernel_size[axis] - 1) + 1
            one = one.unfold(2 + axis, span, module.stride[axis])[..., ::dilation]
        places, kernel = range(2, 2 + axes), range(2 + axes, 2 + 2 * axes)
        yield one.permute(0, *places, 1, *kernel).reshape(-1, module.weight[0].numel())


def exact(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float64; on the CPU where the device lacks it."""
    return (x.cpu() if x.device.type == "mps" else x).to(torch.float64)
