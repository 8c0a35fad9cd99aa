"""Safetensors: an 8-byte length, a JSON header, and the bytes of all tensors.

The format is described at https://huggingface.co/docs/safetensors. The header is read here and
not by the package of the same name, so that a file behind a URL is read the same way as a local
one: the header first, then the bytes of each tensor when it is asked for.
"""

import json
import struct
from typing import Any

from tailor.errors import SourceError
from tailor.weights.source.entry import Entry, torch_dtype
from tailor.weights.source.place import Place
from tailor.weights.source.span import Span

HEADER_LIMIT = 100_000_000  # bytes; the limit of the format's own implementation

TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(place: Place) -> list[Entry]:
    """One entry for each tensor of the file; only the header is read."""
    try:
        return _entries(place)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise SourceError(
            f"{place} is not a whole safetensors file ({_said(error)}); copy or download it again"
        ) from error


def _entries(place: Place) -> list[Entry]:
    size = place.size()
    with place.open() as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(HEADER_LIMIT, size - 8):
            raise ValueError(f"its header would have {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_without_twins)
    header.pop("__metadata__", None)
    start = 8 + length
    pieces = sorted((_piece(told), name) for name, told in header.items())
    end = 0
    for (first, last), name in pieces:  # without gaps and overlaps, as the format demands
        if first != end or last < first:
            raise ValueError(f"the place of {name} is wrong")
        end = last
    if start + end != size:
        raise ValueError(f"it should have {start + end} bytes, but has {size}")
    return [_entry(place, start, name, told) for name, told in header.items()]


def _entry(place: Place, start: int, name: str, told: dict[str, Any]) -> Entry:
    shape = tuple(told["shape"])
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"the shape of {name} is wrong")
    stored = str(told["dtype"])
    dtype = TYPES.get(stored, stored)
    first, last = _piece(told)
    load = Span(place=place, name=name, start=start + first, dtype=dtype, shape=shape)
    if load.length() != last - first and torch_dtype(dtype) is not None:
        raise ValueError(f"the length of {name} is not that of its shape")
    return Entry(name=name, shape=shape, dtype=dtype, identity=(str(place), name), load=load)


def _piece(told: dict[str, Any]) -> tuple[int, int]:
    first, last = told["data_offsets"]
    if type(first) is not int or type(last) is not int:
        raise ValueError("an offset is no whole number")
    return first, last


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)[:160]
