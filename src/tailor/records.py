"""Frozen records and validated JSON: one way out, one way in.

A record is a frozen, slotted, keyword-only dataclass. ``to_json`` turns it into plain JSON
values; ``from_json`` rebuilds it and refuses everything that its annotations do not allow:
unknown or missing fields, wrong types, NaN. A field that may hold one of several records
(``PowerLawFit | NoFit``) is tagged with ``"type"``.
"""

import dataclasses
import hashlib
import json
import math
import os
import platform
import secrets
import sys
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy
import torch

from tailor.errors import OutputError, RecordError
from tailor.version import __version__

# Not recursive by name: beartype, which checks the tests, follows that for two levels only.
Json: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
Record = TypeVar("Record")

MAX_BYTES = 512 * 2**20  # a record larger than this is not one of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a result: versions, seed and settings.

    Attributes:
        tailor: Version of this library.
        torch: Version of PyTorch.
        numpy: Version of NumPy.
        python: Version of Python.
        machine: Operating system and processor family.
        seed: Seed of the run, or None where nothing was random.
        settings: Method values by argument name, as text.
    """

    tailor: str
    torch: str
    numpy: str
    python: str
    machine: str
    seed: int | None
    settings: dict[str, str]

    @classmethod
    def now(cls, seed: int | None = None, **settings: object) -> "Provenance":
        """Describe this process."""
        return cls(
            tailor=__version__,
            torch=str(torch.__version__),
            numpy=numpy.__version__,
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}",
            seed=seed,
            settings={name: str(value) for name, value in settings.items()},
        )

    def stamp(self) -> dict[str, str]:
        """The same as flat text, for tables and file headers."""
        return {
            "tailor": self.tailor,
            "torch": self.torch,
            "seed": "" if self.seed is None else str(self.seed),
            "settings": "; ".join(f"{name}={value}" for name, value in self.settings.items()),
        }


def to_json(record: Any) -> Json:
    """Turn a record into JSON values; tuples become lists.

    Raises:
        RecordError: A float is NaN or infinite, or a value has no JSON form.
    """
    match record:
        case None | bool() | int() | str():
            return record
        case float():
            if not math.isfinite(record):
                raise RecordError(f"a record must hold finite numbers, but one is {record}")
            return record
        case list() | tuple():
            return [to_json(value) for value in record]
        case Mapping():
            return {str(key): to_json(value) for key, value in record.items()}
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        named = {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
        return {"type": type(record).__name__, **named}
    raise RecordError(f"a {type(record).__name__} has no place in a record")


def from_json(kind: type[Record], value: Json) -> Record:
    """Rebuild a record of type ``kind`` from JSON values.

    Raises:
        RecordError: The values are not exactly what the record's annotations demand.
    """
    rebuilt: Record = read_value(kind, value, kind.__name__)
    return rebuilt


def read_value(kind: Any, value: Json, where: str) -> Any:
    """Read ``value`` as ``kind``; ``where`` names the place for the error message.

    A sequence is read as a tuple, a mapping as a dict.

    Raises:
        RecordError: The value is not what ``kind`` demands.
    """
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, value, where)
    if origin is Sequence and isinstance(value, list):
        return _read_tuple((arguments[0], ...), value, where)
    if origin is tuple and isinstance(value, list):
        return _read_tuple(arguments, value, where)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {
            key: read_value(arguments[1], item, f"{where}.{key}") for key, item in value.items()
        }
    if origin is typing.Literal and value in arguments:
        return value
    if kind is float and type(value) in (int, float) and _fits_float(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if kind in (int, str, bool, types.NoneType) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    if origin is typing.Literal:
        name = f"one of {', '.join(map(str, arguments))}"
    raise RecordError(f"{where} must be {name}, but the file says {json.dumps(value)[:60]}")


def _fits_float(value: float) -> bool:
    """Not NaN, not infinite, and no whole number beyond the floats (isfinite raises there)."""
    return abs(value) <= sys.float_info.max


def _read_record(kind: Any, value: Json, where: str) -> Any:
    if not isinstance(value, dict) or value.get("type") != kind.__name__:
        raise RecordError(f'{where} must be an object with "type": "{kind.__name__}"')
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    given = set(value) - {"type"}
    if given != fields:
        odd = ", ".join(sorted(given ^ fields))
        raise RecordError(f"{where} has unknown or missing fields: {odd}")
    return kind(
        **{name: read_value(hints[name], value[name], f"{where}.{name}") for name in fields}
    )


def _read_union(kinds: tuple[Any, ...], value: Json, where: str) -> Any:
    tag = value.get("type") if isinstance(value, dict) else None
    for kind in sorted(
        kinds, key=lambda kind: type(value) is not kind
    ):  # 3 is an int before a float
        if tag is not None and getattr(kind, "__name__", None) != tag:
            continue
        with suppress(RecordError):
            return read_value(kind, value, where)
    for kind in kinds:
        if tag is not None and getattr(kind, "__name__", None) == tag:
            return read_value(kind, value, where)  # raises with the precise reason
    names = " | ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise RecordError(f"{where} must be {names}, but the file says {json.dumps(value)[:60]}")


def _read_tuple(arguments: tuple[Any, ...], value: list[Json], where: str) -> Any:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(
            read_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)
        )
    if len(arguments) != len(value):
        raise RecordError(f"{where} must have {len(arguments)} entries, but has {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(read_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def digest(value: Json) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save(record: Any, path: str | os.PathLike[str]) -> Path:
    """Write a record as indented JSON, whole or not at all."""
    return write(path, (_pretty(to_json(record)) + "\n").encode())


def load(kind: type[Record], path: str | os.PathLike[str]) -> Record:
    """Read a record that ``save`` wrote.

    Raises:
        RecordError: No such file, no JSON, or not this kind of record.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordError(f"{path} is larger than {MAX_BYTES} bytes: not a tailor record")
        value = json.loads(
            path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_once
        )
        return from_json(kind, value)
    except FileNotFoundError:
        raise RecordError(f"there is no file {path}") from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not valid JSON: {error}") from error


def write(path: str | os.PathLike[str], data: bytes | Iterable[bytes]) -> Path:
    """Write ``data``, in one piece or in many, so that a crash leaves the old file or the new one.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    path = Path(path)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise OutputError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or error}); "
            "choose another folder with --out"
        ) from error
    finally:
        with suppress(OSError, ValueError):
            aside.unlink(missing_ok=True)
    return path


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object whose keys all differ: of two equal ones, readers might see different values."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name} stands twice in one object")
    return dict(pairs)


def _pretty(value: Json, indent: str = "") -> str:
    """Indented JSON that keeps a list of plain values on one line."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
