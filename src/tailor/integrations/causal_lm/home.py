"""Where the weights of a language model live while it is pruned: in memory, or in a folder."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.integrations.causal_lm.blocks import (
    Batch,
    Blocks,
    enter,
    find_blocks,
    is_transposed,
    left_alone,
    matrices,
)
from tailor.integrations.causal_lm.record import Progress
from tailor.stages.modules import LeftAlone, copied
from tailor.weights.layer import Layer
from tailor.weights.source import read
from tailor.weights.source.entry import turned


class Home(ABC):
    """A model as ``prune_causal_lm`` needs it; one block is at work at a time.

    Attributes:
        model: The network, where all of it is in memory.
        blocks: Its blocks, perhaps without weights.
        layers: The matrices in all blocks, outputs by inputs, in the order of the model.
    """

    model: nn.Module | None
    blocks: Blocks
    layers: tuple[Layer, ...]

    @abstractmethod
    def enter(self, tokens: Sequence[Tensor]) -> list[Batch]:
        """What the first block sees of each batch."""

    @abstractmethod
    def block(self, index: int, *, stored: bool = False) -> nn.Module:
        """A block to work with, in the type and on the device that were asked for.

        Args:
            index: Which one.
            stored: With the weights that ``store`` wrote, and not those of the source.
        """

    @abstractmethod
    def store(self, new: dict[str, Float[Tensor, "out in"]]) -> None:
        """Keep the new matrices of one block, by the names of their layers."""

    @abstractmethod
    def resume(self, key: str) -> Progress | None:
        """How far a run with the same key came before it was broken off; None if there is none."""

    @abstractmethod
    def note(self, done: Progress) -> None:
        """Remember how far this run is; the first call comes before ``store``."""

    @abstractmethod
    def finish(self) -> Path | None:
        """The end: the folder that was made, if one was."""

    def owned(self, index: int, block: nn.Module) -> dict[str, nn.Module]:
        """The matrices of a block as parts of it, by the names of their layers."""
        start = f"{self.blocks.prefix}.{index}"
        return {f"{start}.{name}.weight": part for name, part in matrices(block).items()}

    def left(self) -> tuple[LeftAlone, ...]:
        """What in the blocks has two axes and is no matrix."""
        return tuple(
            LeftAlone(name=f"{self.blocks.prefix}.{index}.{name}", reason=reason)
            for index, block in enumerate(self.blocks.members)
            for name, reason in left_alone(block).items()
        )


class InMemory(Home):
    """A model that is in memory as a whole; a copy of it is changed."""

    def __init__(
        self, model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
    ) -> None:
        self.model = copied(model, who="prune_causal_lm")
        self.blocks = find_blocks(self.model)
        self._training = [part.training for part in self.model.modules()]
        self.model.eval()
        self._device, self._dtype = device, dtype
        named = {one.key: one for one in read(self.model).layers}
        self.layers = tuple(
            oriented(named[name], name, part)
            for index, block in enumerate(self.blocks.members)
            for name, part in self.owned(index, block).items()
            if name in named
        )

    def enter(self, tokens: Sequence[Tensor]) -> list[Batch]:
        """See ``Home.enter``."""
        assert self.model is not None
        at = next(self.model.parameters()).device
        found = [enter(self.model, self.blocks, one.to(at)) for one in tokens]
        return [at_work(batch, self._device, self._dtype) for batch in found]

    def block(self, index: int, *, stored: bool = False) -> nn.Module:
        """See ``Home.block``."""
        return copy.deepcopy(self.blocks.members[index]).to(self._device, self._dtype)

    def store(self, new: dict[str, Float[Tensor, "out in"]]) -> None:
        """See ``Home.store``."""
        assert self.model is not None
        for name, matrix in new.items():
            part = self.model.get_submodule(name.removesuffix(".weight"))
            write(part, matrix)

    def resume(self, key: str) -> Progress | None:
        """See ``Home.resume``; what was in memory is gone."""
        return None

    def note(self, done: Progress) -> None:
        """See ``Home.note``."""

    def finish(self) -> Path | None:
        """See ``Home.finish``."""
        assert self.model is not None
        for part, training in zip(self.model.modules(), self._training, strict=True):
            part.training = training
        return None


def write(part: nn.Module, matrix: Float[Tensor, "out in"]) -> None:
    """Put a matrix, outputs by inputs, into a part of a block."""
    weight = part.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight.copy_(matrix.T if is_transposed(part) else matrix)


def oriented(layer: Layer, name: str, part: nn.Module) -> Layer:
    """A layer under the model's own name, outputs by inputs."""
    if not is_transposed(part):
        return replace(layer, name=name)
    rows, columns = layer.shape
    load = turned(layer.load, layer.shape, (1, 0))
    return replace(layer, name=name, shape=(columns, rows), load=load)


def at_work(batch: Batch, device: torch.device | None, dtype: torch.dtype | None) -> Batch:
    """A batch whose numbers have the type and place of the blocks at work."""
    hidden = batch.hidden if dtype is None else batch.hidden.to(dtype)
    calls = [
        replace(
            call, args=_moved(call.args, device, dtype), kwargs=_moved(call.kwargs, device, dtype)
        )
        for call in batch.calls
    ]
    return Batch(hidden=hidden, calls=calls)


def _moved(given: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """Tensors in tuples, lists and dicts; only floating point changes its type."""
    match given:
        case Tensor():
            return given.to(device, dtype if given.is_floating_point() else None)
        case tuple() | list():
            return type(given)(_moved(one, device, dtype) for one in given)
        case dict():
            return {key: _moved(one, device, dtype) for key, one in given.items()}
    return given
