"""Local search on the certificate with a screen: most changes are refused on few examples.

Examples outside the screen are all classified correctly as things stand, so the errors in the
screen are at least all errors *before* a change, and at most all errors after it. A change that
does not pay on the screen cannot pay in the full count; what passes is counted in full.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import occam
from tailor.numerics.coding import Grid, code_length
from tailor.stages.compress import CompressedModel, pack
from tailor.stages.incremental.screen import Screen
from tailor.stages.polish import Standing, Watch, open_places, other_levels
from tailor.stages.units import drop_dead, wide_chains
from tailor.tasks import Data, zero_one


def screened(
    small: CompressedModel,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    delta: float = 0.05,
    choices: int = 1,
    sweeps: int = 1,
    tries: int | None = None,
    hard: float = 0.1,
    seed: int = 0,
    watch: Watch | None = None,
) -> CompressedModel:
    """Look for a file with a smaller Occam bound near the given one, on large samples.

    As ``polish``, but a change is first tried on the examples that are misclassified or nearly
    so, and in an ``nn.Sequential`` of linear and convolutional layers it is followed through
    the one unit that it moves. Errors are those of ``zero_one``. What every layer gives on every
    example is kept in memory, in float64, if that takes no more than 2 GiB.

    Args:
        small: Where to start; all its tensors on grids.
        build: As for ``certify``.
        data: As for ``certify``.
        delta: As for ``certify``.
        choices: As for ``certify``.
        sweeps: At most this many, over all weights in random order; the search ends when a sweep
            changes nothing.
        tries: Stop after so many changes were tried; None for no limit.
        hard: Share of the examples in the screen, in (0, 1]; the misclassified ones always are.
        seed: Of the random order.
        watch: Called with the bound after each change that is kept, by the ideal code length.

    Returns:
        A file whose bound is at most that of ``small``.

    Raises:
        UsageError: A number is out of range, or a tensor is not on a grid.
    """
    if sweeps < 0 or choices < 1 or not 0 < hard <= 1 or (tries is not None and tries < 0):
        raise UsageError(
            "needs sweeps >= 0, choices >= 1, 0 < hard <= 1 and tries >= 0, but got "
            f"{sweeps}, {choices}, {hard} and {tries}"
        )
    search = _Search(small, build, data, delta, math.log2(choices), hard, watch)
    generator = np.random.default_rng(seed)
    left = math.inf if tries is None else tries
    for _ in range(sweeps):
        left, changed = search.sweep(generator, left)
        if not changed or left <= 0:
            break
    return min((small, search.packed()), key=search.bound_of)


class _Search:
    """The current network, its errors and the length of its code."""

    def __init__(
        self,
        small: CompressedModel,
        build: Callable[[], nn.Module],
        data: Data,
        delta: float,
        paid: float,
        hard: float,
        watch: Watch | None,
    ) -> None:
        self.small, self.build, self.delta, self.paid = small, build, delta, paid
        self.grids, self.watch = small.grids(), watch
        self.model = small.into(build).to(torch.float64).eval()
        self.tensors = dict(self.model.state_dict())
        others = sorted(set(self.tensors) - set(self.grids))
        if others:
            raise UsageError(f"the search needs all tensors on grids, but {others[0]} is not")
        wide = data.x.to(torch.float64) if data.x.is_floating_point() else data.x
        self.data = replace(data, x=wide)
        self.screen = Screen(self.model, self.data, hard)
        self.lengths = {name: _bits(grid) for name, grid in self.grids.items()}
        self._settle()

    def sweep(self, generator: np.random.Generator, left: float) -> tuple[float, int]:
        """Try changes at every weight once; gives how many tries are left, and the changes."""
        changes = 0
        places = [
            (n, i) for n, grid in self.grids.items() for i in open_places(grid.levels).tolist()
        ]
        for at in generator.permutation(len(places)).tolist():
            name, index = places[at]
            for level in other_levels(int(self.grids[name].levels.flat[index])):
                if left <= 0:
                    return left, changes
                left -= 1
                if self._try(name, index, level):
                    changes += 1
                    break
        return left, changes

    def bound_of(self, file: CompressedModel) -> float:
        """The bound of a file, by its measured length."""
        errors = int(zero_one(file.into(self.build), self.data).sum())
        bits = 8 * len(file.stream) + self.paid
        return occam(errors, len(self.data), bits, self.delta).binomial

    def packed(self) -> CompressedModel:
        """The current network as a file, without units that do nothing."""
        levels = {n: torch.as_tensor(g.levels) for n, g in self.grids.items()}
        levels = drop_dead(levels, wide_chains(self.model))
        grids = {n: Grid(levels=levels[n].numpy(), step=g.step) for n, g in self.grids.items()}
        model = self.small.into(self.build)
        return pack(model, grids, coder=self.small.coder, about=self.small.about)

    def _try(self, name: str, index: int, level: int) -> bool:
        """Make one change if it lowers the bound."""
        grid = self.grids[name]
        old = int(grid.levels.flat[index])
        grid.levels.flat[index] = level
        length = _bits(grid)
        total = self.total - self.lengths[name] + length
        flat = self.tensors[name].view(-1)
        flat[index] = level * grid.step
        change = (name, index, (level - old) * grid.step)
        passes = total < self.standing.allowed(self.screen.errors(*change))
        if passes and total < self.standing.allowed(self.screen.recount(*change)):
            self.lengths[name] = length
            self.screen.accept(name)
            self._settle()
            if self.watch is not None:
                self.watch(self.standing.bound)
            return True
        grid.levels.flat[index] = old
        flat[index] = old * grid.step
        return False

    def _settle(self) -> None:
        """Take the present network as the one to beat."""
        self.total = sum(self.lengths.values()) + self.paid
        self.standing = Standing(self.screen.wrong, len(self.data), self.total, self.delta)


def _bits(grid: Grid) -> float:
    return sum(code_length(grid).values())
