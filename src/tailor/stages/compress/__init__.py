"""From a trained network to a short file that is the network: prune, retrain, quantise, code."""

from tailor.stages.compress.payload import CompressedModel, pack, read_bytes
from tailor.stages.compress.pipeline import Candidate, Retrain, compress, frontier, gradual
from tailor.stages.compress.quantize import Quantizer, Uniform

__all__ = [
    "Candidate",
    "CompressedModel",
    "Quantizer",
    "Retrain",
    "Uniform",
    "compress",
    "frontier",
    "gradual",
    "pack",
    "read_bytes",
]
