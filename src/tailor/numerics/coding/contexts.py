"""What selects a coin: the options of a code with contexts.

A coin that is selected by what the decoder has already seen learns faster where weights are alike:
neighbours in a kernel, a feature that many classes use, a unit with many inputs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64
from numpy import ndarray

# What selects the coin of "occupied", and the first counts (zeros, ones) of such coins in half
# units. They expect few entries; tuned by us on heads for MNIST's test images.
OCCUPANCY = {
    "one": (8, 2),
    "above": (4, 1),
    "left": (4, 1),
    "above + left": (4, 1),
    "row so far": (4, 1),
    "column so far": (4, 1),
    "column so far, left": (4, 1),
    "own row": (6, 1),
    "own column": (6, 2),
}
SIGNS = ("fair", "one", "left", "column so far", "row so far")

# Odds (zeros, ones) of the decisions in the head of a tensor.
GRID, STEP, FLAGS, CONTEXT, TOP, SAME_TOP = (1, 15), (7, 1), (7, 1), (7, 1), (3, 1), (1, 3)
FAIR = (1, 1)
KNOWN = ((8, 2), (2, 8))  # first counts of a column's flag, by whether its unit is live
ROW_CAP = 3
EXPONENT = 127  # of a bfloat16 number from 1 up to 2
MAX_LAG = 64  # the encoder tries no more; a reader takes any

# Contexts that stay when rows (or columns) change places.
STEADY_ROWS = {"one", "left", "row so far", "own row", "own column", "fair"}
STEADY_COLUMNS = {"one", "above", "column so far", "own row", "own column", "fair"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one tensor on a grid is coded; the stream says so and pays for it.

    Attributes:
        rows: Whether rows are flagged as live or empty.
        columns: Likewise columns, or all columns of one unit together (``Before``).
        occupancy: What selects the coin of "occupied", a key of ``OCCUPANCY``.
        signs: What a sign is compared with, one of ``SIGNS``.
        lag: How many columns away "left" is.
    """

    rows: bool = False
    columns: bool = False
    occupancy: str = "one"
    signs: str = "fair"
    lag: int = 1

    @property
    def uses_left(self) -> bool:
        """Whether the lag matters."""
        return "left" in self.occupancy or self.signs == "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Which lines of a matrix must be free to change places without a change of the length.

    Attributes:
        rows: Whether rows must.
        columns: Whether columns must.
    """

    rows: bool = False
    columns: bool = False

    def allows(self, context: str) -> bool:
        """Whether a context of entries or signs leaves them that freedom."""
        return (not self.rows or context in STEADY_ROWS) and (
            not self.columns or context in STEADY_COLUMNS
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Before:
    """What the code of a tensor may use of the tensors before it.

    Attributes:
        units: Which rows of the last matrix with more than one column hold anything.
        top: Largest size in the last tensor on a grid, 0 if there is none.
    """

    units: Bool[ndarray, "units"] | None = None
    top: int = 0

    def expected(self, columns: int) -> Bool[ndarray, "units"] | None:
        """For each unit that feeds the columns, whether it is live; None if that is unknown."""
        if self.units is None or columns == 0 or columns % len(self.units):
            return None
        return self.units

    def after(self, levels: Int64[ndarray, "r c"]) -> "Before":
        """The same for what comes behind a tensor on a grid with these levels."""
        units = (levels != 0).any(axis=1) if levels.shape[1] > 1 and len(levels) else self.units
        return Before(units=units, top=top_of(levels))


FIRST = Before()
FREE = Steady()


def column_units(
    live: Bool[ndarray, "c"], expected: Bool[ndarray, "units"] | None
) -> Bool[ndarray, "flags"]:
    """A flag for each column, or for each unit's columns if the units are known."""
    if expected is None:
        return live
    result: ndarray = live.reshape(len(expected), -1).max(axis=1)
    return result


def occupancy_contexts(
    occupied: Bool[ndarray, "r c"], rows: Bool[ndarray, "r"], options: Options
) -> Int64[ndarray, "r c"]:
    """Number of the coin of each entry, from the entries before it."""
    shape, lag = occupied.shape, options.lag
    result: ndarray
    match options.occupancy:
        case "above":
            result = _above(occupied)
        case "left":
            result = _left(occupied.astype(np.int64), lag)
        case "above + left":
            result = _above(occupied) + _left(occupied.astype(np.int64), lag)
        case "row so far":
            result = np.minimum(ROW_CAP, np.cumsum(occupied, axis=1) - occupied)
        case "column so far":
            result = _density(occupied, rows)
        case "column so far, left":
            result = 2 * _density(occupied, rows) + _left(occupied.astype(np.int64), lag)
        case "own row":
            result = np.broadcast_to(np.arange(shape[0])[:, None], shape)
        case _:
            result = np.broadcast_to(np.arange(shape[1]), shape)
    return result


def _above(occupied: Bool[ndarray, "r c"]) -> Int64[ndarray, "r c"]:
    result = np.zeros(occupied.shape, dtype=np.int64)
    result[1:] = occupied[:-1]
    return result


def _left(values: Int64[ndarray, "r c"], lag: int) -> Int64[ndarray, "r c"]:
    result = np.zeros_like(values)
    if lag < values.shape[1]:
        result[:, lag:] = values[:, :-lag]
    return result


def _density(occupied: Bool[ndarray, "r c"], rows: Bool[ndarray, "r"]) -> Int64[ndarray, "r c"]:
    found = np.cumsum(occupied, axis=0) - occupied
    visited = (np.cumsum(rows) - rows)[:, None]
    some = 3 + (3 * found >= visited).astype(np.int64) + (3 * found >= 2 * visited)
    none = (visited >= 3).astype(np.int64) + (visited >= 8)
    result: ndarray = np.where(found > 0, some, none)
    return result


def expected_signs(signs: Int64[ndarray, "r c"], options: Options) -> Int64[ndarray, "r c"]:
    """What a sign is compared with: its sign; 0 where there is nothing to compare with."""
    if options.signs == "left":
        return _left(signs, options.lag)
    axis = 0 if options.signs == "column so far" else 1
    result: ndarray = np.cumsum(signs, axis=axis) - signs
    return result


def top_of(levels: Int[ndarray, "*shape"]) -> int:
    """The largest size of a level, at least 1."""
    return max(1, int(np.abs(levels).max(initial=1)))


def step_fields(step: float) -> tuple[int, int]:
    """Exponent (0, -1, 1, -2, ... are counted from 0) and fraction of a bfloat16 number."""
    bits = int(np.array([step], dtype="<f4").view("<u4")[0]) >> 16
    exponent = (bits >> 7) - EXPONENT
    return (2 * exponent if exponent >= 0 else -2 * exponent - 1), bits & 127
