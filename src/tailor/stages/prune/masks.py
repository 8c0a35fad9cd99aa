"""Which entries of a network's matrices stay."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.targets import fitting, rows
from tailor.weights.layer import Layer
from tailor.weights.source import read


class Masks(Mapping[str, Tensor]):
    """For each matrix by name, which entries stay; ``torch.save(dict(masks), ...)`` stores them.

    A tied weight has one mask, under the first of its names.

    Args:
        keep: Tensors of bool in the shapes of the weights.

    Raises:
        UsageError: One is of another type.

    Examples:
        >>> Masks({"weight": torch.tensor([[True, False]])}).sparsity
        0.5
    """

    def __init__(self, keep: Mapping[str, object]) -> None:
        self._keep: dict[str, Tensor] = {}
        for name, mask in keep.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise UsageError(
                    f"the mask of {name} has to be a tensor of bool, True where weights stay"
                )
            self._keep[name] = mask

    @classmethod
    def of(cls, model: nn.Module, names: str | tuple[str, ...] = "*") -> "Masks":
        """The masks of a model that is pruned already: what is not zero stays.

        Args:
            model: Any module.
            names: Patterns of names of weights.
        """
        found = fitting(model, names, who="Masks")
        return cls({layer.name: layer.load().detach() != 0 for layer in found})

    def __getitem__(self, name: str) -> Tensor:
        return self._keep[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keep)

    def __len__(self) -> int:
        return len(self._keep)

    def __repr__(self) -> str:
        return f"Masks({len(self)} matrices, {self.sparsity:.1%} zeros)"

    @property
    def sparsity(self) -> float:
        """Share of the entries that do not stay."""
        total = sum(mask.numel() for mask in self.values())
        return sum(int((~mask).sum()) for mask in self.values()) / total if total else 0.0

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Zero what does not stay, in place.

        Raises:
            UsageError: The model lacks a matrix, has it in another shape, or computes it.
        """
        for weight, gone in self.bound(model):
            zero(weight, gone)

    def revived(self, model: nn.Module) -> int:
        """How many entries that should be zero are not."""
        return sum(int((rows(weight).local[gone] != 0).sum()) for weight, gone in self.bound(model))

    def bound(self, model: nn.Module) -> list[tuple[nn.Parameter, Bool[Tensor, "..."]]]:
        """Each weight of a model with what of it goes, on its device; see ``apply``."""
        layers = {name: one for one in read(model).layers for name in (one.name, *one.aliases)}
        return [
            (weight, _gone(weight, mask))
            for name, mask in self.items()
            for weight in [_weight(name, mask, layers.get(name))]
        ]


def _weight(name: str, mask: Tensor, layer: Layer | None) -> nn.Parameter:
    if layer is None:
        raise UsageError(f"there is a mask for {name}, but the model has no such matrix")
    if layer.shape != tuple(mask.shape):
        raise UsageError(
            f"{name} has shape {layer.shape}, but its mask {tuple(mask.shape)}; use the masks of "
            "this model"
        )
    weight = layer.load()
    if not isinstance(weight, nn.Parameter):
        raise UsageError(
            f"{name} is computed anew in each forward pass, so zeros cannot be kept in it; make "
            "it a plain parameter first"
        )
    return weight


def _gone(weight: Tensor, mask: Tensor) -> Tensor:
    """What goes, of the rows that this process holds."""
    held = rows(weight)
    return ~mask[held.first : held.first + len(held.local)].to(held.local.device)


def zero(weight: Tensor, gone: Bool[Tensor, "..."]) -> None:
    """Put zeros in place; whatever stood there, also NaN, is gone."""
    local = rows(weight).local
    if local.element_size() == 1:  # types of eight bits know no arithmetic
        local = local.view(torch.uint8)
    local.masked_fill_(gone, 0)
