"""A copy of a network whose weights are plain parameters."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tailor.errors import UsageError
from tailor.weights.layer import Layer

NORMS = ("WeightNorm", "SpectralNorm")  # hooks of torch that compute a weight in each pass


def plain(model: nn.Module, *, inplace: bool) -> nn.Module:
    """The model or a copy of it, in which masks of ``torch.nn.utils.prune`` are made permanent.

    Raises:
        UsageError: It is no module, or cannot be copied.

    Warns:
        UserWarning: There were such masks.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"prune needs a module, but got a {type(model).__name__}; for weights in files there "
            "is prune_layers"
        )
    work = model if inplace else _copied(model)
    folded = [name for path, part in work.named_modules() for name in _fold(path, part)]
    if folded:
        warnings.warn(
            f"masks of torch.nn.utils.prune were made permanent in {', '.join(folded[:8])}",
            UserWarning,
            stacklevel=3,
        )
    return work


def _copied(model: nn.Module) -> nn.Module:
    """Masked weights are results of a product, which ``deepcopy`` refuses: it is told theirs."""
    results = {
        id(value): value.detach().clone()
        for part in model.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, results)
    except Exception as error:
        raise UsageError(
            f"prune works on a copy, but {type(model).__name__} cannot be copied ({error}); use "
            "inplace=True"
        ) from error


def _fold(path: str, part: nn.Module) -> list[str]:
    """Multiply the masks of a module into its weights; which these are."""
    hooks: list[Any] = list(part._forward_pre_hooks.values())
    names = [str(h._tensor_name) for h in hooks if isinstance(h, torch_prune.BasePruningMethod)]
    for name in names:
        torch_prune.remove(part, name)  # type: ignore[no-untyped-call]
    return [f"{path}.{name}" if path else name for name in names]


def check_plain(model: nn.Module, layers: Sequence[Layer]) -> None:
    """Refuse a weight that is computed from others.

    Raises:
        UsageError: One is, by a parametrization, a hook of torch, or as a low-rank product.
    """
    for path, part in model.named_modules():
        for hook in part._forward_pre_hooks.values():
            if type(hook).__name__ in NORMS:
                start = f"{path}.{hook.name}_" if path else f"{hook.name}_"
                _refuse([one.name for one in layers if one.key.startswith(start)], type(hook))
    _refuse([one.name for one in layers if not isinstance(one.load(), nn.Parameter)], None)


def _refuse(names: Sequence[str], why: type | None) -> None:
    if names:
        what = why.__name__ if why else "a parametrization or low-rank factors"
        raise UsageError(
            f"{names[0]} comes from {what}, so zeros in it would not last; make it a plain "
            f"parameter first, or leave it out with skip=({names[0]!r},)"
        )
