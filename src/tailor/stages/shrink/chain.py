"""A chain: the modules that have to lose the same units together."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Role: TypeAlias = Literal["rows", "carries", "columns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where one module holds the units.

    Attributes:
        path: The module.
        role: Its rows make them, it acts on each of them alone, or its columns read them.
        block: Features for each unit: the pixels of a channel after flattening, the size of a head.
        offsets: Where the units begin, for a matrix that holds several such blocks of rows.
    """

    path: str
    role: Role
    block: int = 1
    offsets: tuple[int, ...] = (0,)

    def features(self, units: Int[Tensor, "n"]) -> Int[Tensor, "features"]:
        """The indices that belong to some units, in order."""
        inner = torch.arange(self.block, device=units.device)
        each = (units[:, None] * self.block + inner).flatten()
        return torch.cat([each + offset for offset in self.offsets])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """Units whose value at a reader never changes.

    Attributes:
        known: Which units these are.
        values: What the reader gets from every unit and feature of its block; means something for
            those known.
    """

    known: Bool[Tensor, "units"]
    values: Float[Tensor, "units block"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """Units that can be removed, since all that makes and reads them is known.

    Attributes:
        name: The module that makes them; of several the first.
        width: How many there are.
        slots: Every module that holds them.
        constants: For each slot with columns, in their order, the units of constant value.
        strength: The rows that say how strong a unit is: all that make it, but for heads, where
            queries and keys only say where to look.
        group: For heads, the attention module and its counts of heads by name; each
            falls in proportion to the units.
    """

    name: str
    width: int
    slots: tuple[Slot, ...]
    constants: tuple[Constant, ...]
    strength: tuple[Slot, ...]
    group: tuple[str, tuple[str, ...]] | None = None

    def having(self, role: Role) -> list[Slot]:
        """The slots of one role."""
        return [slot for slot in self.slots if slot.role == role]

    @property
    def names(self) -> tuple[str, ...]:
        """All names that mean this chain."""
        made = [slot.path for slot in self.having("rows")]
        return tuple(dict.fromkeys([self.name, *made]))

    def same_as(self, other: "Chain") -> bool:
        """Whether both are made, carried and read alike."""
        return set(self.slots) == set(other.slots)


class Space:
    """Units while a graph is followed: what is known of their chain so far.

    Args:
        width: Number of units.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.slots: list[Slot] = []
        self.constants: list[Constant] = []
        self.reason: str | None = None
        self._joined: Space | None = None

    def root(self) -> "Space":
        """The space that this one has become part of."""
        space = self
        while space._joined is not None:
            space = space._joined
        return space

    def join(self, other: "Space") -> "Space":
        """Say that two layers have the same units, as the factors of a product do."""
        first, second = self.root(), other.root()
        if first is second:
            return first
        first.slots += second.slots
        first.constants += second.constants
        first.reason = first.reason or second.reason
        second._joined = first
        return first

    def block(self, reason: str) -> None:
        """Say why no unit can be removed; the first reason counts."""
        space = self.root()
        space.reason = space.reason or reason

    def chain(self) -> Chain:
        """What was found."""
        rows = tuple(slot for slot in self.slots if slot.role == "rows")
        return Chain(
            name=rows[0].path,
            width=self.width,
            slots=tuple(self.slots),
            constants=tuple(self.constants),
            strength=rows,
        )


def by_unit(value: Tensor, back: int, width: int) -> Tensor:
    """A tensor as units by features by the rest; ``back`` counts the units' axis from the end."""
    moved = value.detach().movedim(value.ndim - back, 0)
    return moved.reshape(width, moved.shape[0] // width, -1)
