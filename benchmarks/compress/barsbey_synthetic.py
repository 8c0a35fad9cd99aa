"""The synthetic figure of Barsbey et al. (2021): stable weights of known index, pruned."""

import numpy as np
import torch
from torch import Tensor

import tailor as tl
from tailor.numerics.stable import sample_positive_stable
from tailor.stages.schemes import Entries, reduce_weight

SIDE, DRAWS, ERROR = 500, 50, 0.1
INDICES = (2.0, 1.95, 1.9, 1.85, 1.8, 1.75)


def synthetic() -> dict[str, dict[str, list[float]]]:
    """Share of weights that can be pruned at a relative error of 0.1: quantiles over draws."""
    found = {}
    for index in INDICES:
        generator = torch.Generator().manual_seed(round(100 * index))
        shares: dict[str, list[float]] = {"independent": [], "columns": [], "layer": []}
        for _ in range(DRAWS):
            for kind, rows in shares.items():
                W = matrix(kind, index, generator)
                rows.append(1 - (one := reduce_weight(W, Entries(), error=ERROR)).kept / one.units)
        found[f"{index:g}"] = {
            kind: np.quantile(rows, [0.5, 0.1, 0.9]).round(4).tolist()
            for kind, rows in shares.items()
        }
    return found


def matrix(kind: str, index: float, generator: torch.Generator) -> Tensor:
    """Stable weights: each for itself, or with one random length for a column or for the layer."""
    if kind == "independent":
        return tl.sample_stable((SIDE, SIDE), index, generator=generator, dtype=torch.float64)
    normal = torch.randn(SIDE, SIDE, generator=generator, dtype=torch.float64)
    if index == 2:
        return normal
    number = SIDE if kind == "columns" else 1
    return normal * sample_positive_stable(number, index / 2, generator=generator).sqrt()
