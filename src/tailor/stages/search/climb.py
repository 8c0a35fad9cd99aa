"""Local search on the certificate itself, and a way out of its dead ends."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.stages.search.head import HeadProblem, as_levels
from tailor.stages.search.moves import Board, Move
from tailor.stages.search.rounding import Rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """Change weights while the bound falls.

    Single weights first, to any other level. When none helps, two at a time: each of the
    ``pairs`` cheapest first changes with the best second one. Costs are estimated, in bits; what
    is kept is decided by the exact bound.

    Attributes:
        sweeps: Passes over the classes, at most.
        pairs: First changes of a pair that are tried for each group of classes.
        tries: Changes that are counted exactly before giving up.
    """

    sweeps: int = 10
    pairs: int = 16
    tries: int = 3

    def climb(self, board: Board, generator: np.random.Generator) -> None:
        """Improve a board in place."""
        groups = board.groups()
        for _ in range(self.sweeps):
            before = board.bound
            prices = Prices.of(board, generator)
            for at in generator.permutation(len(groups)).tolist():
                while self._step(board, prices, groups[at]):
                    pass
            if board.bound >= before:
                return

    def _step(self, board: Board, prices: "Prices", rows: list[int]) -> bool:
        singles = cheapest(board, prices, rows, max(self.tries, self.pairs))
        if any(board.keep(move) for _, move in singles[: self.tries]):
            prices.renew(board)
            return True
        for _, first in singles[: self.pairs]:
            saved = board.scores[:, first.row].clone()
            board.shift(first)
            seconds = cheapest(board, prices, rows, 1, skip=first)
            board.weights[first.row, first.column] -= first.by
            board.scores[:, first.row] = saved
            if seconds and board.keep(first, seconds[0][1]):
                prices.renew(board)
                return True
        return False


def cheapest(
    board: Board, prices: "Prices", rows: list[int], count: int, skip: Move | None = None
) -> list[tuple[float, Move]]:
    """Changes of one weight of some rows with their estimated costs in bits, cheapest first."""
    now, top = board.weights[rows], board.problem.top
    found: list[tuple[float, Move]] = []
    outlook = board.outlook(rows)
    for size in range(1, 2 * top + 1):
        near = ((now - size).abs() <= top) | ((now + size).abs() <= top)
        columns = (near & ((now != 0) | (size == 1))).any(dim=0).nonzero()[:, 0]
        if len(columns) == 0:
            continue
        part = now[:, columns]
        for by, errors in zip((size, -size), outlook.errors(size, columns), strict=True):
            after = part + by
            usable = (after.abs() <= top) & ((part != 0) | (size == 1))
            if skip is not None and skip.row in rows:
                usable[rows.index(skip.row), columns == skip.column] = False
            bits = ((after != 0).double() - (part != 0).double()) * prices.other[rows][:, columns]
            cost = prices.error * (errors - board.errors) + bits
            costs, places = torch.where(usable, cost, torch.inf).flatten().sort(stable=True)
            for value, place in zip(costs[:count].tolist(), places[:count].tolist(), strict=True):
                if value < float("inf"):
                    row, column = divmod(place, len(columns))
                    found.append((value, Move(rows[row], int(columns[column]), float(by))))
    return sorted(found, key=lambda pair: pair[0])[:count]


class Prices:
    """What changes cost, about.

    Attributes:
        error: Bits that one error is worth.
        other: Bits of each weight for not being zero.
    """

    def __init__(self, error: float, other: Float[Tensor, "classes features"]) -> None:
        self.error, self.other = error, other

    @classmethod
    def of(cls, board: Board, generator: np.random.Generator) -> "Prices":
        """Measured with the code itself, for one weight of each column."""
        problem = board.problem
        levels = as_levels(board.weights)
        base = problem.bits(levels)
        other = np.zeros(levels.shape)
        for column in range(levels.shape[1]):
            row = int(generator.integers(len(levels)))
            other[:, column] = cls._other(problem, levels, base, row, column)
        return cls(problem.price(board.errors, board.bits), torch.from_numpy(other))

    @staticmethod
    def _other(
        problem: HeadProblem,
        levels: Int[np.ndarray, "classes features"],
        base: float,
        row: int,
        column: int,
    ) -> float:
        old = int(levels[row, column])
        levels[row, column] = int(old == 0)
        change = problem.bits(levels) - base
        levels[row, column] = old
        return change if old == 0 else -change

    def renew(self, board: Board) -> None:
        """The price of an error after a change."""
        self.error = board.problem.price(board.errors, board.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Take a part of the head away, round it anew given the rest, and climb again.

    A large-neighbourhood search (Shaw 1998). A result is kept when its bound is not larger.

    Attributes:
        rounding: How the part is rounded; scale, width and rate vary at random around it.
        climb: What follows.
        share: Of the features that are taken away, at most.
        spread: Standard deviation of that variation, in logarithms.
    """

    rounding: Rounding = field(default_factory=Rounding)
    climb: Climb = field(default_factory=Climb)
    share: float = 0.5
    spread: float = 0.25

    def improve(self, board: Board, seed: int) -> Board:
        """One attempt: a board whose bound is at most that of the given one."""
        generator = np.random.default_rng(seed)
        features = board.problem.shape[1]
        most = max(2, int(self.share * features))
        count = min(features, int(generator.integers(2, most + 1)))
        free = torch.from_numpy(generator.permutation(features)[:count].copy())
        varied = self._varied(generator)
        found = varied.round(board.problem, seed, start=board.weights, free=free)
        other = Board(board.problem, found)
        self.climb.climb(other, generator)
        return other if other.bound <= board.bound else board

    def _varied(self, generator: np.random.Generator) -> Rounding:
        def about(value: float) -> float:
            return float(value * np.exp(self.spread * generator.normal()))

        smooth = self.rounding.smooth
        return replace(
            self.rounding,
            smooth=replace(smooth, scale=about(smooth.scale), width=about(smooth.width)),
            rate=about(self.rounding.rate),
            jitter=1.0,
        )
