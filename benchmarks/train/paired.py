"""Differences between two methods on the same seeds."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences, and half of its 95 % t interval."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.fmean(differences), stats.t.ppf(0.975, len(differences) - 1) * error
