"""Keras: ``.weights.h5`` and ``.keras`` of version 3, ``.h5`` of version 2; needs h5py.

Keras stores kernels inputs first: (in, out) for dense layers, (height, width, in, out) for
convolutions. They are turned to outputs first, as torch has them: (out, in) and
(out, in, height, width); recurrent kernels likewise. Kernels of attention heads, (in, heads,
size) and (heads, size, out), become one matrix; depthwise kernels (height, width, in, n) become
(in n, 1, height, width). Embeddings are alike in both. Other HDF5 files are read as they are.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.source.entry import Entry, Refused, Turned, first_line, torch_dtype, turned
from tailor.weights.source.place import File, Place

if TYPE_CHECKING:
    import h5py

INSIDE = "model.weights.h5"  # of a .keras archive
RATIO = 1100  # deflate packs at most 1032 bytes into one
KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
INTO_HEADS = ("query", "key", "value", "query_dense", "key_dense", "value_dense")
FROM_HEADS = ("attention_output", "output_dense")
OPTIMIZERS = ("optimizer", "optimizer_weights")


def read_h5(place: Place) -> list[Entry]:
    """One entry for each array of an HDF5 file."""
    return _read(place, "")


def read_keras(place: Place) -> list[Entry]:
    """One entry for each variable of a ``.keras`` archive."""
    return _read(place, INSIDE)


def _read(place: Place, member: str) -> list[Entry]:
    found: dict[str, h5py.Dataset] = {}
    with _opened(place, member) as file:
        file.visititems(lambda name, one: found.update({name: one}) if _is_array(one) else None)
        size = int(file.id.get_filesize())
        return [_entry(place, member, name, one, size) for name, one in found.items()]


def _is_array(one: object) -> bool:
    import h5py

    return isinstance(one, h5py.Dataset)


@contextmanager
def _opened(place: Place, member: str) -> Iterator["h5py.File"]:
    """The HDF5 file; whatever h5py raises becomes one sentence."""
    try:
        import h5py
    except ImportError as error:
        raise SourceError(
            f"{place} is an HDF5 file, which needs h5py; install it with: "
            "pip install 'tailor[keras]'"
        ) from error
    try:
        with place.open() as outer, _inner(outer, member) as inner, h5py.File(inner, "r") as file:
            yield file
    except SourceError:
        raise
    except Exception as error:  # h5py fails in many ways on damaged bytes
        kind = "Keras archive" if member else "HDF5 file"
        raise SourceError(f"{place} is not a whole {kind} ({first_line(error)})") from error


def _inner(outer: File, member: str) -> File:
    """The file itself, or a window on a member of the archive, which Keras never compresses."""
    if not member:
        return outer
    with zipfile.ZipFile(outer) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed, which Keras never does")
    outer.seek(info.header_offset + 26)  # the local header ends with a name and extra bytes
    name, extra = (int.from_bytes(outer.read(2), "little") for _ in range(2))
    start = info.header_offset + 30 + name + extra
    return cast(File, _Window(outer, start, info.file_size))


class _Window(io.RawIOBase):
    """Part of a file as a file of its own."""

    def __init__(self, file: File, start: int, length: int) -> None:
        self.file, self.start, self.length, self.at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.at)
        data = self.file.read(max(0, min(len(buffer), self.length - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


@dataclass(frozen=True, slots=True)
class _Array:
    """A loader of one array."""

    place: Place
    member: str
    name: str

    def __call__(self) -> Tensor:
        with _opened(self.place, self.member) as file:
            array = np.asarray(file[self.name][()])
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native)


def _entry(place: Place, member: str, path: str, array: "h5py.Dataset", size: int) -> Entry:
    shape = tuple(int(n) for n in array.shape or ())
    dtype = np.dtype(array.dtype.newbyteorder("=")).name
    name = _name(path)
    load = _Array(place, member, path)
    entry = Entry(name=name, shape=shape, dtype=dtype, identity=(str(place), path), load=load)
    reason = _unreadable(array, shape, dtype, size)
    if reason:
        return replace(entry, reason=reason, load=Refused(f"{place}: {name} {reason}"))
    if set(name.split(".")) & set(OPTIMIZERS):
        return replace(entry, reason="state of the optimizer")
    return _oriented(entry)


def _unreadable(array: "h5py.Dataset", shape: tuple[int, ...], dtype: str, size: int) -> str:
    """Why an array must not be loaded; an array can claim far more than the file stores."""
    if torch_dtype(dtype) is None:
        return f"not floating point ({dtype})"
    if array.external or array.is_virtual:
        return "stored in another file; refused"
    claimed = math.prod(shape) * array.dtype.itemsize
    stored = min(int(array.id.get_storage_size()), size)
    if claimed > stored * (RATIO if array.chunks else 1):
        return f"claims {claimed} bytes, but the file stores {stored}"
    return ""


def _name(path: str) -> str:
    """``model_weights/dense/dense/kernel:0`` is ``dense.kernel``."""
    parts = path.removeprefix("model_weights/").removesuffix(":0").split("/")
    if len(parts) > 2 and parts[0] == parts[1]:  # version 2 says the layer twice
        parts = parts[1:]
    return ".".join(part.removeprefix("_") for part in parts)


def _oriented(entry: Entry) -> Entry:
    """Outputs first, for what is a kernel by its name."""
    *owners, last = entry.name.split(".")
    numbered = bool(owners) and owners[-1] == "vars"  # version 3 numbers the variables
    owner = owners[-2] if numbered and len(owners) > 1 else (owners or [""])[-1]
    if owner.startswith("embedding") or last.startswith("embedding"):
        return replace(entry, kind="embedding")
    if not numbered and last not in KERNELS:
        return entry
    load = _as_torch(entry, owner, last)
    if load is None:
        return entry
    kind = f"conv{len(load.shape) - 2}d" if len(load.shape) > 2 else "linear"
    return replace(entry, load=load, shape=load.shape, kind=kind, note="outputs first")


def _as_torch(entry: Entry, owner: str, last: str) -> Turned | None:
    load, shape = entry.load, entry.shape
    if len(shape) == 3 and owner in INTO_HEADS:
        return Turned(load, (1, 2, 0), (shape[1] * shape[2], shape[0]))
    if len(shape) == 3 and owner in FROM_HEADS:
        return Turned(load, (2, 0, 1), (shape[2], shape[0] * shape[1]))
    if len(shape) >= 4 and (last == "depthwise_kernel" or owner.startswith("depthwise")):
        places = tuple(range(len(shape) - 2))
        axes = (len(shape) - 2, len(shape) - 1, *places)
        return Turned(load, axes, (shape[-2] * shape[-1], 1, *shape[:-2]))
    if 2 <= len(shape) <= 5:
        return turned(load, shape, (len(shape) - 1, len(shape) - 2, *range(len(shape) - 2)))
    return None
