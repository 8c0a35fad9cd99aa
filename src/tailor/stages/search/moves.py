"""Errors after every change of one weight, without evaluating the network again."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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

    def errors_after(self, rows: list[int], by: float) -> Int[Tensor, "rows features"]:
        """Errors if one weight changed by ``by``, for each weight of some rows.

        In single precision: a count may be off by the few examples that are tied to its digits.
        """
        needed, sign, lost = self._limits(rows)
        reach = self.reach[:, None] * abs(by)
        undecided = (needed.abs() <= reach) & ~lost
        settled = (lost | (needed > reach)).sum(dim=0)
        index = undecided.any(dim=1).nonzero()[:, 0]
        part = self.problem.narrow.index_select(0, index)
        sign = sign[index] * by
        # What is lost or settled either way never, or always, meets these limits.
        limits = torch.where(undecided[index], needed[index], -torch.inf)
        counts = [
            (part * sign[:, r, None] <= limits[:, r, None]).sum(dim=0) for r in range(len(rows))
        ]
        return torch.stack(counts) + settled[:, None]

    def _limits(
        self, rows: list[int]
    ) -> tuple[Float[Tensor, "n rows"], Float[Tensor, "n rows"], Bool[Tensor, "n rows"]]:
        """What must be added to a class's score (times the sign) for each example to be right.

        And whether the example is lost whatever that score is.
        """
        labels = self.problem.labels[:, None]
        own = self.scores.gather(1, labels)
        rivals = self.scores.scatter(1, labels, -torch.inf)
        first, where = rivals.max(dim=1, keepdim=True)
        second = rivals.scatter(1, where, -torch.inf).amax(dim=1, keepdim=True)
        row = torch.tensor(rows)
        rival = torch.where(where == row, second, first)
        mine = labels == row
        needed = torch.where(mine, rival - own, self.scores[:, rows] - own)
        return needed.float(), torch.where(mine, 1.0, -1.0), ~mine & (rival >= own)
