"""Which operations act on each unit alone."""

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

POINTWISE = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh"),
        *("sigmoid", "logsigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid"),
        *("tanhshrink", "softshrink", "hardshrink", "threshold", "dropout", "dropout1d"),
        *("dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
        *("abs", "neg", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal"),
        *("sin", "cos", "erf", "sign", "clamp", "clamp_min", "clamp_max", "clone", "detach"),
        *("contiguous", "float", "double", "half", "bfloat16", "to", "nan_to_num"),
    }
)
JOINS = frozenset({"mul", "multiply"})
MEETS = frozenset(
    {"add", "sub", "subtract", "div", "divide", "true_divide", "truediv", "pow", "rsub"}
    | {"maximum", "minimum"}
)
LOOKS = frozenset({"dim", "ndim", "dtype", "device", "requires_grad", "is_cuda"})
MEANS = frozenset({"mean", "amax", "amin"})  # of a constant they give the constant

POINTWISE_MODULES = frozenset(
    {
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
        *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh),
        *(nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
        *(nn.Threshold, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
        *(nn.AlphaDropout, nn.FeatureAlphaDropout, nn.PReLU),  # PReLU with one parameter
    }
)
POOLS = frozenset(
    {
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    }
)
_POOLS = frozenset(
    f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)
)
_HOMES = (torch, functional, operator)


def name_of(node: fx.Node) -> str:
    """What a node computes, by the name that torch has for it; empty if torch has none.

    The variants that work in place have the same name.
    """
    if node.op == "call_method":
        return str(node.target).removesuffix("_")
    target: Any = node.target
    if target is getattr:
        return str(node.args[1])
    name = str(getattr(target, "__name__", ""))
    known = any(getattr(home, name, None) is target for home in _HOMES)
    return name.removesuffix("_") if known else ""


def in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether it changes what it gets."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    method = node.op == "call_method" and str(node.target).endswith("_")
    function = str(getattr(node.target, "__name__", "")).endswith("_")
    operators = node.target in (operator.iadd, operator.imul, operator.isub, operator.itruediv)
    return method or function or operators or bool(node.kwargs.get("inplace"))


def pools(name: str) -> int | None:
    """How many axes of pixels a pooling function has; None for other functions."""
    return int(name[-2]) if name in _POOLS else None


def pads_with_zeros(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether pooling may mix zeros from outside into its means."""
    name = type(module).__name__ if module is not None else name_of(node)
    if "Max" in name or "max" in name or "daptive" in name:
        return False
    if module is not None:
        padding: Any = getattr(module, "padding", 0)
        return any(padding) if isinstance(padding, tuple) else bool(padding)
    return len(node.args) > 3 or "padding" in node.kwargs


def only_batch(node: fx.Node, axis: int, ndim: int) -> bool:
    """Whether reading a size leaves out that of the units."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        index = node.args[1]
        return isinstance(index, int) and index % ndim != axis
    return bool(node.users) and all(
        user.target is operator.getitem
        and isinstance(user.args[1], int)
        and user.args[1] % ndim != axis
        for user in node.users
    )


def reduced(node: fx.Node, ndim: int) -> tuple[set[int], bool] | None:
    """Axes that a mean goes over, and whether they stay with length 1; None if it goes over all."""
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    chosen = [dim] if isinstance(dim, int) else dim
    if not isinstance(chosen, list | tuple) or not chosen:
        return None
    if not all(isinstance(axis, int) for axis in chosen):
        return None
    return {int(axis) % ndim for axis in chosen}, bool(keep)


def flattens(node: fx.Node) -> bool:
    """Whether a reshape joins axes without stating the number of features."""
    if node.op == "call_function":
        return name_of(node) == "flatten" or (
            name_of(node) == "reshape" and _open_ended(node.args[1])
        )
    if node.target == "flatten":
        return True
    shape = node.args[1:] if len(node.args) != 2 else node.args[1]
    return node.target in ("view", "reshape") and _open_ended(shape)


def _open_ended(shape: object) -> bool:
    return isinstance(shape, list | tuple) and len(shape) > 1 and shape[-1] == -1
