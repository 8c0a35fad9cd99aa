"""Errors after every change of one weight, without evaluating the network again."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.stages.search.head import HeadProblem, as_levels

GAIN = 1e-3  # bits that a change must save at least, so that the search cannot go round in circles
AT_ONCE = 1 << 21  # numbers that are compared in one go


@dataclass(frozen=True, slots=True)
class Move:
    """One weight changes.

    Attributes:
        row: Its class.
        column: Its feature.
        by: The change.
    """

    row: int
    column: int
    by: float


class Board:
    """Weights, scores, errors and code length of a head, kept up to date change by change.

    Attributes:
        weights: Whole numbers, as floats.
        scores: Of each example by class.
        errors: Number of errors.
        bits: Code length, with what is paid for choices.
        bound: The Occam bound.
    """

    def __init__(self, problem: HeadProblem, weights: Float[Tensor, "classes features"]) -> None:
        self.problem = problem
        self.weights = weights.double().clone()
        self.reach = problem.narrow.abs().amax(dim=1)
        self.scores = problem.features @ self.weights.T
        self.settle()

    def settle(self) -> None:
        """Count errors and bits of the present weights."""
        problem = self.problem
        self.errors = problem.errors(self.scores)
        self.bits = problem.length(as_levels(self.weights))
        self.bound = problem.bound(self.errors, self.bits)

    def shift(self, move: Move) -> None:
        """Change one weight and the scores; ``settle`` or ``keep`` counts."""
        self.weights[move.row, move.column] += move.by
        self.scores[:, move.row] += move.by * self.problem.features[:, move.column]

    def keep(self, *moves: Move) -> bool:
        """Make changes together if the bound falls, else leave everything as it was."""
        saved = self.scores[:, [move.row for move in moves]].clone()
        for move in moves:
            self.shift(move)
        if self._better():
            return True
        for move in moves:
            self.weights[move.row, move.column] -= move.by
        self.scores[:, [move.row for move in moves]] = saved
        return False

    def _better(self) -> bool:
        problem = self.problem
        errors = problem.errors(self.scores)
        if self.bound >= 1:  # vacuous: fewer errors, or a shorter code at no cost
            bits = problem.length(as_levels(self.weights))
            better = (errors, bits) < (self.errors, self.bits - GAIN)
        else:
            allowed = problem.allowed(errors, self.bound) - GAIN
            if allowed <= 0:
                return False
            bits = problem.length(as_levels(self.weights))
            better = bits < allowed
        if better:
            self.errors, self.bits = errors, bits
            self.bound = problem.bound(errors, bits)
        return better

    def groups(self) -> list[list[int]]:
        """Rows that are looked at together: as many as ``AT_ONCE`` allows."""
        classes, features = self.problem.shape
        size = max(1, min(classes, AT_ONCE // (self.problem.n * features)))
        return [list(range(a, min(classes, a + size))) for a in range(0, classes, size)]

    def outlook(self, rows: list[int]) -> "Outlook":
        """What changes of some rows would lead to, while everything stays as it is."""
        return Outlook(self, rows)


class Outlook:
    """Errors after every change of one weight of some rows, by what each example needs."""

    def __init__(self, board: Board, rows: list[int]) -> None:
        self.features, self.reach = board.problem.narrow, board.reach
        labels = board.problem.labels[:, None]
        own = board.scores.gather(1, labels)
        rivals = board.scores.scatter(1, labels, -torch.inf)
        first, where = rivals.max(dim=1, keepdim=True)
        second = rivals.scatter(1, where, -torch.inf).amax(dim=1, keepdim=True)
        row = torch.tensor(rows)
        mine = labels == row
        rival = torch.where(where == row, second, first)
        # What must be added to a class's score, times the sign, for the example to be right ...
        self.needed = torch.where(mine, rival - own, board.scores[:, rows] - own).float()
        self.sign = torch.where(mine, 1.0, -1.0)
        self.lost = ~mine & (rival >= own)  # ... and where no such thing helps

    def errors(
        self, size: float, columns: Int[Tensor, "columns"]
    ) -> tuple[Int[Tensor, "rows columns"], Int[Tensor, "rows columns"]]:
        """Errors if one weight grew by ``size``, and if it shrank by it.

        In single precision: a count may be off by the few examples that are tied to its digits.
        """
        reach = self.reach[:, None] * size
        undecided = (self.needed.abs() <= reach) & ~self.lost
        settled = (self.lost | (self.needed > reach)).sum(dim=0)
        index = undecided.any(dim=1).nonzero()[:, 0]
        part = self.features.index_select(0, index)
        if len(columns) < part.shape[1]:
            part = part.index_select(1, columns)
        sign = self.sign[index] * size
        # What is lost or settled either way never, or always, meets these limits.
        limits = torch.where(undecided[index], self.needed[index], -torch.inf)
        counts = torch.empty(2, sign.shape[1], len(columns))
        ones, moved, fails = torch.ones(len(index)), torch.empty_like(part), torch.empty_like(part)
        for r in range(sign.shape[1]):  # floats of 0 and 1 add up fast, and exactly up to 2^24
            limit = limits[:, r, None]
            torch.mul(part, sign[:, r, None], out=moved)
            counts[0, r] = ones @ torch.le(moved, limit, out=fails)
            counts[1, r] = ones @ torch.ge(moved, -limit, out=fails)
        grown, shrunk = counts.long() + settled[:, None]
        return grown, shrunk
