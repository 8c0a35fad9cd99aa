"""Files of networks whose layers are smaller than their class would make them.

A safetensors file, which other tools can list; its metadata state the sizes of every layer. There
is no code in it: the user's own function builds the network at full size, the layers are cut to
the sizes stated, and the tensors are loaded strictly.
"""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import PayloadError, SourceError, UsageError
from tailor.records import write
from tailor.stages.shrink.heads import COUNTS
from tailor.stages.shrink.kinds import measured, put, shapes
from tailor.weights.source.entry import Entry
from tailor.weights.source.place import Local
from tailor.weights.source.safetensors import read_safetensors
from tailor.weights.source.writing import safetensors_bytes

KEY = "tailor.shrunk"
VERSION = 1


def save_shrunk(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write a network that was shrunk, whole or not at all.

    Args:
        model: Such as ``Shrunk.model``, trained further or not.
        path: The file, a safetensors file.

    Raises:
        UsageError: Its state holds something else than dense tensors.
        OutputError: The file cannot be written.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UsageError(f"{name} is a {type(value).__name__}, but only tensors can be saved")
    stated = {"version": VERSION, "modules": sizes_of(model)}
    return write(path, safetensors_bytes(state, {KEY: json.dumps(stated, separators=(",", ":"))}))


def load_shrunk(path: str | os.PathLike[str], factory: Callable[[], nn.Module]) -> nn.Module:
    """Build a network, cut its layers to the sizes that a file states, and load its tensors.

    Args:
        path: A file that ``save_shrunk`` wrote.
        factory: Builds the network as it was before it was shrunk.

    Returns:
        The network, with values and types of the file; modes, devices and ``requires_grad`` are
        those of the factory.

    Raises:
        SourceError: No such file, or no whole safetensors file.
        PayloadError: The file was not written by ``save_shrunk``, or belongs to another network.
    """
    place = Local(Path(path))
    if not place.exists() or place.is_folder():
        raise SourceError(f"there is no file {place}")
    entries = {entry.name: entry for entry in read_safetensors(place)}
    model = factory()
    if not isinstance(model, nn.Module):
        raise UsageError(f"factory must build a module, but gave a {type(model).__name__}")
    try:
        resize(model, _stated(place.path))
        _fill(model, entries)
    except PayloadError as error:
        raise PayloadError(f"{place}: {error}") from error
    return model


# Sizes


def sizes_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """What a file says of each module that counts units or heads, by its name."""
    modules = {name: _described(part) for name, part in model.named_modules()}
    return {name: told for name, told in modules.items() if told}


def _described(module: nn.Module) -> dict[str, Any]:
    """What a file says of a module; nothing for those that count no units."""
    sizes = measured(module)
    if sizes:
        bias = {} if not hasattr(module, "bias") else {"bias": module.bias is not None}
        return {"type": type(module).__name__, **sizes, **bias}
    counts = _counts(module)
    return {"type": type(module).__name__, **counts} if counts else {}


def _counts(module: nn.Module) -> dict[str, int]:
    """The attributes that count heads."""
    if not isinstance(getattr(module, "head_dim", None), int):
        return {}
    found = {name: getattr(module, name, None) for name in COUNTS}
    return {name: value for name, value in found.items() if type(value) is int}


def _stated(path: Path) -> dict[str, dict[str, Any]]:
    """The sizes of all modules, as the metadata have them."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))  # the reader has checked it
        metadata = json.loads(file.read(length)).get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise PayloadError("it does not state the sizes of layers; read it as any state dict")
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the sizes of its layers are not valid JSON: {error}") from error
    if not isinstance(stated, dict) or stated.get("version") != VERSION:
        raise PayloadError("another version of tailor wrote it; load it with that version")
    modules = stated.get("modules")
    if not isinstance(modules, dict) or not all(isinstance(one, dict) for one in modules.values()):
        raise PayloadError("the sizes of its layers are no objects")
    return modules


def resize(model: nn.Module, stated: Mapping[str, Mapping[str, Any]]) -> None:
    """Cut the layers of a network to the sizes that a file states.

    Raises:
        PayloadError: They are not those of this network, made smaller.
    """
    parts = dict(model.named_modules())
    for name, told in stated.items():
        if name not in parts or type(parts[name]).__name__ != told.get("type"):
            raise PayloadError(
                f"it has a {told.get('type')} {name!r}, which factory does not build"
            )
        own = _described(parts[name])
        if set(told) != set(own):
            raise PayloadError(f"what it states of {name} is not {', '.join(sorted(own))}")
        for key, value in told.items():
            if type(value) is not type(own[key]):
                raise PayloadError(f"{key} of {name} is {value!r}")
            if type(value) is int and not 1 <= value <= own[key]:
                raise PayloadError(f"{key} of {name} is {value}, not from 1 to {own[key]}")
        _shape(parts[name], told)


def _shape(module: nn.Module, told: Mapping[str, Any]) -> None:
    """Give a module empty tensors of other sizes."""
    sizes = {name: value for name, value in told.items() if type(value) is int}
    if measured(module):
        own: Any = module
        if told.get("bias") is False:
            module.register_parameter("bias", None)
        elif told.get("bias") and own.bias is None:
            module.register_parameter("bias", nn.Parameter(torch.empty_like(own.weight[:, 0])))
        for name, shape in shapes(module, sizes).items():
            if getattr(module, name).shape != shape:
                put(module, name, getattr(own, name).detach().new_empty(shape))
    for name, value in sizes.items():
        setattr(module, name, value)


# Tensors


def _fill(model: nn.Module, entries: Mapping[str, Entry]) -> None:
    """Load every tensor; tied ones may be stored once."""
    wanted = model.state_dict(keep_vars=True)
    for name in entries:
        if name not in wanted:
            raise PayloadError(f"it holds {name}, which the network of factory lacks")
    loaded: dict[int, Tensor] = {}
    for name, entry in entries.items():
        loaded.setdefault(id(wanted[name]), _tensor(entry, wanted[name]))
    missing = [name for name, old in wanted.items() if id(old) not in loaded]
    if missing:
        raise PayloadError(f"it lacks {', '.join(missing[:5])}")
    state = {name: loaded[id(old)] for name, old in wanted.items()}
    model.load_state_dict(state, strict=True, assign=True)


def _tensor(entry: Entry, old: Tensor) -> Tensor:
    """A tensor of the file, to stand in the place of another."""
    if entry.shape != tuple(old.shape):
        raise PayloadError(
            f"{entry.name} has shape {entry.shape}, but {tuple(old.shape)} is needed"
        )
    value = entry.load()
    kind = (value.is_floating_point(), value.is_complex())
    if kind != (old.is_floating_point(), old.is_complex()):
        raise PayloadError(f"{entry.name} is of {value.dtype}, but the network has {old.dtype}")
    value = value.to(old.device, copy=True)  # the file may change afterwards
    if isinstance(old, nn.Parameter):
        return nn.Parameter(value, requires_grad=old.requires_grad)
    return value
