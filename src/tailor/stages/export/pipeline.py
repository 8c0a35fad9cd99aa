"""Which file is written."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.records import write
from tailor.stages.export.program import onnx_bytes, program_bytes
from tailor.stages.targets import whole
from tailor.weights.source.writing import once, safetensors_bytes

TORCH, SAFETENSORS, ONNX, PROGRAM = (".pt", ".pth", ".bin"), ".safetensors", ".onnx", ".pt2"


def export(
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    example: Any = None,
    dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a network to a file, whole or not at all.

    Weights keep their types. Tied ones stay tied in a torch file. A safetensors file holds them
    once, and says so in its metadata, as Transformers and ``safetensors.torch.load_model`` expect.
    Programs compute what the model does in evaluation mode.

    Args:
        model: A module, or for the formats of weights also a state dict.
        path: Where to; its ending, one of ``.pt``, ``.pth``, ``.bin``, ``.safetensors``, ``.onnx``
            and ``.pt2``, is the format.
        example: For a program, an input: a tensor, a tuple of arguments, or keyword arguments by
            name. Its values do not matter.
        dynamic_batch: Whether a program takes any number of examples. Then the first axis of each
            input whose length is that of the first one counts them.
        metadata: Text by name that a safetensors file carries.

    Raises:
        UsageError: The ending is unknown, the format cannot hold the model, an example or a
            package is missing.
        OutputError: The path cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (*TORCH, SAFETENSORS, ONNX, PROGRAM):
        endings = ", ".join((*TORCH, SAFETENSORS, ONNX, PROGRAM))
        raise UsageError(f"the ending of {path.name} names no format; give one of {endings}")
    if ending in TORCH:
        return write(path, torch_bytes(_state(model)))
    if ending == SAFETENSORS:
        return write(path, safetensors_bytes(_state(model), metadata))
    if not isinstance(model, nn.Module) or example is None:
        missing = "an example of its input" if isinstance(model, nn.Module) else "the module itself"
        raise UsageError(f"a program ({ending}) is traced from a call, so export needs {missing}")
    make = onnx_bytes if ending == ONNX else program_bytes
    return write(path, make(model, example, dynamic_batch=dynamic_batch))


def torch_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A file of torch with nothing but tensors by name, on the CPU, tied ones tied.

    A tensor that is a piece of a larger one is stored alone.
    """
    kept, ties = once(state)
    alone = {name: _alone(tensor) for name, tensor in kept.items()}
    file = io.BytesIO()
    torch.save({name: alone[ties.get(name, name)] for name in state}, file)
    return file.getvalue()


def _alone(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    if tensor.layout is not torch.strided:
        return tensor
    needed = tensor.numel() * tensor.element_size()
    return tensor.clone() if tensor.untyped_storage().nbytes() > needed else tensor


def _state(model: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name; gathered where they are spread over processes."""
    given: Mapping[str, Any] = model.state_dict() if isinstance(model, nn.Module) else model
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(
                f"export writes tensors by name, but {name!r} holds a {type(tensor).__name__}; "
                "give the state dict of the weights alone"
            )
        if tensor.device.type == "meta":
            raise UsageError(f"{name} has no values (it is on meta); load the weights first")
    if not given:
        raise UsageError("there are no tensors to export; give a model or its state dict")
    return {name: whole(tensor) for name, tensor in given.items()}
