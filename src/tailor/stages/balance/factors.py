"""From the exponents of all layers to their factors."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

ASSIGNMENTS = ("linear", "sqrt", "log")

Assignment: TypeAlias = Literal["linear", "sqrt", "log"]


def assign(
    exponents: Mapping[str, float],
    *,
    low: float = 0.5,
    high: float = 1.5,
    mapping: Assignment = "linear",
) -> dict[str, float]:
    """The factor of each exponent; 1 for all if there are no two different ones.

    The maps are ``tb_linear_map``, ``tb_sqrt`` and ``tb_log2`` of Zhou et al. (2023); the last
    two have mean 1.

    Args:
        exponents: Density exponents alpha, above 1.
        low: Factor of the least, for ``"linear"``.
        high: Factor of the largest, for ``"linear"``.
        mapping: Which map.
    """
    if len(set(exponents.values())) < 2:
        return dict.fromkeys(exponents, 1.0)
    alpha = np.array(list(exponents.values()), dtype=np.float64)
    if mapping == "linear":
        place = (alpha - alpha.min()) / (alpha.max() - alpha.min())
        factors = (1 - place) * low + place * high
    else:
        shape = np.sqrt(alpha) if mapping == "sqrt" else np.log(alpha)
        factors = shape / shape.mean()
    return dict(zip(exponents, factors.tolist(), strict=True))
