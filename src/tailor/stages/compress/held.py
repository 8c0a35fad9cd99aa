"""Retrain a network while some of its weights keep their values."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tailor.errors import NonFinite, UsageError
from tailor.weights.source import read

Train = Callable[[nn.Module], None]


class _Held(nn.Module):
    """A parametrization under which some entries keep their values whatever the optimizer does."""

    def __init__(self, held: Bool[Tensor, "..."], values: Float[Tensor, "..."]) -> None:
        super().__init__()
        self.register_buffer("held", held)
        self.register_buffer("values", values)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.held, self.values, weight)  # type: ignore[arg-type]


def retrain_held(
    model: nn.Module, held: Mapping[str, Bool[Tensor, "..."]], retrain: Train | None
) -> None:
    """Run the caller's training with some entries held, then leave a plain module behind.

    Raises:
        NonFinite: Training made weights NaN or infinite.
    """
    if retrain is None:
        return
    orders = {part: list(part._parameters) for part in model.modules()}
    for name, fixed in held.items():
        module, attribute = _owner(model, name)
        values = getattr(module, attribute).detach().clone()
        place = fixed.to(values.device)
        parametrize.register_parametrization(module, attribute, _Held(place, values))
    try:
        retrain(model)
    finally:
        for name in held:
            module, attribute = _owner(model, name)
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
            for key in orders[module]:  # removal put the weight behind the bias
                module._parameters[key] = module._parameters.pop(key)
    matrices(model, "retraining made them so; lower its learning rate")


def matrices(model: nn.Module, why: str = "nothing was compressed") -> dict[str, Tensor]:
    """Detached copies of the matrices on the CPU, by their key in the state dict.

    Raises:
        UsageError: A weight is parametrized, or two are one tensor.
        NonFinite: A weight is NaN or infinite.
    """
    if any(parametrize.is_parametrized(part) for part in model.modules()):
        raise UsageError(
            "the model has parametrized weights; make them plain first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    named = {}
    for layer in read(model).layers:
        if layer.aliases:
            raise UsageError(
                f"{layer.name} and {layer.aliases[0]} are one tensor, which cannot be held in "
                "retraining; give each its own copy first"
            )
        tensor = layer.load().detach()
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{layer.name} holds NaN or infinite weights; {why}")
        named[layer.key] = tensor.cpu().clone()
    return named


def write_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy values into the parameters of those keys."""
    with torch.no_grad():
        for name, values in weights.items():
            module, attribute = _owner(model, name)
            getattr(module, attribute).copy_(values)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
