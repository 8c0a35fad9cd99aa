"""Ideal lengths of the code with contexts, in closed form.

The length of a coin's decisions depends on their counts alone, not on their order (Krichevsky &
Trofimov 1981, here with other first counts than 1/2), so the length of a tensor takes a few passes
over its entries and no run of the coder.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from tailor.numerics.coding.contexts import (
    CONTEXT,
    FAIR,
    FLAGS,
    GRID,
    KNOWN,
    OCCUPANCY,
    SAME_TOP,
    STEP,
    TOP,
    Before,
    Options,
    column_units,
    expected_signs,
    occupancy_contexts,
    step_fields,
)
from tailor.numerics.coding.length import LN2, UNARY
from tailor.numerics.coding.tensors import Grid, matrix


def given_length(tensor: Grid, options: Options, before: Before) -> dict[str, float]:
    """Ideal length of one tensor's code in bits under given options, part by part."""
    levels = matrix(tensor.levels)
    live = Lines.of(levels, options, before)
    parts = {
        "mode": odds_length(GRID, 1) + options_length(options),
        "step": step_length(tensor.step),
        "rows and columns": live.length,
    }
    if live.rows.any() and live.columns.any():
        parts["positions"] = occupancy_length(levels, live, options)
        parts["signs"] = signs_length(levels, options)
        parts["levels"] = sizes_length(levels, before.top)
    return parts


def options_length(options: Options) -> float:
    """Bits that say which options were chosen."""
    return (
        odds_length(FLAGS, int(options.rows))
        + odds_length(FLAGS, int(options.columns))
        + odds_length(CONTEXT, int(options.occupancy != "one"))
        + 3 * (options.occupancy != "one")
        + odds_length(CONTEXT, int(options.signs != "fair"))
        + 2 * (options.signs != "fair")
        + (gamma_length(options.lag) if options.uses_left else 0.0)
    )


def step_length(step: float) -> float:
    """Bits of a step: few for 1, some for a power of two near 1, about 17 for others."""
    if step == 1.0:
        return odds_length(STEP, 0)
    exponent, fraction = step_fields(step)
    return odds_length(STEP, 1) + gamma_length(1 + exponent) + 1 + 7 * (fraction > 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lines:
    """The rows and columns that are visited, and what it costs to say so.

    Attributes:
        rows: Visited rows.
        columns: Visited columns.
        length: Bits of the flags.
    """

    rows: Bool[ndarray, "r"]
    columns: Bool[ndarray, "c"]
    length: float

    @classmethod
    def of(cls, levels: Int64[ndarray, "r c"], options: Options, before: Before) -> "Lines":
        """Those of a matrix."""
        occupied = levels != 0
        rows, columns = (np.ones(n, dtype=np.bool_) for n in levels.shape)
        length = 0.0
        if options.rows:
            rows = occupied.any(axis=1)
            length += runs_length(rows)
        if options.columns:
            expected = before.expected(len(columns))
            units = column_units(occupied.any(axis=0), expected)
            length += runs_length(units) if expected is None else known_length(units, expected)
            columns = np.repeat(units, len(columns) // max(1, len(units)))
        return cls(rows=rows, columns=columns, length=length)


def runs_length(flags: Bool[ndarray, "n"]) -> float:
    """Bits of flags, each under one of two coins by the flag before; live before the first."""
    before = np.concatenate([[True], flags])[: len(flags)]
    return sum(coin_length(FAIR, *_split(flags[before == value])) for value in (False, True))


def known_length(flags: Bool[ndarray, "n"], expected: Bool[ndarray, "n"]) -> float:
    """Bits of flags, each under one of two coins, by what is expected of it."""
    return sum(
        coin_length(KNOWN[value], *_split(flags[expected == bool(value)])) for value in (0, 1)
    )


def _split(flags: Bool[ndarray, "n"]) -> tuple[int, int]:
    ones = int(np.count_nonzero(flags))
    return len(flags) - ones, ones


def occupancy_length(levels: Int64[ndarray, "r c"], live: Lines, options: Options) -> float:
    """Bits that say which visited entries are not zero."""
    occupied = levels != 0
    start = OCCUPANCY[options.occupancy]
    if options.occupancy == "one":
        ones = int(np.count_nonzero(occupied))
        visited = int(np.count_nonzero(live.rows)) * int(np.count_nonzero(live.columns))
        return coin_length(start, visited - ones, ones)
    keys = 2 * occupancy_contexts(occupied, live.rows, options) + occupied
    counts = np.bincount(keys[np.ix_(live.rows, live.columns)].ravel()).tolist()
    counts += [0] * (len(counts) % 2)
    return sum(
        coin_length(start, zeros, ones)
        for zeros, ones in zip(counts[::2], counts[1::2], strict=True)
        if zeros or ones
    )


def signs_length(levels: Int64[ndarray, "r c"], options: Options) -> float:
    """Bits of the signs of the entries that are not zero."""
    occupied = levels != 0
    if options.signs == "fair":
        return float(np.count_nonzero(occupied))
    negative = levels[occupied] < 0
    if options.signs == "one":
        return coin_length(FAIR, *_split(negative))
    expected = expected_signs(np.sign(levels), options)[occupied]
    told = expected != 0
    differs = negative[told] != (expected[told] < 0)
    return coin_length(FAIR, *_split(differs)) + float(np.count_nonzero(~told))


def sizes_length(levels: Int64[ndarray, "r c"], top_before: int) -> float:
    """Bits of the largest size, and of the sizes in unary up to it."""
    return unary_length(np.abs(levels[levels != 0]), top_before)


def unary_length(sizes: Int64[ndarray, "n"], top_before: int) -> float:
    """Bits of these sizes, in whatever order, and of the largest one."""
    top = int(sizes.max(initial=1))
    bits = top_length(top, top_before)
    for reached in range(1, min(top - 1, UNARY) + 1):
        more = int(np.count_nonzero(sizes > reached))
        bits += coin_length(FAIR, int(np.count_nonzero(sizes >= reached)) - more, more)
    if top > UNARY:
        bits += sum(gamma_length(size - UNARY) for size in sizes[sizes > UNARY].tolist())
    return bits


def top_length(top: int, before: int) -> float:
    """Bits of the largest size, given that of the tensor before (0 if there is none)."""
    same = 0.0
    if before:
        same = odds_length(SAME_TOP, int(top == before))
        if top == before:
            return same
    return same + (odds_length(TOP, 0) if top == 1 else odds_length(TOP, 1) + gamma_length(top - 1))


def coin_length(start: tuple[int, int], zeros: int, ones: int) -> float:
    """Bits that an adaptive coin with these first counts spends on so many zeros and ones."""
    a, b = start[0] / 2, start[1] / 2
    first = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    last = math.lgamma(a + zeros) + math.lgamma(b + ones) - math.lgamma(a + b + zeros + ones)
    return (first - last) / LN2


def odds_length(odds: tuple[int, int], bit: int) -> float:
    """Bits of one decision with fixed odds."""
    return math.log2(sum(odds) / odds[bit])


def gamma_length(value: int) -> float:
    """Bits of a whole number from 1 up (Elias 1975)."""
    return 2.0 * (value.bit_length() - 1) + 1.0
