"""From a trained network to a short file that is the network: prune, retrain, quantise, code."""

from tailor.stages.compress.payload import (
    RANS,
    Adaptive,
    Coder,
    CompressedModel,
    pack,
    read_bytes,
)
from tailor.stages.compress.pipeline import Candidate, Retrain, compress, frontier, gradual
from tailor.stages.compress.quantize import Quantizer, Uniform

__all__ = [
    "Adaptive",
    "Candidate",
    "Coder",
    "CompressedModel",
    "RANS",
    "Quantizer",
    "Retrain",
    "Uniform",
    "compress",
    "frontier",
    "gradual",
    "pack",
    "read_bytes",
]
