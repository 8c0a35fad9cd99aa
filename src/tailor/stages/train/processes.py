"""The processes that train one model together: alone, by DDP, or by ``fully_shard``."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tailor.stages.targets import as_dtensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among those that hold the same model.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        sharded: Whether each holds a part of every parameter only (``fully_shard``).
        device: Where messages between them are.
    """

    rank: int
    world: int
    sharded: bool
    device: torch.device

    @classmethod
    def of(cls, model: nn.Module) -> "Processes":
        """Alone, unless the model is wrapped by DDP or sharded by ``fully_shard``."""
        first = next(model.parameters())
        sharded = any(as_dtensor(one) is not None for one in model.parameters())
        copied = any(isinstance(one, nn.parallel.DistributedDataParallel) for one in layers(model))
        if not sharded and not copied:
            return cls(rank=0, world=1, sharded=False, device=first.device)
        return cls(
            rank=dist.get_rank(),
            world=dist.get_world_size(),
            sharded=sharded,
            device=first.device,
        )

    def any_failed(self, failed: bool) -> bool:
        """Wait for all; whether one of them failed."""
        if self.world == 1:
            return failed
        flag = torch.tensor(int(failed), device=self.device)
        dist.all_reduce(flag)
        return bool(flag.item())

    def of_first(self, number: int) -> int:
        """The number that process 0 has, on all."""
        if self.world == 1:
            return number
        told = torch.tensor(number, device=self.device)
        dist.broadcast(told, src=0)
        return int(told.item())

    def __str__(self) -> str:
        return f"{self.world} sharded" if self.sharded else str(self.world)


def layers(model: nn.Module) -> list[nn.Module]:
    """The model, and what is inside the wrappers that ``torch.compile`` and DDP put around it."""
    found = [model]
    while True:
        inside = getattr(found[-1], "_orig_mod", None)
        if inside is None and isinstance(found[-1], WRAPPERS):
            inside = found[-1].module
        if not isinstance(inside, nn.Module):
            return found
        found.append(inside)


def inner(model: nn.Module) -> nn.Module:
    """The model without wrappers, so that names stay the same."""
    return layers(model)[-1]


def gathering(model: Any, last: bool) -> AbstractContextManager[Any]:
    """Gradients of a micro-batch travel between processes only with the last one of a step."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    if last or not hasattr(model, "no_sync"):
        return nullcontext()
    context: AbstractContextManager[Any] = model.no_sync()
    return context


WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)
