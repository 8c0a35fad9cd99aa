"""What every method needs that acts inside the steps of an optimizer: penalties and noise."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tailor.errors import UsageError


def groups_of(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """The parameter group of each parameter, by its identity; to be asked anew at each step.

    Raises:
        UsageError: The optimizer holds a parameter twice.
    """
    groups: dict[int, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in groups:
                raise UsageError("the optimizer holds a parameter twice; give each one group")
            groups[id(parameter)] = group
    return groups


def group_of(
    name: str, parameter: nn.Parameter, groups: dict[int, dict[str, Any]], *, why: str
) -> dict[str, Any]:
    """The group of a weight.

    Args:
        name: Canonical name of the weight.
        parameter: The weight.
        groups: From ``groups_of``.
        why: It has to be there, such as ``"on which a penalty acts"``.

    Raises:
        UsageError: The optimizer lacks it.
    """
    if id(parameter) not in groups:
        raise UsageError(
            f"the optimizer lacks {name}, {why}; make the optimizer from "
            f"model.parameters(), or leave it out with skip=({name!r},)"
        )
    return groups[id(parameter)]


def unless_skipped(optimizer: Optimizer, factor: float | Tensor) -> float | Tensor:
    """Nothing where a fused optimizer was told of infinite gradients; the device knows, not we.

    ``found_inf`` counts the devices that found some, so it may be more than one.
    """
    found: Tensor | None = getattr(optimizer, "found_inf", None)
    return factor if found is None else factor * (found == 0)


def closure_first(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """Evaluate a closure before the weights move, so that its gradient is that of the old ones.

    Returns:
        Arguments for the step whose closure gives the loss found; None where there is none, or
        where the optimizer calls it several times a step.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None or isinstance(optimizer, torch.optim.LBFGS):
        return None
    with torch.enable_grad():
        loss = closure()
    return args[:1], kwargs | {"closure": lambda: loss}
