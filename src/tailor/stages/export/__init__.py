"""A network as a file that other programs read: weights, or a program with its weights.

The ending of the path says which format::

    .pt .pth .bin    the state dict, for torch.load(path, weights_only=True)
    .safetensors     the same, for safetensors and Transformers
    .onnx            a program, for ONNX Runtime and others
    .pt2             a program, for torch.export.load(path).module()
"""

from tailor.stages.export.pipeline import export

__all__ = ["export"]
