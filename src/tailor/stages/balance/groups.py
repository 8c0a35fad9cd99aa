"""Groups of an optimizer: which matrices are balanced, and where each of them is."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from tailor.errors import UsageError
from tailor.stages.targets import Target, ends, targets

WHO = "TempBalance"

Patterns: TypeAlias = str | Sequence[str]


def layer_groups(
    model: nn.Module,
    lr: float | Tensor,
    *,
    layers: Patterns | None = None,
    skip: Patterns = (),
    **options: Any,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: one for each matrix, and one for the rest.

    Matrices stand in the order of the modules, and ``group["name"]`` is the canonical name; the
    last group, ``"rest"``, has everything else that is trained (biases, norms).

    Args:
        model: The network.
        lr: Learning rate of every group.
        layers: As for ``TempBalance``; give the same to both.
        skip: As for ``TempBalance``.
        options: Further settings of every group, such as ``weight_decay=5e-4``.

    Raises:
        UsageError: As for ``tailor.stages.targets.targets``.
    """
    found = chosen(model, layers, skip)
    alone = {id(one.parameter) for one in found}
    rest = [p for p in model.parameters() if id(p) not in alone and p.requires_grad]
    settings = {"lr": lr, **options}
    groups = [{"params": [one.parameter], "name": one.name, **settings} for one in found]
    return [*groups, {"params": rest, "name": "rest", **settings}] if rest else groups


def chosen(model: nn.Module, layers: Patterns | None, skip: Patterns) -> tuple[Target, ...]:
    """The matrices to balance, in the order of the modules; a shared one stands where it ends."""
    found = targets(model, "*" if layers is None else layers, skip, who=WHO)
    every = model.named_parameters(remove_duplicate=False)
    place = {id(parameter): i for i, (_, parameter) in enumerate(every)}
    if layers is None:
        outer = ends(model)
        found = tuple(one for one in found if one.name not in outer)
    return tuple(sorted(found, key=lambda one: place[id(one.parameter)]))


def places_of(optimizer: Optimizer, found: Sequence[Target]) -> dict[str, int]:
    """The group of each matrix, which it shares with no other one."""
    groups = {
        id(parameter): place
        for place, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    }
    places: dict[str, int] = {}
    for one in found:
        place = groups.get(id(one.parameter))
        partner = next((name for name, other in places.items() if other == place), None)
        if place is None or partner is not None:
            how = "in no group" if place is None else f"in one group with {partner}"
            raise UsageError(
                f"{one.name} is {how} of the optimizer, but each balanced matrix needs a group of "
                "its own; build the optimizer from layer_groups(model, lr), with the same layers "
                "and skip"
            )
        places[one.name] = place
    return places
