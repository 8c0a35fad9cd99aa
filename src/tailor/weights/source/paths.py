"""Files, folders, patterns and URLs: which files make up a model, and who reads each."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tailor.errors import SourceError
from tailor.weights.source.arrays import read_npy, read_npz
from tailor.weights.source.checkpoint import read_checkpoint
from tailor.weights.source.entry import Entry, Found
from tailor.weights.source.gguf import read_gguf
from tailor.weights.source.keras import read_h5, read_keras
from tailor.weights.source.lora import CONFIG, configured
from tailor.weights.source.onnx import read_onnx
from tailor.weights.source.place import Local, Place, place
from tailor.weights.source.safetensors import read_safetensors

Reader: TypeAlias = Callable[[Place], list[Entry]]

TORCH = (".pt", ".pth", ".th", ".bin")
READERS: dict[str, Reader] = {
    ".safetensors": read_safetensors,
    **dict.fromkeys(TORCH, read_checkpoint),
    ".npy": read_npy,
    ".npz": read_npz,
    ".onnx": read_onnx,
    ".gguf": read_gguf,
    ".h5": read_h5,
    ".hdf5": read_h5,
    ".keras": read_keras,
}
INDEX = ".index.json"
INDEX_LIMIT = 100_000_000  # bytes
# Where a folder has one of these, it is the model, whatever else lies there.
USUAL = (
    "model.safetensors",
    "adapter_model.safetensors",
    "pytorch_model.bin",
    "adapter_model.bin",
)
# Beginnings of torch files that trainers write beside the weights.
NOT_WEIGHTS = ("optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<ending>\..+)")


def from_path(source: str | os.PathLike[str]) -> Found:
    """A file, a folder, or a pattern."""
    where = place(source)
    files = _files(where)
    return _together(files, str(where), where)


def from_paths(sources: Sequence[str | os.PathLike[str]]) -> Found:
    """Several files, folders or patterns that are one model together."""
    places = [place(source) for source in sources]
    files = list(dict.fromkeys(file for one in places for file in _files(one)))
    label = str(places[0]) if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
    return _together(files, label, places[0])


def _together(files: Sequence[Place], label: str, where: Place) -> Found:
    """Entries of all files, whose names must not clash."""
    entries: list[Entry] = []
    opened: list[Place] = []
    for file in files:
        found, more = _read(file)
        entries += found
        opened += more
        opened += [place(one) for one in dict.fromkeys(e.file for e in found) if one]
    twice = [name for name, count in Counter(e.name for e in entries).items() if count > 1]
    if twice and len(files) > 1:
        raise SourceError(
            f"two files in {where} hold the name {twice[0]}; name one file, or compare them as "
            "models of their own"
        )
    scale = None
    if any("lora" in entry.name for entry in entries) and files:
        config = files[0].beside(CONFIG)
        if config.exists():
            opened.append(config)
            scale = configured(config)
    return Found(entries=entries, label=label, files=tuple(map(str, opened)), scale=scale)


def _read(file: Place) -> tuple[list[Entry], list[Place]]:
    """The entries of one file or index, and all files that were opened for them."""
    try:
        if file.size() == 0:
            raise SourceError(f"{file} is empty (0 bytes); copy or download it again")
        if file.name.endswith(INDEX):
            return _from_index(file)
        return _reader(file)(file), [file]
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror or error}") from error


def _reader(file: Place) -> Reader:
    found = READERS.get(_ending(file.name))
    if found is None:
        raise SourceError(
            f"{file} has an unknown ending; tailor reads {', '.join(READERS)}, {INDEX}, and "
            "folders of them"
        )
    return found


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


# Which files


def _files(where: Place) -> list[Place]:
    """The files that a path stands for."""
    try:
        if where.exists():
            return _chosen(where) if where.is_folder() else [where]
        if not re.search(r"[*?\[]", str(where)):
            raise SourceError(f"there is no file or folder {where}{_hint(where)}")
        found = [one for one in where.matches() if _ending(one.name) in READERS]
    except OSError as error:
        raise SourceError(f"{where} cannot be read: {error.strerror or error}") from error
    if not found:
        raise SourceError(f"no weight file fits the pattern {where}")
    return found


def _hint(where: Place) -> str:
    looks_like_a_hub = isinstance(where, Local) and re.fullmatch(r"[\w.-]+/[\w.-]+", str(where))
    if looks_like_a_hub and _ending(where.name) not in READERS:
        return f"; a model of the Hugging Face hub is read as hf://{where}"
    return ""


def _chosen(folder: Place) -> list[Place]:
    """The files in a folder that make up its model: an index, a usual name, or all shards."""
    names = folder.names()
    weights = [name for name in names if _ending(name) in READERS and not _is_state(name)]
    tensors = [name for name in weights if name.endswith(".safetensors")]
    for indexes in (
        [name for name in names if name.endswith(".safetensors" + INDEX)],
        [name for name in names if name.endswith(".bin" + INDEX) and not tensors],
    ):
        if len(indexes) > 1:
            listed = ", ".join(indexes)
            raise SourceError(f"{folder} holds several indexes ({listed}); name one of them")
        if indexes:
            return [folder.inside(indexes[0])]
    usual = [name for name in USUAL if name in weights][:1]
    chosen = usual or tensors or _one_model(folder, weights)
    return [folder.inside(name) for name in chosen]


def _one_model(folder: Place, names: list[str]) -> list[str]:
    """A single file, or shards that are all there."""
    if not names:
        raise SourceError(f"{folder} holds no weight file ({', '.join(READERS)})")
    if len(names) == 1 and not SHARD.fullmatch(names[0]):
        return names
    shards = [found for name in names if (found := SHARD.fullmatch(name))]
    kinds = {(one["stem"], one["count"], one["ending"]) for one in shards}
    if len(shards) < len(names) or len(kinds) > 1:
        listed = ", ".join(names[:5])
        raise SourceError(f"{folder} holds {len(names)} checkpoints ({listed}); name one file")
    present = {int(one["number"]) for one in shards}
    missing = set(range(1, int(shards[0]["count"]) + 1)) - present
    if missing:
        raise SourceError(
            f"{folder} lacks shard {min(missing)} of {int(shards[0]['count'])}; fetch it"
        )
    return names


def _is_state(name: str) -> bool:
    return _ending(name) in TORCH and name.startswith(NOT_WEIGHTS)


# An index


def _from_index(index: Place) -> tuple[list[Entry], list[Place]]:
    """A Hugging Face index: ``weight_map`` from tensor name to shard file."""
    try:
        if index.size() > INDEX_LIMIT:
            raise ValueError("it is too long")
        with index.open() as file:
            shards: dict[str, str] = dict(json.loads(file.read())["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{index} is not an index: it needs a JSON 'weight_map'") from error
    stored: dict[str, Entry] = {}
    opened = [index]
    for name in sorted({str(shard) for shard in shards.values()}):
        if not index.within(name) or "/" in name or "\\" in name:
            raise SourceError(f"{index} names the shard {name!r} outside its own folder; refused")
        shard = index.beside(name)
        if not shard.exists():
            raise SourceError(f"{index} names the shard {name}, which is missing; fetch it")
        stored |= {entry.name: entry for entry in _reader(shard)(shard)}
        opened.append(shard)
    absent = [name for name in shards if name not in stored]
    if absent:
        raise SourceError(f"{index} promises {absent[0]}, but no shard holds it; fetch it again")
    return [stored[name] for name in shards], opened
