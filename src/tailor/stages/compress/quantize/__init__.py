"""Few values for the weights of a network; method values for ``quantize`` and ``compress``."""

from tailor.stages.compress.quantize.model import (
    Quantized,
    QuantizedLayer,
    quantize,
    quantize_layer,
)
from tailor.stages.compress.quantize.quantizer import Fitted, Quantizer, decoded
from tailor.stages.compress.quantize.steps import Uniform, UniformStep
from tailor.stages.compress.quantize.values import KMeans, Shortest

__all__ = [
    "Fitted",
    "KMeans",
    "Quantized",
    "QuantizedLayer",
    "Quantizer",
    "Shortest",
    "Uniform",
    "UniformStep",
    "decoded",
    "quantize",
    "quantize_layer",
]
