"""What a page draws of the weights themselves, in a few numbers for any size of matrix."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.stages.analyze.record import Histogram, Survival

BINS = 81  # of the histogram of weights
TAIL_POINTS = 120  # of the survival function of |weights|
MOST_SORTED = 1 << 20  # with more weights, the survival function is that of every n-th one


def histogram(stack: Shaped[Tensor, "count rows columns"]) -> Histogram:
    """Of all weights, over bins symmetric about zero."""
    weights = _flat(stack)
    top = float(np.abs(weights).max()) or 1.0
    counts, _ = np.histogram(weights, bins=BINS, range=(-top, top))
    return Histogram(low=-top, high=top, counts=tuple(counts.tolist()))


def survival(stack: Shaped[Tensor, "count rows columns"]) -> Survival:
    """At up to ``TAIL_POINTS`` ranks, evenly spread over the logarithm of the share."""
    sizes = np.abs(_flat(stack))
    falling = np.sort(sizes[sizes > 0])[::-1]
    if len(falling) == 0:
        return Survival(x=(), share=())
    ranks = np.unique(np.geomspace(1, len(falling), TAIL_POINTS).round().astype(int))[::-1]
    return Survival(
        x=tuple(falling[ranks - 1].tolist()), share=tuple((ranks / len(sizes)).tolist())
    )


def _flat(stack: Shaped[Tensor, "count rows columns"]) -> Float[ndarray, "n"]:
    flat = stack.flatten()
    if flat.numel() > MOST_SORTED:
        flat = flat[:: -(-flat.numel() // MOST_SORTED)]
    if flat.is_complex():
        flat = flat.abs()
    array: ndarray = flat.to(device="cpu", dtype=torch.float64).numpy()
    return array
