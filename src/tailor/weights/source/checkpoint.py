"""Checkpoints of torch (``.pt``, ``.pth``, ``.th``, ``.bin``), unpickled with ``weights_only``.

A checkpoint in torch's zip format is mapped into memory, so that only what is looked at is read;
one in the format before torch 1.6 has to be read as a whole. Of all that a pickle can name,
only argparse.Namespace is welcome beside tensors, since many keep their arguments in one; an
empty class stands for it.
"""

import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from tailor.errors import NoMatrices, SourceError
from tailor.weights.source.entry import Entry, Refused, first_line
from tailor.weights.source.memory import InMemory, from_tensor
from tailor.weights.source.place import Place

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "module", "weights", "params")
NOT_WEIGHTS = ("optim", "sched", "lr_sched", "scaler", "rng_state")  # beginnings of keys
LARGE = 2**24  # bytes; finding such a tensor anew costs little beside any use of it
DEPTH = 4  # of dictionaries within dictionaries


def read_checkpoint(place: Place) -> list[Entry]:
    """One entry for each tensor of the state dict in a checkpoint."""
    path, keeper = place.copy()
    mapped = _is_archive(path, place)
    state = _state(path, mapped, place)
    return [_entry(name, tensor, path, mapped, keeper) for name, tensor in state.items()]


class _Arguments:
    """Stands for argparse.Namespace in a pickle."""


class Stored:
    """A loader of one tensor in a mapped checkpoint; to other processes it goes as a name.

    A large tensor is mapped anew at each call, so that its pages go when it goes.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: tuple[int, ...],
        tensor: Tensor | None = None,
        keeper: object = None,
    ) -> None:
        self.path, self.name, self.shape = path, name, shape
        self.tensor, self.keeper = tensor, keeper

    def __call__(self) -> Tensor:
        """The tensor, as a map of its part of the file."""
        if self.tensor is not None:
            return self.tensor
        found = _state(self.path, True, self.path).get(self.name)
        if found is None or tuple(found.shape) != self.shape:
            raise SourceError(f"{self.path} lost the tensor {self.name} while it was read")
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return Stored, (self.path, self.name, self.shape)


def _entry(name: str, tensor: Tensor, path: Path, mapped: bool, keeper: object) -> Entry:
    entry = from_tensor(name, tensor)
    if _overlaps(tensor):
        reason = "claims more elements than the file holds"
        return replace(entry, reason=reason, load=Refused(f"{path}: {name} {reason}"))
    if not mapped:
        return replace(entry, load=InMemory(tensor))
    held = tensor if tensor.numel() * tensor.element_size() < LARGE else None
    return replace(entry, load=Stored(path, name, entry.shape, held, keeper))


def _overlaps(tensor: Tensor) -> bool:
    """Whether elements share memory, so that a few bytes could pass for a huge matrix."""
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        return False
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _is_archive(path: Path, shown: object) -> bool:
    """Torch never compresses its archives; a compressed one could unpack without bound."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            packed = any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist())
            program = any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception as error:  # zipfile fails in many ways on damaged bytes, too
        raise SourceError(f"{shown} is not a whole torch checkpoint ({error})") from error
    if program:
        raise SourceError(
            f"{shown} is a TorchScript program; load it with torch.jit.load, and pass on its "
            "state_dict()"
        )
    if packed:
        raise SourceError(f"{shown} is a compressed archive, which torch never writes; refused")
    return True


def _state(path: Path, mapped: bool, shown: object) -> dict[str, Tensor]:
    """The state dict of a file; no code in it runs."""
    try:
        with safe_globals([(_Arguments, "argparse.Namespace")]):
            loaded = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{shown} is a pickle that holds more than weights, or none; it was not run. "
            f"Save the state dict alone: torch.save(model.state_dict(), path){_culprit(error)}"
        ) from error
    except Exception as error:  # torch.load fails in many ways on damaged bytes
        raise SourceError(
            f"{shown} is not a whole torch checkpoint ({first_line(error)})"
        ) from error
    return _find_state(loaded, shown)


def _culprit(error: Exception) -> str:
    """Which name torch refused, if it says so."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it holds {found[1]})" if found else ""


def _find_state(loaded: object, shown: object) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise SourceError(f"{shown} holds a {type(loaded).__name__}, not weights by name")
    state = _tensors(loaded, DEPTH, set())
    if not state:
        keys = ", ".join(str(key) for key in list(loaded)[:8]) or "nothing"
        raise NoMatrices(f"{shown} holds no tensors by name; its top-level keys are: {keys}")
    return state


def _tensors(held: Mapping[Any, Any], depth: int, seen: set[int]) -> dict[str, Tensor]:
    """The state dict among nested dictionaries.

    The one under a usual key wins, then the tensors at this level, then whatever holds
    matrices; several of those (a generator, a discriminator) are joined under their keys.
    """
    seen.add(id(held))
    here = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
    inner = {
        key: _tensors(value, depth - 1, seen) for key, value in _nested(held, seen) if depth > 0
    }
    usual = [inner[key] for key in STATE_KEYS if key in inner]
    for state in (*usual, here):
        if _has_matrix(state):
            return state
    full = {key: state for key, state in inner.items() if _has_matrix(state)}
    if len(full) == 1:
        return next(iter(full.values()))
    if full:
        return {f"{key}.{name}": one for key, state in full.items() for name, one in state.items()}
    return here or next((state for state in inner.values() if state), {})


def _nested(held: Mapping[Any, Any], seen: set[int]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Dictionaries in a dictionary, each once, without those of optimizers."""
    for key, value in held.items():
        alone = isinstance(value, list) and len(value) == 1  # some keep their one dict in a list
        found = value[0] if alone else value
        wanted = not str(key).lower().startswith(NOT_WEIGHTS)
        if wanted and isinstance(found, Mapping) and id(found) not in seen:
            yield str(key), found


def _has_matrix(state: Mapping[str, Tensor]) -> bool:
    return any(tensor.ndim > 1 for tensor in state.values())
