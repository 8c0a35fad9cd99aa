"""What a module's tensors say about its units, and how to cut them smaller."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tailor.stages.nodes import NodeScale
from tailor.stages.shrink.chain import Role, Slot

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MATRICES = (  # classes that hold some, whether or not their units can be cut
    *(nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a class of modules holds units.

    Attributes:
        axes: Of ``weight``: that of the outputs and that of the inputs.
        sizes: Attributes that state these two lengths.
    """

    axes: tuple[int, int]
    sizes: tuple[str, str]


def kind_of(module: nn.Module) -> Kind | None:
    """How a matrix holds its units; None for other modules and for subclasses."""
    if type(module) is nn.Linear:
        return Kind((0, 1), ("out_features", "in_features"))
    if type(module) in CONVOLUTIONS and module.groups == 1:
        return Kind((0, 1), ("out_channels", "in_channels"))
    if _transposed_linear(module):
        return Kind((1, 0), ("nf", "nx"))
    return None


def spatial(module: nn.Module) -> int:
    """Axes after that of the units: of pixels for a convolution or BatchNorm, none for others."""
    name = type(module).__name__
    return int(name[-2]) if name[-1:] == "d" and name[-2:-1].isdigit() else 0


def depthwise(module: nn.Module) -> bool:
    """Whether a convolution acts on each channel alone."""
    if type(module) not in CONVOLUTIONS:
        return False
    conv: Any = module
    return bool(conv.groups == conv.in_channels == conv.out_channels)


def pads_with_zeros(module: nn.Module) -> bool:
    """Whether a matrix meets zeros at the border of an image."""
    own: Any = module
    if getattr(module, "padding_mode", "") != "zeros" or own.padding == "valid":
        return False
    return own.padding == "same" or any(own.padding)


def unit_axis(module: nn.Module, ndim: int) -> int:
    """Which axis of its input a module that acts on each unit alone takes for that of the units."""
    axis = getattr(module, "axis", None)  # of a NodeScale
    if axis is not None:
        return int(axis) % ndim
    return ndim - 1 - spatial(module) if depthwise(module) else 1


def carries(module: nn.Module) -> dict[str, int] | None:
    """Attributes that count the units of a module that acts on each alone; None for others."""
    own: Any = module
    if type(module) in NORMS:
        return {"num_features": own.num_features}
    if type(module) is nn.PReLU:
        return {"num_parameters": own.num_parameters}
    if type(module) is NodeScale:
        return {"p": own.p}
    if depthwise(module):
        return dict.fromkeys(("in_channels", "out_channels", "groups"), int(own.groups))
    return None


def gains(module: nn.Module) -> Float[Tensor, "n"]:
    """By how much such a module multiplies each unit, up to an activation."""
    own: Any = module
    if type(module) is NodeScale:
        found: Tensor = own.factors.detach()
        return found.double()
    if type(module) is nn.PReLU:
        return torch.ones_like(own.weight.detach(), dtype=torch.float64)
    if type(module) in NORMS:
        every = [one for one in (own.weight, own.running_var) if one is not None]
        scale = torch.ones(own.num_features, dtype=torch.float64)
        scale = scale.to(every[0].device) if every else scale
        scale = scale if own.weight is None else own.weight.detach().double().abs()
        var = own.running_var
        return scale if var is None else scale / (var.double() + own.eps).sqrt()
    kernels: Tensor = own.weight.detach().double().flatten(1)
    return kernels.square().sum(dim=1).sqrt()


def outputs_first(module: nn.Module) -> Float[Tensor, "out in taps"]:
    """The weight of a matrix, a linear layer having one tap."""
    kind: Any = kind_of(module)
    own: Any = module
    weight: Tensor = own.weight.detach().movedim(kind.axes[0], 0)
    return weight.flatten(2) if weight.ndim > 2 else weight[..., None]


def columns(module: nn.Module, slot: Slot, width: int) -> Float[Tensor, "out units features"]:
    """The weight of a reader; all taps and pixels of a unit are its features."""
    weight = outputs_first(module)
    return weight.reshape(len(weight), width, slot.block * weight.shape[2])


def overwrite_columns(module: nn.Module, new: Float[Tensor, "out units features"]) -> None:
    """Put other values into the weight of a reader, in its own type."""
    kind: Any = kind_of(module)
    own: Any = module
    shape = own.weight.movedim(kind.axes[0], 0).shape
    own.weight.detach().copy_(new.reshape(shape).movedim(0, kind.axes[0]))


def rows(module: nn.Module, slot: Slot, width: int) -> Float[Tensor, "units inputs"]:
    """The weights that make each unit; a copy."""
    weight = outputs_first(module)
    chosen = weight[slot.features(torch.arange(width, device=weight.device))]
    return chosen.reshape(len(slot.offsets), width, -1).movedim(1, 0).flatten(1)


def cut(module: nn.Module, slot: Slot, units: Int[Tensor, "n"]) -> None:
    """Leave only some units, in place."""
    for name, axis in _axes(module, slot.role).items():
        tensor: Tensor = getattr(module, name)
        chosen = slot.features(units.to(tensor.device))
        put(module, name, tensor.detach().index_select(axis, chosen))
    for name, size in measured(module).items():
        setattr(module, name, size)


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Another tensor in the place of a parameter or buffer."""
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value.contiguous(), requires_grad=old.requires_grad)
    setattr(module, name, value)


def measured(module: nn.Module) -> dict[str, int]:
    """The attributes that state sizes, as the tensors of the module have them."""
    kind, found = kind_of(module), carries(module) or {}
    own: Any = module
    if kind is not None:
        lengths = [own.weight.shape[axis] for axis in kind.axes]
        sizes = dict(zip(kind.sizes, lengths, strict=True))
        return sizes | ({"groups": 1} if type(module) in CONVOLUTIONS else {})
    units = [len(tensor) for tensor in _tensors(module).values()]
    return dict.fromkeys(found, units[0]) if units else found


def shapes(module: nn.Module, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes that the tensors of a module have to have with other sizes."""
    found = {name: list(tensor.shape) for name, tensor in _tensors(module).items()}
    kind = kind_of(module)
    if kind is None:
        size = next(iter(sizes.values()))
        return {name: (size, *shape[1:]) for name, shape in found.items()}
    for name, axis in zip(kind.sizes, kind.axes, strict=True):
        found["weight"][axis] = sizes[name]
    if "bias" in found:
        found["bias"] = [sizes[kind.sizes[0]]]
    return {name: tuple(shape) for name, shape in found.items()}


def hooked(module: nn.Module) -> bool:
    """Whether something looks at, or changes, what a module gets and gives."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def _transposed_linear(module: nn.Module) -> bool:
    """The ``Conv1D`` of GPT-2 in Transformers: a linear layer that stores inputs by outputs."""
    made = type(module)
    return made.__name__ == "Conv1D" and made.__module__ == "transformers.pytorch_utils"


def _axes(module: nn.Module, role: Role) -> dict[str, int]:
    """The tensors that lose units, and along which axis."""
    kind = kind_of(module)
    if kind is None:
        return dict.fromkeys(_tensors(module), 0)
    if role == "columns":
        return {"weight": kind.axes[1]}
    own: Any = module
    return {"weight": kind.axes[0]} | ({} if own.bias is None else {"bias": 0})


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers but single numbers."""
    every = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name: tensor for name, tensor in every if tensor.ndim}
