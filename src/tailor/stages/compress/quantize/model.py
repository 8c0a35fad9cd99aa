"""Quantise the matrices of a network, or one layer at a time of whatever can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.coding import Codebook, Grid
from tailor.numerics.coding.entropy import histogram, order0_bits
from tailor.numerics.powerlaw import NoFit
from tailor.numerics.rate import Predicted, predicted_bits
from tailor.stages.compress.quantize.quantizer import Quantizer, decoded, flat, relative
from tailor.stages.compress.quantize.values import Shortest
from tailor.stages.modules import LeftAlone, check_finite, copied
from tailor.stages.targets import as_dtensor, fitting, overwrite
from tailor.weights.layer import Layer

if TYPE_CHECKING:
    import pandas

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SMALLEST, LARGEST = 1e-30, 1e30  # between them lies every step and value that is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayer:
    """One matrix after quantising.

    Attributes:
        name: Canonical name.
        key: Name in the state dict.
        aliases: Other names of the same tensor.
        shape: Its shape.
        dtype: Its element type.
        levels: Number of different values that occur.
        step: The step whose multiples they are; None for a table of values.
        error: Relative squared error |w - q|^2 / |w|^2.
        bits: Order-0 entropy of the values, in bits a weight.
        predicted: What a law fitted to the weights predicts for a uniform step at this error,
            or why nothing is predicted.
    """

    name: str
    key: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    levels: int
    step: float | None
    error: float
    bits: float
    predicted: Predicted | NoFit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantized:
    """A network that holds exactly the values of its code.

    Attributes:
        model: The copy.
        coded: The code of each quantised tensor, by its key in the state dict; a shared tensor
            stands once.
        layers: What became of each matrix.
        left_alone: Matrices that keep their weights, and why.
    """

    model: nn.Module
    coded: dict[str, Grid | Codebook]
    layers: tuple[QuantizedLayer, ...]
    left_alone: tuple[LeftAlone, ...]

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each quantised matrix."""
        import pandas

        return pandas.DataFrame([_row(one) for one in self.layers])


def quantize(
    model: nn.Module,
    quantizer: Quantizer | None = None,
    *,
    layers: str | Sequence[str] = "*",
    skip: str | Sequence[str] = (),
) -> Quantized:
    """Round the matrices of a copy of a network to few values.

    Args:
        model: The network; it is not changed.
        quantizer: ``Shortest(tolerance=0.01)`` by default.
        layers: Patterns of names of weights, as in a shell.
        skip: Patterns of names to leave out.

    Returns:
        The copy, the code of each tensor, and errors, measured and predicted bits.

    Raises:
        UsageError: No matrix fits or can be quantised, the model cannot be copied, or a tensor
            cannot be had as closely as asked.
        NonFinite: A weight is NaN or infinite.
    """
    quantizer = Shortest(tolerance=0.01) if quantizer is None else quantizer
    work = copied(model, who="quantize")
    state = work.state_dict()
    coded: dict[str, Grid | Codebook] = {}
    done: list[QuantizedLayer] = []
    left: list[LeftAlone] = []
    for layer in fitting(work, layers, skip, who="quantize"):
        weight = layer.load()
        found = _why_not_a_parameter(layer, state) or quantize_layer(layer, quantizer)
        if isinstance(found, LeftAlone):
            left.append(found)
            continue
        coded[layer.key] = found[0]
        done.append(found[1])
        with torch.no_grad():
            overwrite(weight, decoded(found[0], weight.dtype).to(weight.device))
    if not done:
        said = "; ".join(f"{one.name}: {one.reason}" for one in left[:5])
        raise UsageError(f"quantize found no matrix that it can quantise ({said})")
    return Quantized(model=work, coded=coded, layers=tuple(done), left_alone=tuple(left))


def quantize_layer(
    layer: Layer, quantizer: Quantizer
) -> tuple[Grid | Codebook, QuantizedLayer] | LeftAlone:
    """Quantise one layer, which may lie on disk; only its own tensor is in memory.

    Returns:
        The code and what became of the layer, or why it is left alone.

    Raises:
        UsageError: The tensor cannot be had as closely as asked.
        NonFinite: A weight is NaN or infinite.
    """
    weight = layer.load().detach()
    reason = _why_not(weight)
    if reason is not None:
        return LeftAlone(name=layer.name, reason=reason)
    check_finite(layer.name, weight)
    x = flat(weight)
    largest = max(float(x.max()), -float(x.min()))
    if largest != 0 and not SMALLEST < largest < LARGEST:
        return LeftAlone(name=layer.name, reason=f"its largest weight is {largest:.3g} in size")
    try:
        coded = quantizer.fit(weight).code(weight)
    except UsageError as refused:
        raise UsageError(f"{layer.name}: {refused}") from refused
    symbols = coded.levels if isinstance(coded, Grid) else coded.codes
    error = relative(weight.cpu(), decoded(coded, weight.dtype))
    return coded, QuantizedLayer(
        name=layer.name,
        key=layer.key,
        aliases=layer.aliases,
        shape=tuple(weight.shape),
        dtype=str(weight.dtype).removeprefix("torch."),
        levels=len(histogram(symbols)[0]),
        step=coded.step if isinstance(coded, Grid) else None,
        error=error,
        bits=order0_bits(symbols) / symbols.size,
        predicted=(
            predicted_bits(x, error)
            if 0 < error < 1
            else NoFit(reason=f"the relative squared error is {error:g}", n=len(x))
        ),
    )


def _why_not_a_parameter(layer: Layer, state: Mapping[str, torch.Tensor]) -> LeftAlone | None:
    if isinstance(layer.load(), nn.Parameter):
        return None
    known = layer.key in state
    reason = "a buffer" if known else "computed anew in each forward pass by a parametrization"
    return LeftAlone(name=layer.name, reason=reason)


def _why_not(weight: torch.Tensor) -> str | None:
    """Why a tensor has to stay; None if it can be quantised."""
    if weight.layout is not torch.strided or weight.device.type == "meta":
        return f"a {weight.layout} tensor on {weight.device.type}"
    if weight.dtype not in TYPES:
        return f"stored as {str(weight.dtype).removeprefix('torch.')}"
    if weight.numel() == 0:
        return "empty"
    return None if as_dtensor(weight) is None else "spread over processes"


def _row(one: QuantizedLayer) -> dict[str, object]:
    predicted = one.predicted if isinstance(one.predicted, Predicted) else None
    return {
        "name": one.name,
        "shape": one.shape,
        "dtype": one.dtype,
        "levels": one.levels,
        "step": one.step,
        "error": one.error,
        "bits": one.bits,
        "predicted_bits": predicted.bits if predicted else None,
        "tail_index": predicted.tail_index if predicted else None,
    }
