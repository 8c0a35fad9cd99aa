"""How far a spectrum is from that of the same weights in random order."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError

WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an entry


def shuffled(
    stack: Shaped[Tensor, "count rows columns"], seed: int
) -> Shaped[Tensor, "count rows columns"]:
    """Each matrix with its own entries in random order, as WeightWatcher's ``randomize`` does.

    The order depends on the seed and the shape alone: not on the device, nor on the type of
    the entries, nor on any global generator.
    """
    count, size = stack.shape[0], stack[0].numel() if len(stack) else 0
    copy = stack.detach().to("cpu", copy=True).contiguous()
    # numpy has no bfloat16, and to shuffle needs no more than whole numbers as wide.
    entries = copy.view(count, size).view(WHOLE[copy.element_size()]).numpy()
    np.random.default_rng(seed).permuted(entries, axis=1, out=entries)
    return copy.to(stack.device)


def jensen_shannon(p: Float[ndarray, "n"], q: Float[ndarray, "m"]) -> float:
    """Jensen-Shannon distance of two sorted spectra, each divided by its sum.

    This is WeightWatcher's ``rand_distance``: the i-th largest eigenvalues are compared as if
    they were probabilities of the same outcome i, in natural logarithms; 0 if the spectra are
    proportional, at most sqrt(ln 2). It is no distance between spectral densities; for that see
    ``wasserstein``.

    Raises:
        UsageError: The spectra differ in length, or cannot be normalised.
    """
    if len(p) != len(q):
        raise UsageError(f"spectra must be of equal length, but have {len(p)} and {len(q)} values")
    first, second = _shares(p), _shares(q)
    middle = (first + second) / 2
    divergence = _relative_entropy(first, middle) + _relative_entropy(second, middle)
    return float(np.sqrt(max(divergence, 0.0) / 2))


def wasserstein(p: Float[ndarray, "n"], q: Float[ndarray, "m"]) -> float:
    """Wasserstein-1 distance of two spectral densities, each scaled to mean 1.

    A distance of distributions, for spectra of any two lengths, zeros included: the area
    between the distribution functions. Half of it is the share of the squared Frobenius norm
    that would have to move to other eigenvalues, from 0 to below 1; so it does not depend on
    bins, nor on the scale of the weights, and weighs spikes by their norm. (A Kolmogorov-Smirnov
    distance would not see how far spikes lie out, and one of log-spectra would be ruled by the
    least eigenvalues, which are rounding error in a matrix without full rank.)

    Raises:
        UsageError: A spectrum cannot be normalised.
    """
    first, second = _shares(p) * len(p), _shares(q) * len(q)
    if len(first) == len(second):
        return float(np.abs(first - second).mean())
    both = np.sort(np.concatenate([first, second]))
    above = np.searchsorted(first, both[:-1], side="right") / len(first)
    below = np.searchsorted(second, both[:-1], side="right") / len(second)
    return float(np.abs(above - below) @ np.diff(both))


def _shares(values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """The values in rising order, divided by their sum."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    usable = len(x) > 0 and np.isfinite(x).all() and x[-1] > 0
    if not usable or x[0] < -1e-6 * x[-1]:  # what is smaller is rounding of a Gram matrix
        raise UsageError("a spectrum must have values, finite, not negative and not all zero")
    x = np.maximum(x, 0.0)
    shares: ndarray = x / x.sum()
    return shares


def _relative_entropy(p: Float[ndarray, "n"], q: Float[ndarray, "n"]) -> float:
    """Sum of p ln(p / q), where 0 ln 0 = 0; q > 0 wherever p > 0."""
    held = p > 0
    return float(p[held] @ np.log(p[held] / q[held]))
