"""``read``: the one place that enumerates the layers of a model.

A reader yields raw entries (name, shape, dtype, identity, loader); one function then decides
for all readers alike: canonical names, natural order, ties, layer or other. Files are opened
here and nowhere else, never by unpickling code.
"""

import functools
import json
import os
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from tailor.errors import NoMatrices, SourceError, UsageError
from tailor.weights.layer import Layer, Loader, Other, Weights

Source: TypeAlias = str | os.PathLike[str] | nn.Module | Mapping[str, Tensor]

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "module", "weights", "params")
TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin")
INDEX_SUFFIX = ".safetensors.index.json"
FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One stored tensor as a reader sees it; equal ``identity`` means tied weights."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    identity: object
    load: Loader = field(repr=False)


def read(source: Source) -> Weights:
    """Enumerate every tensor of a model without loading the large ones.

    Args:
        source: A module, a state dict, a ``.safetensors`` file, its ``.index.json``, a torch
            checkpoint (``.pt``, ``.pth``, ``.th``, ``.bin``), or a folder with any of them.

    Returns:
        Layers (matrices) and others, with canonical names in natural order.

    Raises:
        SourceError: The source is missing, damaged or not made of tensors.
        NoMatrices: The source is fine but holds no matrix.
    """
    entries, label = _entries(source)
    return _enumerate(entries, label)


def _entries(source: Source) -> tuple[Iterable[_Entry], str]:
    if isinstance(source, nn.Module):
        return _from_module(source), type(source).__name__
    if isinstance(source, Mapping):
        return _from_mapping(source, "the mapping"), "state dict"
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _from_path(path), str(path)
    raise UsageError(
        f"cannot read weights from a {type(source).__name__}; "
        "give a module, a state dict, a file or a folder"
    )


def _enumerate(entries: Iterable[_Entry], label: str) -> Weights:
    """The decisions that hold for every reader."""
    named = sorted(_named(list(entries)), key=lambda pair: _natural(pair[0]))
    first: dict[object, str] = {}
    aliases: dict[str, list[str]] = {}
    for name, entry in named:
        if entry.identity in first:
            aliases[first[entry.identity]].append(name)
        else:
            first[entry.identity] = name
            aliases[name] = []
    layers: list[Layer] = []
    others: list[Other] = []
    for name, e in named:
        if name not in aliases:
            continue
        tied = tuple(aliases[name])
        reason = _why_not_a_layer(e)
        if reason is None:
            layers.append(
                Layer(
                    name=name, key=e.name, shape=e.shape, dtype=e.dtype, aliases=tied, load=e.load
                )
            )
        else:
            others.append(
                Other(name=name, shape=e.shape, dtype=e.dtype, reason=reason, load=e.load)
            )
    if not layers:
        seen = ", ".join(name for name, _ in named[:8]) or "nothing"
        raise NoMatrices(f"{label} holds no weight matrix; found: {seen}")
    return Weights(source=label, layers=tuple(layers), others=tuple(others))


def _named(entries: list[_Entry]) -> list[tuple[str, _Entry]]:
    """Entries with their canonical names; with their own where stripping would confuse two."""
    names = Counter(_canonical(entry.name) for entry in entries)
    return [
        (entry.name if names[_canonical(entry.name)] > 1 else _canonical(entry.name), entry)
        for entry in entries
    ]


def _why_not_a_layer(entry: _Entry) -> str | None:
    if entry.dtype not in FLOATS.values():
        return f"not floating point ({entry.dtype})"
    if 0 in entry.shape:
        return "empty"
    if len(entry.shape) < 2:
        return "scalar" if not entry.shape else "vector"
    return None


def _canonical(name: str) -> str:
    """Strip what wrappers (DataParallel, torch.compile, FSDP) put in front of names.

    Characters that do not print (terminal escapes, lone surrogates) are spelled out.
    """
    stripped = name
    for wrapper in WRAPPERS:
        while stripped.startswith(wrapper) or f".{wrapper}" in stripped:
            stripped = stripped.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in stripped)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts ``layers.10`` after ``layers.9``."""
    parts = re.split(r"([0-9]+)", name)  # text at even places, digits at odd ones
    numbers = [(0, len(p.lstrip("0")), p.lstrip("0")) for p in parts]  # int() refuses long ones
    return [numbers[i] if i % 2 else (1, 0, p) for i, p in enumerate(parts) if p]


# Readers: modules and mappings


def _from_module(module: nn.Module) -> Iterator[_Entry]:
    """Parameters and persistent buffers; parametrized weights as the forward pass sees them."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        if ".parametrizations." in f".{prefix}.":
            continue
        hidden: set[str] = getattr(part, "_non_persistent_buffers_set", set())
        names = [n for n, _ in part.named_parameters(recurse=False, remove_duplicate=False)]
        buffers = part.named_buffers(recurse=False, remove_duplicate=False)
        names += [n for n, _ in buffers if n not in hidden]
        names += list(getattr(part, "parametrizations", {}))
        for name in names:
            tensor = getattr(part, name)
            yield _entry_in_memory(f"{prefix}.{name}" if prefix else name, tensor)


def _from_mapping(mapping: Mapping[Any, Any], where: str) -> Iterator[_Entry]:
    for name, tensor in mapping.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise SourceError(
                f"{where} holds a {type(tensor).__name__} under {name!r}, but only tensors by name"
                " can be read; pass the state dict itself"
            )
        yield _entry_in_memory(name, tensor)


def _entry_in_memory(name: str, tensor: Tensor) -> _Entry:
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        raise SourceError(f"{name} has no shape yet; run the lazy module on one input first")
    shape = tuple(tensor.shape)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        dtype = f"{tensor.layout} tensor on {tensor.device.type}".replace("torch.", "")
        identity: object = id(tensor)
    elif tensor.numel() == 0:
        identity = id(tensor)
    else:
        identity = (tensor.data_ptr(), shape, tensor.stride(), tensor.dtype)
    return _Entry(name=name, shape=shape, dtype=dtype, identity=identity, load=_InMemory(tensor))


class _InMemory:
    """A loader that hands out a tensor it already holds (and keeps it alive)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __call__(self) -> Tensor:
        return self.tensor


# Readers: files


def _from_path(path: Path) -> Iterable[_Entry]:
    try:
        if not path.exists():
            raise SourceError(f"there is no file or folder {path}")
        if path.is_dir():
            return _from_folder(path)
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes); copy or download it again")
        if path.name.endswith(INDEX_SUFFIX):
            return _from_index(path)
        if path.suffix == ".safetensors":
            return _from_safetensors(path)
        if path.suffix in TORCH_SUFFIXES:
            return _from_torch(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    raise SourceError(
        f"{path} has an unknown ending; tailor reads .safetensors, {INDEX_SUFFIX[1:]}, "
        f"{', '.join(TORCH_SUFFIXES)} and folders of them"
    )


def _from_folder(folder: Path) -> Iterable[_Entry]:
    """An index if there is one, else all safetensors files, else all torch files."""
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(indexes) == 1:
        return _from_index(indexes[0])
    if len(indexes) > 1:
        names = ", ".join(index.name for index in indexes)
        raise SourceError(f"{folder} holds several indexes ({names}); name one of them")
    files = sorted(folder.glob("*.safetensors"))
    if files:
        entries = [entry for file in files for entry in _from_safetensors(file)]
        twice = [name for name, count in Counter(e.name for e in entries).items() if count > 1]
        if twice:
            raise SourceError(f"two files in {folder} hold the name {twice[0]}; name one file")
        return entries
    files = sorted(file for file in folder.iterdir() if file.suffix in TORCH_SUFFIXES)
    if len(files) == 1:
        return _from_torch(files[0])
    if files:
        names = ", ".join(file.name for file in files[:5])
        raise SourceError(f"{folder} holds {len(files)} checkpoints ({names}); name one file")
    endings = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise SourceError(f"{folder} holds no weight file ({endings})")


def _from_index(index: Path) -> Iterable[_Entry]:
    """A Hugging Face index: ``weight_map`` from tensor name to shard file."""
    try:
        shards: dict[str, str] = dict(json.loads(index.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{index} is not an index: it needs a JSON 'weight_map'") from error
    stored: dict[str, _Entry] = {}
    for name in sorted({str(shard) for shard in shards.values()}):
        if Path(name).name != name:
            raise SourceError(f"{index} names the shard {name!r} outside its own folder; refused")
        if not (index.parent / name).exists():
            raise SourceError(f"{index} names the shard {name}, which is missing; fetch it")
        stored |= {entry.name: entry for entry in _from_safetensors(index.parent / name)}
    absent = [name for name in shards if name not in stored]
    if absent:
        raise SourceError(f"{index} promises {absent[0]}, but no shard holds it; fetch it again")
    return [stored[name] for name in shards]


def _from_safetensors(path: Path) -> list[_Entry]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return [
                _Entry(
                    name=name,
                    shape=tuple(part.get_shape()),
                    dtype=FLOATS.get(part.get_dtype(), str(part.get_dtype())),
                    identity=(str(path), name),
                    load=functools.partial(_load_safetensor, str(path), name),
                )
                for name, part in slices.items()
            ]
    except (SafetensorError, struct.error, ValueError) as error:
        raise SourceError(
            f"{path} is not a whole safetensors file ({error}); copy or download it again"
        ) from error


def _load_safetensor(path: str, name: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{path} lost the tensor {name} while it was read: {error}") from error


def _from_torch(path: Path) -> Iterable[_Entry]:
    """A torch checkpoint, unpickled with ``weights_only=True`` so that no code in it runs."""
    _refuse_zip_bomb(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} is a pickle that holds more than weights, or none; it was not run. "
            "Save the state dict alone: torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # torch.load fails in many ways on damaged bytes
        reason = _first_line(error)
        raise SourceError(f"{path} is not a whole torch checkpoint ({reason})") from error
    return _from_mapping(_find_state(loaded, path), f"{path}")


def _refuse_zip_bomb(path: Path) -> None:
    """Torch never compresses its archives; a compressed one could unpack without bound."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            packed = [i for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED]
    except Exception as error:  # zipfile fails in many ways on damaged bytes, too
        raise SourceError(f"{path} is not a whole torch checkpoint ({error})") from error
    if packed:
        raise SourceError(f"{path} is a compressed archive, which torch never writes; refused")


def _find_state(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: itself, or nested under a usual or the only name."""
    if not isinstance(loaded, Mapping):
        raise SourceError(f"{path} holds a {type(loaded).__name__}, not weights by name")
    unlisted = {  # some checkpoints keep their one state dict in a list
        str(k): v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in loaded.items()
    }
    nested = {k: v for k, v in unlisted.items() if isinstance(v, Mapping)}
    usual = [nested[key] for key in STATE_KEYS if key in nested]
    found = [
        {str(k): v for k, v in candidate.items() if isinstance(v, Tensor)}
        for candidate in (*usual, loaded, *nested.values())
    ]
    for tensors in sorted(found, key=lambda state: not any(t.ndim > 1 for t in state.values())):
        if tensors:  # those with matrices come first, otherwise in the order of candidates
            return tensors
    keys = ", ".join(str(key) for key in list(loaded)[:8]) or "nothing"
    raise NoMatrices(f"{path} holds no tensors by name; its top-level keys are: {keys}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
