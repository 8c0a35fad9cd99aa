"""Few values for many numbers: k-means in one dimension, and uniform steps.

Errors here are relative squared errors, |x - q|^2 / |x|^2; both sums run over all values.

::

    ranked      values in rising order, and sums over any stretch of them
    lloyd       values that are the means of their cells
    partition   where that begins
    uniform     multiples of a step
"""

from tailor.numerics.codebooks.lloyd import (
    MAX_VALUES,
    kmeans,
    kmeans_error,
    kmeans_within,
    nearest,
)
from tailor.numerics.codebooks.ranked import Ranked
from tailor.numerics.codebooks.uniform import (
    largest_step,
    least_squares_step,
    nearest_levels,
    relative_error,
    step_at_entropy,
    step_below,
    step_within,
)

__all__ = [
    "MAX_VALUES",
    "Ranked",
    "kmeans",
    "kmeans_error",
    "kmeans_within",
    "largest_step",
    "least_squares_step",
    "nearest",
    "nearest_levels",
    "relative_error",
    "step_at_entropy",
    "step_below",
    "step_within",
]
