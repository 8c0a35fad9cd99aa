"""The bytes of a safetensors file; the counterpart of ``safetensors.py``, which reads them."""

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from tailor.errors import UsageError
from tailor.weights.source.safetensors import TYPES

STORED = {getattr(torch, name): code for code, name in TYPES.items()}


def safetensors_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A whole file: an 8-byte length, a JSON header and the bytes of all tensors.

    Tied tensors (of the same memory, shape and strides) are written once, under the first of
    their names. The metadata then say under each other name which one that is, as
    ``safetensors.torch.save_model`` does it.

    Args:
        tensors: Tensors by name, on any device.
        metadata: Text by name. ``"format": "pt"`` is added, since Transformers demands it.

    Raises:
        UsageError: There are no tensors, or one is of a type or layout that the format lacks.
    """
    if not tensors:
        raise UsageError("a safetensors file needs tensors, but there are none; give a state dict")
    for name, tensor in tensors.items():
        _check(name, tensor)
    kept, ties = once(tensors)
    # Types of many bytes first, as other writers do it: then every tensor is aligned.
    order = sorted(kept, key=lambda name: (-kept[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **ties, **(metadata or {})}}
    end = 0
    for name in order:
        start, end = end, end + kept[name].numel() * kept[name].element_size()
        header[name] = {
            "dtype": STORED[kept[name].dtype],
            "shape": list(kept[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(_raw(kept[name]) for name in order)])


def once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors without repetitions, and for each name left out the one that stays.

    Tensors of the same memory, shape and strides count as one; what merely overlaps does not.
    """
    first: dict[object, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        kept = first.setdefault(_place(name, tensor), name)
        if kept != name:
            ties[name] = kept
    return {name: tensor.detach() for name, tensor in tensors.items() if name not in ties}, ties


def _place(name: str, tensor: Tensor) -> object:
    if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return name
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _check(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        raise UsageError(
            f"{name} is a {tensor.layout} tensor on {tensor.device.type}, but safetensors stores "
            "dense values; call to_dense(), or load the weights first"
        )
    if tensor.dtype not in STORED:
        raise UsageError(f"{name} is of {tensor.dtype}, which safetensors lacks; convert it first")
    if name == "__metadata__":
        raise UsageError("safetensors keeps the name __metadata__ for itself; rename the tensor")


def _raw(tensor: Tensor) -> bytes:
    """Little-endian bytes in row-major order, as all machines have them that torch runs on."""
    flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
