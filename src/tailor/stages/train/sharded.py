"""States of sharded models: each process stores the part of every tensor that it holds."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from tailor.stages.targets import as_dtensor, from_local

LOCAL = "local part of a sharded tensor"


def plain(state: Any) -> Any:
    """A state in which every DTensor is its local part, marked as such."""
    return _mapped(_plain, state)


def _plain(value: Any) -> Any:
    spread = as_dtensor(value) if isinstance(value, Tensor) else None
    if spread is None:
        return value
    return {LOCAL: spread.to_local(), "placements": str(spread.placements)}


def restored(part: Any, state: Any, device: torch.device) -> Any:
    """What ``part.load_state_dict`` takes, from what ``plain`` made of its state.

    Raises:
        ValueError: A tensor is not spread as its parameter is.
    """
    if isinstance(part, nn.Module):
        return _filled(state, part.state_dict())
    if isinstance(part, torch.optim.Optimizer):
        parameters = [p for group in part.param_groups for p in group["params"]]
        own = {
            index: _filled(values, dict.fromkeys(values, parameters[index]))
            for index, values in state["state"].items()
        }
        return state | {"state": own}
    return _mapped(lambda value: value.to(device) if isinstance(value, Tensor) else value, state)


def _filled(state: Any, like: Mapping[str, Tensor]) -> Any:
    """The state with DTensors again, spread as their counterparts in ``like`` are."""
    made = copy(state)
    made.update(
        {name: _spread(value, like[name]) for name, value in state.items() if _is_local(value)}
    )
    return made


def _is_local(value: Any) -> bool:
    return isinstance(value, dict) and LOCAL in value


def _spread(value: Any, like: Tensor) -> Tensor:
    model = as_dtensor(like)
    if model is None or str(model.placements) != value["placements"]:
        raise ValueError(f"a state is spread as {value['placements']}, unlike its parameter")
    local = value[LOCAL].to(model.to_local().device)
    return from_local(local, model)


def _mapped(change: Callable[[Any], Any], state: Any) -> Any:
    """The state with each plain value or tensor changed."""
    if isinstance(state, dict):
        made = copy(state)  # keeps what a subclass has beside its items
        made.update({key: _mapped(change, value) for key, value in state.items()})
        return made
    if type(state) in (list, tuple):
        return type(state)(_mapped(change, value) for value in state)
    return change(state)
