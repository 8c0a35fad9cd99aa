"""Local search on the certificate: change one quantised weight at a time while the bound falls.

The Occam bound holds for all files of one code at once, so searching for the file with the
smallest bound costs nothing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.bounds import bits_allowed, occam
from tailor.numerics.coding import Grid, code_length
from tailor.stages.compress import CompressedModel, pack
from tailor.stages.units import chains, drop_dead, live_first
from tailor.tasks import Data, ErrorCount, zero_one

Watch = Callable[[float], None]

GAIN = 1e-3  # bits that a change must save at least, so that the search cannot go round in circles


def polish(
    small: CompressedModel,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    delta: float = 0.05,
    choices: int = 1,
    sweeps: int = 3,
    error: ErrorCount = zero_one,
    seed: int = 0,
    watch: Watch | None = None,
) -> CompressedModel:
    """Look for a file with a smaller Occam bound near the given one.

    Each sweep visits, in random order, every weight that is not zero (tries zero, one level
    up, one down, the other sign) and every zero weight in a row and a column that hold
    something (tries both signs of level 1), and keeps a change when the bound falls.

    Args:
        small: Where to start.
        build: As for ``certify``.
        data: As for ``certify``.
        delta: As for ``certify``.
        choices: As for ``certify``.
        sweeps: At most this many; the search ends when a sweep changes nothing.
        error: As for ``certify``.
        seed: Of the random order.
        watch: Called with the bound after each sweep, by the ideal code length (whole bytes
            come at the end).

    Returns:
        A file whose bound is at most that of ``small``.
    """
    if sweeps < 0 or choices < 1:
        raise UsageError(f"needs sweeps >= 0 and choices >= 1, but got {sweeps} and {choices}")
    search = _Search(small, build, data, delta, choices, error)
    generator = np.random.default_rng(seed)
    for _ in range(sweeps):
        changed = search.sweep(generator)
        if watch is not None:
            watch(search.bound)
        if not changed:
            break
    # Whole bytes may eat up a tiny gain, and another order of the units may cost a bit or two.
    files = (small, search.packed(tidy=False), search.packed(tidy=True))
    return min(files, key=lambda file: (search.bound_of(file), len(file.stream)))


class _Search:
    """The current network, its errors and the length of its code."""

    def __init__(
        self,
        small: CompressedModel,
        build: Callable[[], nn.Module],
        data: Data,
        delta: float,
        choices: int,
        error: ErrorCount,
    ) -> None:
        self.small, self.build = small, build
        self.model = small.into(build).to(torch.float64).eval()
        wide = data.x.to(torch.float64) if data.x.is_floating_point() else data.x
        self.data, self.delta, self.error = replace(data, x=wide), delta, error
        self.paid = math.log2(choices)
        self.grids = small.grids()
        self.tensors: dict[str, Tensor] = dict(self.model.state_dict())
        self.lengths = {name: sum(parts.values()) for name, parts in small.code_length().items()}
        self.changes = 0
        self._settle(self._errors())

    def sweep(self, generator: np.random.Generator) -> int:
        """Try every candidate once; returns how many changes were kept."""
        before = self.changes
        places = [
            (name, i)
            for name, grid in self.grids.items()
            for i in open_places(grid.levels).tolist()
        ]
        for at in generator.permutation(len(places)):
            name, index = places[at]
            for level in list(other_levels(int(self.grids[name].levels.flat[index]))):
                if self._try(name, index, level):
                    break
        return self.changes - before

    def bound_of(self, file: CompressedModel) -> float:
        """The bound of a file, by its measured length."""
        errors = int(self.error(file.into(self.build), self.data).sum())
        bits = 8 * len(file.stream) + self.paid
        return occam(errors, len(self.data), bits, self.delta).binomial

    def packed(self, tidy: bool) -> CompressedModel:
        """The current network as a file; tidied: no dead units, and live ones first."""
        levels = {n: torch.as_tensor(g.levels) for n, g in self.grids.items()}
        found = [c for c in chains(self.model) if {c.incoming, c.outgoing} <= levels.keys()]
        if tidy:
            levels = live_first(drop_dead(levels, found), found)
        grids = {n: Grid(levels=levels[n].numpy(), step=g.step) for n, g in self.grids.items()}
        model = self.small.into(self.build)
        return pack(model, grids, coder=self.small.coder, about=self.small.about)

    def _try(self, name: str, index: int, level: int) -> bool:
        """Make one change if it lowers the bound."""
        grid = self.grids[name]
        old = int(grid.levels.flat[index])
        flat = self.tensors[name].view(-1)
        flat[index] = level * grid.step
        errors = self._errors()
        allowed = self.standing.allowed(errors)
        grid.levels.flat[index] = level
        length = sum(code_length(grid).values()) if allowed > 0 else 0.0
        if allowed > 0 and self.total - self.lengths[name] + length < allowed:
            self.lengths[name] = length
            self.changes += 1
            self._settle(errors)
            return True
        grid.levels.flat[index] = old
        flat[index] = old * grid.step
        return False

    def _errors(self) -> int:
        return int(self.error(self.model, self.data).sum())

    def _settle(self, errors: int) -> None:
        """Take the present network as the one to beat."""
        self.total = sum(self.lengths.values()) + self.paid
        self.standing = Standing(errors, len(self.data), self.total, self.delta)

    @property
    def bound(self) -> float:
        """The bound of the present network, by the ideal length of its code."""
        return self.standing.bound


class Standing:
    """The file to beat: its bound, and the longest code that beats it with other errors.

    Attributes:
        bound: Occam bound.
    """

    def __init__(self, errors: int, n: int, bits: float, delta: float) -> None:
        self.bound = occam(errors, n, bits, delta).binomial
        self._errors, self._n, self._bits, self._delta = errors, n, bits, delta
        self._known: dict[int, float] = {}

    def allowed(self, errors: int) -> float:
        """Longest code, in bits, that has a smaller bound with so many errors."""
        if self.bound >= 1.0:  # vacuous: first make the code shorter at no cost
            return self._bits - GAIN if errors <= self._errors else -1.0
        if errors not in self._known:
            bits = bits_allowed(errors, self._n, self.bound, self._delta)
            self._known[errors] = bits - GAIN
        return self._known[errors]


def open_places(levels: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "k"]:
    """Flat indices of entries that are not zero, or share a row and a column with such."""
    matrix = levels.reshape(len(levels), -1) != 0
    both = matrix.any(axis=1)[:, None] & matrix.any(axis=0)[None, :]
    return np.flatnonzero(both)


def other_levels(level: int) -> Iterator[int]:
    """Levels to try in place of one."""
    if level == 0:
        yield from (1, -1)
    else:
        yield 0
        yield from (other for other in (level - 1, level + 1, -level) if other != 0)
