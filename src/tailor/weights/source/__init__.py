"""``read``: the one place that enumerates the layers of a model.

A reader yields raw entries (name, shape, dtype, identity, loader); one function in ``gather``
then decides for all readers alike: canonical names, natural order, ties, layer or other. Files
are opened in this folder and nowhere else, one tensor at a time, never by unpickling code.

::

    memory, paths               what is given: a model, tensors; files, folders, patterns
    safetensors, checkpoint,    one file for each format
    arrays, onnx, keras, gguf
    place, span                 where bytes lie, here or remote; a tensor as a piece of a file
    entry, quantised, lora      a stored tensor; what several of them mean together
    gather                      the decisions that hold for every reader
    derive                      select, difference, fingerprint
"""

from tailor.weights.source.derive import difference, fingerprint, select
from tailor.weights.source.gather import Source, read

__all__ = ["Source", "read", "select", "difference", "fingerprint"]
