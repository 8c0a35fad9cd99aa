"""Which units stay: as many as were asked for, and those that matter most."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.shrink.chain import Chain
from tailor.stages.shrink.importance import Importance, Units
from tailor.stages.shrink.kinds import columns, gains, rows
from tailor.stages.shrink.mend import idle
from tailor.stages.shrink.seen import Seen, per_unit

Kept: TypeAlias = int | Sequence[int]


class Choice:
    """How many units of each chain stay, and which.

    Args:
        ratio: Share to remove, or what to keep by name.
        rule: Which units go.
        align: Of what their number is a multiple.
        chains: All chains that are meant.

    Raises:
        UsageError: A name or a number fits no chain.
    """

    def __init__(
        self,
        *,
        ratio: float | Mapping[str, Kept],
        rule: Importance,
        align: int,
        chains: Sequence[Chain],
    ) -> None:
        self.ratio, self.rule, self.align = ratio, rule, align
        self.asked = _asked(ratio, chains) if isinstance(ratio, Mapping) else {}

    def kept(self, model: nn.Module, chain: Chain, seen: dict[str, Seen]) -> list[int]:
        """The units that stay.

        Raises:
            UsageError: The rule gives a number that is not finite.
        """
        if isinstance(self.ratio, Mapping) and chain.name not in self.asked:
            return list(range(chain.width))
        asked = self.asked.get(chain.name)
        if asked is not None and not isinstance(asked, int):
            return list(asked)
        free = idle(model, chain)
        count = self._count(chain.width, int(free.sum())) if asked is None else asked
        if count == chain.width:
            return list(range(chain.width))
        score = self.rule.of(units_of(model, chain, seen)).cpu()
        if not bool(torch.isfinite(score).all()):
            raise UsageError(f"{type(self.rule).__name__} of {chain.name} is not finite everywhere")
        order = score.masked_fill(free, -math.inf).argsort(stable=True)
        chosen: list[int] = order[chain.width - count :].sort().values.tolist()
        return chosen

    def _count(self, width: int, free: int) -> int:
        assert not isinstance(self.ratio, Mapping)
        count = max(1, width - max(round(self.ratio * width), free))
        return min(width, -(-count // self.align) * self.align)


def units_of(model: nn.Module, chain: Chain, seen: dict[str, Seen]) -> Units:
    """The weights around the units of a chain."""
    readers = chain.having("columns")
    gain = torch.ones(chain.width, dtype=torch.float64)
    for slot in chain.having("carries"):
        own = gains(model.get_submodule(slot.path)).cpu().reshape(chain.width, -1)
        gain = gain * own.square().mean(dim=1).sqrt()
    incoming = [rows(model.get_submodule(one.path), one, chain.width) for one in chain.strength]
    outgoing = [columns(model.get_submodule(one.path), one, chain.width) for one in readers]
    squares = [per_unit(seen[slot.path].squares, chain.width) for slot in readers if seen]
    return Units(
        incoming=tuple(one.double().cpu() for one in incoming),
        gain=gain,
        outgoing=tuple(one.double().cpu() for one in outgoing),
        squares=tuple(one.cpu() for one in squares) if seen else None,
    )


def _asked(ratio: Mapping[str, Kept], chains: Sequence[Chain]) -> dict[str, Kept]:
    """What the user wants to keep, by the first name of each chain."""
    found: dict[str, Kept] = {}
    for name, kept in ratio.items():
        chain = next((one for one in chains if name in one.names), None)
        if chain is None:
            known = ", ".join(one.name for one in chains[:8])
            raise UsageError(f"there is no chain {name}; there are {known}")
        if chain.name in found:
            raise UsageError(f"{name} and {chain.name} have the same units; name one of them")
        found[chain.name] = _checked(name, kept, chain.width)
    return found


def _checked(name: str, kept: Kept, width: int) -> Kept:
    if isinstance(kept, int) and not isinstance(kept, bool):
        if not 1 <= kept <= width:
            raise UsageError(f"{name} has {width} units, so it cannot keep {kept} of them")
        return kept
    if isinstance(kept, bool | float | str) or not isinstance(kept, Sequence | Tensor):
        raise UsageError(
            f"{name} needs the number of units to keep or their indices, but got {kept!r}"
        )
    indices = [int(one) for one in kept]
    if len(set(indices)) != len(indices) or not set(indices) <= set(range(width)) or not indices:
        raise UsageError(
            f"the units of {name} to keep must be different indices from 0 to {width - 1}, and "
            f"at least one, but are {indices[:8]}"
        )
    return sorted(indices)
