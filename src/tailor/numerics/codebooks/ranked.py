"""Values in rising order, with the sum over any stretch of them at little cost."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

BLOCK = 256  # values between two stored sums


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """What neighbouring stretches of the values hold.

    Attributes:
        counts: Number of values.
        sums: Their sum.
        squares: Sum of their squares.
    """

    counts: Int[ndarray, "k"]
    sums: Float[ndarray, "k"]
    squares: Float[ndarray, "k"]

    def error(self, centres: Float[ndarray, "k"]) -> Float[ndarray, "k"]:
        """Sum of the squared distances of each cell's values from its centre."""
        lost = self.squares - 2 * centres * self.sums + self.counts * np.square(centres)
        above: ndarray = np.maximum(lost, 0.0)  # differences of large sums may come out below
        return above


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """Finite values in rising order; the sums allow exact cell means without a pass over them.

    Attributes:
        values: The values.
        sums: Sum of all values before each block of 256.
        squares: The same for their squares.
        distinct: Number of different values.
    """

    values: Float[ndarray, "n"]
    sums: Float[ndarray, "blocks"]
    squares: Float[ndarray, "blocks"]
    distinct: int

    @classmethod
    def of(cls, values: Float[ndarray, "n"]) -> "Ranked":
        """Rank values that need no order; they must be finite."""
        x = np.sort(values)
        blocks = x[: len(x) // BLOCK * BLOCK].reshape(-1, BLOCK)
        return cls(
            values=x,
            sums=_before(blocks.sum(axis=1, dtype=np.float64)),
            squares=_before(np.einsum("bi,bi->b", blocks, blocks, dtype=np.float64)),
            distinct=int(np.count_nonzero(x[1:] != x[:-1])) + min(1, len(x)),
        )

    @property
    def zeros(self) -> tuple[int, int]:
        """Where the exact zeros begin and end."""
        first, end = (int(np.searchsorted(self.values, 0, side=side)) for side in ("left", "right"))
        return first, end

    def cells(self, cuts: Int[ndarray, "k"]) -> Cells:
        """The stretches between rising cuts, of which the first is 0 and the last is n."""
        sums, squares = self._before_cuts(cuts)
        return Cells(counts=np.diff(cuts), sums=np.diff(sums), squares=np.diff(squares))

    def energy(self) -> float:
        """Sum of all squares."""
        return float(self.cells(np.array([0, len(self.values)])).squares[0])

    def _before_cuts(
        self, cuts: Int[ndarray, "k"]
    ) -> tuple[Float[ndarray, "k"], Float[ndarray, "k"]]:
        """Sum of the values, and of their squares, before each cut."""
        block, rest = np.divmod(cuts, BLOCK)
        place = np.arange(BLOCK)
        index = np.minimum(block[:, None] * BLOCK + place, max(len(self.values) - 1, 0))
        inside = np.where(place < rest[:, None], self.values[index].astype(np.float64), 0.0)
        return (
            self.sums[block] + inside.sum(axis=1),
            self.squares[block] + np.square(inside).sum(axis=1),
        )


def _before(blocks: Float[ndarray, "b"]) -> Float[ndarray, "b+1"]:
    return np.concatenate([[0.0], np.cumsum(blocks)])
