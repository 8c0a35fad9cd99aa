"""Samples of alpha-stable laws by the method of Chambers, Mallows & Stuck (1976)."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from tailor.errors import UsageError


def sample(
    index: float, skew: float, size: int | tuple[int, ...], generator: Generator
) -> Float[ndarray, "*shape"]:
    """Independent standard stable values.

    The parametrisation is S1 of Samorodnitsky & Taqqu (1994, definition 1.1.6): with
    b = skew tan(pi index / 2) the characteristic function is
    exp(-|t|^index (1 - i b sign t)), and at index 1 it is
    exp(-|t| (1 + (2i/pi) skew sign(t) log|t|)). At index 2 that is the normal law of
    variance 2. Chambers, Mallows & Stuck (1976), in the form of Weron (1996).

    Args:
        index: Tail index, 0 < index <= 2.
        skew: Skewness, from -1 to 1; without effect at index 2.
        size: Number of values, or the shape of the array.
        generator: Source of randomness.

    Raises:
        UsageError: The index or the skew is outside its range.
    """
    if not 0 < index <= 2 or not -1 <= skew <= 1:
        raise UsageError(
            f"a stable law needs an index in (0, 2] and a skew in [-1, 1], but got {index} "
            f"and {skew}"
        )
    if index == 2:
        return math.sqrt(2) * generator.standard_normal(size)
    angle = math.pi * (generator.random(size) - 0.5)
    waiting = np.maximum(generator.standard_exponential(size), np.finfo(np.float64).tiny)
    if index == 1:
        return _at_index_one(skew, angle, waiting)
    lean = skew * math.tan(math.pi * index / 2)
    turned = index * angle + math.atan(lean)
    stretch = (1 + lean**2) ** (1 / (2 * index))
    first = np.sin(turned) / np.cos(angle) ** (1 / index)
    second = (np.cos(angle - turned) / waiting) ** ((1 - index) / index)
    values: ndarray = stretch * first * second
    return values


def _at_index_one(
    skew: float, angle: Float[ndarray, "*shape"], waiting: Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    """Index 1: the Cauchy law, tilted by the skew."""
    opening = math.pi / 2 + skew * angle
    symmetric: ndarray = np.tan(angle)
    if skew == 0:
        return symmetric
    tilt = np.log((math.pi / 2) * waiting * np.cos(angle) / opening)
    values: ndarray = (2 / math.pi) * (opening * symmetric - skew * tilt)
    return values
