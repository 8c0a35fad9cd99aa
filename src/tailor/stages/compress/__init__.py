"""From a trained network to a short file that is the network.

::

    recipe      what is done, as values that can be written down
    pipeline    a recipe, followed
    checkpoint  the same for a checkpoint on disk, tensor by tensor
    frontier    files at rising sparsity, as short as a certificate needs them
    quantize/   few values for the weights
    held        training while some weights keep their values
    rounding    quantising in rounds, with training in between
    payload     the file
    measure     what it cost and gained
    report      the record of that
"""

from tailor.stages.compress.checkpoint import compress_checkpoint
from tailor.stages.compress.frontier import Candidate, frontier, gradual
from tailor.stages.compress.held import Train
from tailor.stages.compress.payload import (
    RANS,
    Adaptive,
    Coder,
    CompressedModel,
    Contextual,
    pack,
    read_bytes,
)
from tailor.stages.compress.pipeline import Compressed, compress
from tailor.stages.compress.quantize import (
    KMeans,
    Quantized,
    Quantizer,
    Shortest,
    Uniform,
    UniformStep,
    quantize,
)
from tailor.stages.compress.recipe import (
    Factorize,
    Prune,
    Quantize,
    Recipe,
    Rescale,
    Retrain,
    Shrink,
    Step,
    brief,
)
from tailor.stages.compress.report import (
    Beside,
    CompressionReport,
    FrontierPoint,
    Latency,
    TensorReport,
)

__all__ = [
    "Adaptive",
    "Beside",
    "Candidate",
    "Coder",
    "Compressed",
    "CompressedModel",
    "CompressionReport",
    "Contextual",
    "Factorize",
    "FrontierPoint",
    "KMeans",
    "Latency",
    "Prune",
    "Quantize",
    "Quantized",
    "Quantizer",
    "RANS",
    "Recipe",
    "Rescale",
    "Retrain",
    "Shortest",
    "Shrink",
    "Step",
    "TensorReport",
    "Train",
    "Uniform",
    "UniformStep",
    "brief",
    "compress",
    "compress_checkpoint",
    "frontier",
    "gradual",
    "pack",
    "quantize",
    "read_bytes",
]
