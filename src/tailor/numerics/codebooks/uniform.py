"""Multiples of one step: which step loses so much, or takes so many bits after entropy coding."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.numerics.codebooks.ranked import Ranked
from tailor.numerics.coding import MAX_LEVEL, round_step
from tailor.numerics.coding.entropy import order0_bits

CHUNK = 1 << 16  # values at a time, in double precision; fits the cache
STEPS = 96  # steps among which the least squares one is sought
INFINITE = 0x7F80  # bits of infinity in bfloat16


def nearest_levels(
    values: Float[ndarray, "n"], step: float, top: int = MAX_LEVEL
) -> Int[ndarray, "n"]:
    """Levels of the nearest multiples of the step, cut off at plus and minus ``top``."""
    levels = np.empty(len(values), dtype=np.int32)
    for start, rounded, _ in _rounded(values, step, top):
        levels[start : start + len(rounded)] = rounded
    return levels


def relative_error(values: Float[ndarray, "n"], step: float, top: int = MAX_LEVEL) -> float:
    """Relative squared error when each value becomes the nearest multiple of the step."""
    lost = energy = 0.0
    for _, rounded, piece in _rounded(values, step, top):
        energy += float(np.dot(piece, piece))
        np.multiply(rounded, step, out=rounded)
        np.subtract(rounded, piece, out=rounded)
        lost += float(np.dot(rounded, rounded))
    return lost / energy if energy > 0 else 0.0


def step_within(values: Float[ndarray, "n"], error: float) -> float | None:
    """The largest bfloat16 step at which the relative squared error is still at most ``error``.

    The largest is meant in the sense of a bisection: the next larger step has a larger error.

    Args:
        values: Finite values.
        error: Above 0, below 1.

    Returns:
        The step; 1.0 if all values are zero; None if there would be more than 2^20 levels.
    """
    largest = _largest(values)
    if largest == 0:
        return 1.0
    rms = math.sqrt(sum(float(np.dot(p, p)) for p in _pieces(values)) / len(values))
    return largest_step(
        lambda step: relative_error(values, step) / error,
        guess=math.sqrt(12 * error) * rms,
        least=largest / MAX_LEVEL,
        most=4 * largest,
    )


def step_at_entropy(values: Float[ndarray, "n"], bits: float) -> float:
    """The smallest bfloat16 step whose levels have at most that entropy, in bits a value.

    It is 1.0 if all values are zero, and never so small that there are more than 2^20 levels.
    """
    largest = _largest(values)
    if largest == 0:
        return 1.0
    # Too fine is "still allowed" here, and the step above the last such one is taken.
    fine = largest_step(
        lambda step: 2.0 ** (2 * (bits - order0_bits(nearest_levels(values, step)) / len(values))),
        guess=largest / 2.0**bits,
        least=largest / MAX_LEVEL,
        most=4 * largest,
    )
    return _float(_pattern(largest / MAX_LEVEL if fine is None else fine) + 1)


def least_squares_step(ranked: Ranked, top: int) -> float:
    """The bfloat16 step of the grid -top, ..., top with the least squared error.

    The best of 96 steps in geometric progression, then of those between its neighbours. What
    lies beyond the last level is cut off, which heavy tails may ask for.
    """
    n = len(ranked.values)
    largest = _largest(ranked.values)
    if largest == 0:
        return 1.0
    rms = math.sqrt(ranked.energy() / n)
    steps = np.geomspace(rms / (2 * top), largest / (top - 0.5), STEPS)
    best = int(np.argmin([_clipped_error(ranked, step, top) for step in steps.tolist()]))
    near = np.geomspace(steps[max(best - 1, 0)], steps[min(best + 1, STEPS - 1)], STEPS // 4)
    rounded = [round_step(step) for step in near.tolist()]
    return min(
        (step for step in rounded if step > 0),
        key=lambda step: _clipped_error(ranked, step, top),
        default=_float(1),
    )


def largest_step(
    excess: Callable[[float], float], *, guess: float, least: float, most: float
) -> float | None:
    """The bfloat16 step below which ``excess`` is at most 1 and above which it is more.

    Args:
        excess: Rises with the step, about with its square.
        guess: About where to begin.
        least: No smaller step is given.
        most: Where ``excess`` is above 1.

    Returns:
        The step, or None if the excess is above 1 at ``least``, too.
    """
    low, high = _pattern(least), min(_pattern(most) + 1, INFINITE)
    known = low  # is no step that was tried
    place = _pattern(guess)
    for trial in range(64):
        if high - low <= 1:
            break
        place = min(max(place, low + 1), high - 1)
        found = excess(_float(place))
        if found <= 1:
            low = place
        else:
            high = place
        # 128 numbers an octave; an error below a quarter takes one more octave of the step.
        leap = 64 * math.log2(1 / found) if found > 0 else 1 << 15
        place += math.floor(leap) if trial < 8 else (low + high) // 2 - place
        if not low < place < high:
            place = (low + high) // 2 if trial % 2 else (low + 1 if place <= low else high - 1)
    return None if low == known else _float(low)


def step_below(step: float) -> float:
    """The next smaller bfloat16 number."""
    return _float(_pattern(step) - 1)


def _rounded(
    values: Float[ndarray, "n"], step: float, top: int
) -> Iterator[tuple[int, Float[ndarray, "m"], Float[ndarray, "m"]]]:
    """Piece by piece: where it begins, its levels and its values, in double precision."""
    start = 0
    for piece in _pieces(values):
        levels = piece / step
        np.rint(levels, out=levels)
        np.clip(levels, -top, top, out=levels)
        yield start, levels, piece
        start += len(piece)


def _pieces(values: Float[ndarray, "n"]) -> Iterator[Float[ndarray, "m"]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK].astype(np.float64)


def _largest(values: Float[ndarray, "n"]) -> float:
    if not len(values):
        return 0.0
    return max(float(values.max()), -float(values.min()))


def _clipped_error(ranked: Ranked, step: float, top: int) -> float:
    """Sum of squared errors on the grid -top, ..., top."""
    levels = np.arange(-top, top + 1)
    edges = ((levels[1:] - 0.5) * step).astype(ranked.values.dtype)
    inner = np.searchsorted(ranked.values, edges, side="right")
    cuts = np.concatenate([[0], inner, [len(ranked.values)]])
    return float(ranked.cells(cuts).error(levels * step).sum())


def _pattern(step: float) -> int:
    """Which positive bfloat16 number this is, counted from 0 on; rounded down."""
    limited = min(step, 3e38)
    return int(np.array([limited], dtype="<f4").view("<u4")[0] >> 16)


def _float(pattern: int) -> float:
    """The positive bfloat16 number of that count; the smallest one for 0."""
    bits = min(max(pattern, 1), INFINITE - 1) << 16
    return float(np.array([bits], dtype="<u4").view("<f4")[0])
