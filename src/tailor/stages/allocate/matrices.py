"""The weights of one layer, a piece at a time, as numbers that can be compared."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.stages.inputs import Inputs
from tailor.weights.layer import Layer

PIECE = 1 << 22  # entries that are widened to float64 at once, 32 MiB


def matrix_of(layer: Layer) -> Float[Tensor, "out in"]:
    """The weight on the CPU, as outputs by inputs, in float32 or float64.

    Raises:
        NonFinite: A weight is NaN or infinite.
        UsageError: The weights are complex.
    """
    tensor = layer.load().detach()
    if tensor.is_complex():
        raise UsageError(
            f"{layer.name} is complex, but the sizes of real weights are compared; leave it out"
        )
    tensor = tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(-1, 1)
    exact = torch.float32 if tensor.dtype.itemsize < 4 else torch.float64
    tensor = tensor.to("cpu", tensor.dtype if tensor.dtype == torch.float32 else exact)
    bad = tensor.numel() - int(torch.isfinite(tensor).sum())
    if bad:
        raise NonFinite(
            f"{layer.name} holds {bad} NaN or infinite weights; train or load it anew before "
            "pruning"
        )
    return tensor


def sizes_of(layer: Layer) -> Float[Tensor, "out in"]:
    """Absolute values of the weights; see ``matrix_of``."""
    return matrix_of(layer).abs()


def norms_of(layer: Layer, inputs: Mapping[str, Inputs] | None, who: str) -> Float[Tensor, "in"]:
    """The norm of each input of a layer over all that it saw, in float64.

    Raises:
        UsageError: There is none for this layer, or of another length.
        NonFinite: One is NaN or infinite.
    """
    if inputs is None or layer.name not in inputs:
        raise UsageError(
            f"{who} needs what {layer.name} sees on your data; give data that reaches this layer"
        )
    norms = inputs[layer.name].squares.to("cpu", torch.float64).sqrt()
    if not bool(torch.isfinite(norms).all()):
        raise NonFinite(f"some inputs of {layer.name} are NaN or infinite on the given data")
    width = int(np.prod(layer.shape[1:], dtype=np.int64))
    if len(norms) != width:
        raise UsageError(f"{layer.name} has {width} inputs, but norms of {len(norms)} were given")
    return norms


def pieces(sizes: Tensor) -> Iterator[Float64[ndarray, "n"]]:
    """All values in float64, some at a time."""
    for piece in torch.split(sizes.flatten(), PIECE):
        yield piece.to(torch.float64).numpy()


def row_pieces(sizes: Float[Tensor, "out in"]) -> Iterator[Float64[ndarray, "rows in"]]:
    """Whole rows in float64, some at a time."""
    for piece in torch.split(sizes, max(1, PIECE // max(1, sizes.shape[1]))):
        yield piece.to(torch.float64).numpy()


def refuse_emptied(layer: Layer, dropped: int, zeros: int, who: str) -> None:
    """Refuse to take the last entries of a matrix.

    Raises:
        UsageError: All are dropped, and not all were zero before.
    """
    if dropped == (size := int(np.prod(layer.shape, dtype=np.int64))) and zeros < size:
        raise UsageError(
            f"{who} would drop all {size} weights of {layer.name}; ask for less, or leave it out"
        )
