"""What the readers of units get on the user's data."""

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs, collect
from tailor.stages.inputs.vectors import vectors
from tailor.weights.source import read


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Moments of what one matrix is multiplied with.

    Attributes:
        mean: Of each input.
        squares: Mean square of each input.
        gram: Mean of the outer products x x^T, where it was asked for.
    """

    mean: Float[Tensor, "inputs"]
    squares: Float[Tensor, "inputs"]
    gram: Float[Tensor, "inputs inputs"] | None


def moments(
    model: nn.Module, paths: Iterable[str], data: Iterable[Any], *, gram: bool
) -> dict[str, Seen]:
    """Moments at some modules, by path, in one pass over the data.

    Raises:
        UsageError: The data are empty, do not fit, or never reach a module.
    """
    by_key = {layer.key: layer.name for layer in read(model).layers}
    names = {path: by_key[f"{path}.weight" if path else "weight"] for path in paths}
    sums: dict[str, Any] = {}
    handles = [
        model.get_submodule(path).register_forward_pre_hook(_adds_up(path, sums)) for path in names
    ]
    patterns = tuple(glob.escape(name) for name in names.values())
    try:
        inputs = collect(model, data, layers=patterns, gram=patterns if gram else ())
    finally:
        for handle in handles:
            handle.remove()
    return {path: _moments(path, inputs, name, sums) for path, name in names.items()}


def _adds_up(path: str, sums: dict[str, Any]) -> Any:
    def add(module: nn.Module, args: tuple[Any, ...]) -> None:
        for piece in vectors(module, args[0].detach()) if args else ():
            sums[path] = sums.get(path, 0) + piece.sum(dim=0)

    return add


def _moments(path: str, inputs: Mapping[str, Inputs], name: str, sums: dict[str, Any]) -> Seen:
    one = inputs[name]
    if path not in sums:
        raise UsageError(f"no data reached {path}; give data that does, or leave it out with skip")
    gram = None if one.gram is None else one.gram / one.count
    return Seen(mean=sums[path] / one.count, squares=one.squares / one.count, gram=gram)


def per_unit(values: Float[Tensor, "inputs"], width: int) -> Float[Tensor, "units _"]:
    """The inputs of a matrix by unit."""
    return torch.unflatten(values, 0, (width, -1))
