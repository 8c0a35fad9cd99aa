"""What the other weights of a row can make up for goes, and they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.inputs import Inputs
from tailor.stages.inputs.vectors import exact
from tailor.stages.scores.score import Drop, Needs, NofM, Score, Trimmed
from tailor.stages.scores.smallest import fitted, shares, smallest_dropped, wide, zeroed

STEP = 16  # columns that are mended at a time; for speed only


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseGPT(Score):
    """Drops entries from left to right and mends those further right (Frantar & Alistarh 2023).

    With H the Gram matrix of the inputs and U the upper Cholesky factor of its inverse, the
    score of an entry is (W_ij / U_jj)^2: the squared error of the output that its loss costs
    once the later columns have made up for it (algorithm 1). All rows of ``block`` columns are
    compared together. Each block loses the same share of its entries, in whole numbers that add
    to the number asked for. Everything is in float64.

    First to go are entries that are zero, which also stay zero; then those of inputs that were
    always zero. If they are enough, the others stay as they are.

    Attributes:
        damp: Added to the diagonal of H, in units of its mean (0.01: the authors'). With fewer
            vectors than inputs H is singular, and this is raised by inputs / vectors (ours).
        block: Columns that are compared together (128: the authors').
    """

    needs: ClassVar[Needs] = "gram"
    damp: float = 0.01
    block: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.damp < float("inf") or self.block < 1:
            raise UsageError(
                f"SparseGPT needs damp >= 0 and block >= 1, but got {self.damp} and {self.block}"
            )

    def prune(
        self,
        matrix: Float[Tensor, "out in"],
        drop: Drop,
        *,
        inputs: Inputs | None = None,
        pattern: NofM | None = None,
    ) -> Trimmed:
        """See ``Score.prune``."""
        matrix = matrix.detach()
        seen = _checked(inputs, matrix.shape[1])
        W = exact(matrix)
        H = _gram(seen).to(W.device)
        if pattern is None:
            gone = _free(W, H.diagonal() == 0, drop)
            left = torch.as_tensor(drop, device=W.device) - _count(gone, drop)
            if not bool(left.any()):
                keep = ~gone.to(matrix.device)
                return Trimmed(matrix=zeroed(matrix, keep), keep=keep)
        else:
            pattern.check(W.shape[1])
            gone, left = W == 0, torch.zeros((), dtype=torch.int64)
        U = upper_factor(H, self.damp * max(1.0, len(H) / max(1, seen.count)))
        sweep = _Sweep(W, U, H.diagonal() == 0, gone, pattern)
        keep = sweep.run(self.block, left).to(matrix.device)
        return Trimmed(matrix=_stored(sweep.W.T.contiguous(), matrix), keep=keep)


def _checked(inputs: Inputs | None, columns: int) -> Inputs:
    if inputs is None or inputs.gram is None:
        raise UsageError(
            "SparseGPT needs the Gram matrix of the layer's inputs; collect it on data first"
        )
    if len(inputs.gram) != columns:
        raise UsageError(
            f"the matrix has {columns} inputs, but the Gram matrix is of {len(inputs.gram)}; "
            "give the inputs of this layer"
        )
    return inputs


def _gram(inputs: Inputs) -> Float[Tensor, "in in"]:
    assert inputs.gram is not None
    return inputs.gram.to(torch.float64)


def _free(
    W: Float[Tensor, "out in"], dead: Bool[Tensor, "in"], drop: Drop
) -> Bool[Tensor, "out in"]:
    """What goes at no cost, as far as it is asked for: zeros, then weights of dead inputs."""
    cost = torch.where(dead, W.abs(), torch.inf).masked_fill(W == 0, -1.0)
    there = _count(cost < torch.inf, drop)
    wanted = torch.as_tensor(drop, device=W.device)
    free: Drop = torch.minimum(wanted, there).tolist()
    return ~smallest_dropped(cost, free)


def _count(chosen: Bool[Tensor, "out in"], drop: Drop) -> Int[Tensor, "*rows"]:
    """How many, for each row if numbers by row are asked for."""
    return chosen.sum() if isinstance(drop, int) else chosen.sum(dim=1)


def upper_factor(H: Float[Tensor, "n n"], damp: float) -> Float[Tensor, "n n"]:
    """U, upper triangular, with U^T U the inverse of H + damp x mean(diag H) I.

    With the order of rows and columns reversed, H = L L^T gives U as the inverse of L reversed
    back, which needs no second factorization. Inputs that are always zero are left aside: they
    get the mean of the others as their diagonal.

    Raises:
        UsageError: H stays singular.
    """
    diagonal = H.diagonal()
    live = diagonal > 0
    mean = diagonal[live].mean() if bool(live.any()) else diagonal.new_ones(())
    H = H.clone()
    H.diagonal().copy_(torch.where(live, diagonal, mean) + damp * mean)
    L, info = torch.linalg.cholesky_ex(H.flip(0, 1))
    if int(info) or not bool((L.diagonal() > 0).all()):
        raise UsageError(
            f"the Gram matrix of the inputs is singular at damp {damp}; raise damp, or collect "
            "on more data"
        )
    eye = torch.eye(len(H), dtype=H.dtype, device=H.device)
    inverse: Tensor = torch.linalg.solve_triangular(L, eye, upper=False)
    return inverse.flip(0, 1)


class _Sweep:
    """One pass over the columns; they are kept as rows, which lie together in memory."""

    def __init__(
        self,
        W: Float[Tensor, "out in"],
        U: Float[Tensor, "in in"],
        dead: Bool[Tensor, "in"],
        gone: Bool[Tensor, "out in"],
        pattern: NofM | None,
    ) -> None:
        self.W = W.T.clone(memory_format=torch.contiguous_format)
        self.gone = gone.T.clone(memory_format=torch.contiguous_format)
        self.error = torch.zeros_like(self.W)
        self.U, self.dead, self.pattern = U, dead, pattern

    def run(self, block: int, left: Int[Tensor, "*rows"]) -> Bool[Tensor, "out in"]:
        """Drop what is left to drop, block by block."""
        n, m = len(self.W), self.pattern.m if self.pattern else 1
        starts = range(0, n, -(-block // m) * m)
        ends = [*starts[1:], n]
        parts = self._parts(starts, ends, left) if self.pattern is None else [0] * len(starts)
        for i, j, part in zip(starts, ends, parts, strict=True):
            if self.pattern is None:
                self._choose(slice(i, j), part)
            self._block(i, j)
            self.W[j:] -= self.U[i:j, j:].T @ self.error[i:j]
        return ~self.gone.T.contiguous()

    def _parts(
        self, starts: Sequence[int], ends: Sequence[int], left: Int[Tensor, "*rows"]
    ) -> list[Drop]:
        """How many of each block go, of the whole block or of each of its rows."""
        open_ = torch.stack(
            [(~self.gone[i:j]).sum(dim=0) for i, j in zip(starts, ends, strict=True)], dim=-1
        )
        if left.ndim == 0:
            return list(shares(left, open_.sum(dim=0)).tolist())
        return list(shares(left, open_).T.tolist())

    def _choose(self, columns: slice, drop: Drop) -> None:
        """Mark the smallest scores of some columns; what is gone already does not count."""
        scores = self._scores(columns).masked_fill(self.gone[columns], torch.inf)
        self.gone[columns] |= ~smallest_dropped(scores.T, drop).T

    def _scores(self, columns: slice) -> Float[Tensor, "columns out"]:
        return (self.W[columns] / self.U.diagonal()[columns, None]).square()

    def _block(self, i: int, j: int) -> None:
        """Zero what goes in columns i to j, and mend the later ones among them."""
        step = self.pattern.m if self.pattern else STEP
        for s in range(i, j, step):
            columns = slice(s, min(s + step, j))
            self.W[columns] -= self.U[i:s, columns].T @ self.error[i:s]
            if self.pattern is not None:
                self._fit(columns, self.pattern)
            for t in range(columns.start, columns.stop):
                self.W[t] -= self.U[s:t, t] @ self.error[s:t]
                self.error[t] = (self.W[t] / self.U[t, t]).masked_fill_(~self.gone[t], 0)
                self.W[t].masked_fill_(self.gone[t], 0)

    def _fit(self, columns: slice, pattern: NofM) -> None:
        """Mark what goes by the pattern: zeros first, then dead inputs, then small scores."""
        scores, dead = self._scores(columns), self.dead[columns, None]
        scores = torch.where(dead, -1 / (1 + self.W[columns].square()), scores)
        scores = scores.masked_fill(self.gone[columns], -torch.inf)
        self.gone[columns] |= ~fitted(scores.T, pattern).T


def _stored(W: Float[Tensor, "out in"], like: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    stored = W.to(like.dtype).to(like.device)
    if not bool(torch.isfinite(wide(stored)).all()):
        raise UsageError(
            f"a mended weight is too large for {like.dtype}; raise damp, or convert the model first"
        )
    return stored
