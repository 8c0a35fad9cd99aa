"""GGUF, the format of llama.cpp: metadata, a table of tensors, then their bytes.

The format is described in ggml's docs/gguf.md. Only the table is read; metadata (a vocabulary,
mostly) are stepped over. Axes are stored fastest first and turned around here, so that a matrix
has its outputs first. Plain types are read; quantised ones are listed with their name.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tailor.errors import SourceError
from tailor.weights.source.entry import Entry, Refused
from tailor.weights.source.place import File, Place
from tailor.weights.source.span import Span

PLAIN = {
    0: "float32",
    1: "float16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    30: "bfloat16",
}
QUANTISED = {
    **dict(zip((2, 3, 6, 7, 8, 9), ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1"), strict=True)),
    **dict(zip(range(10, 16), ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), strict=True)),
    **{16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S"},
    **{22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"},
}
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of metadata
STRING, ARRAY, UINT32 = 8, 9, 4


def read_gguf(place: Place) -> list[Entry]:
    """One entry for each tensor of the file; only its head is read."""
    try:
        with place.open() as file:
            return list(_entries(_Cursor(file, place.size()), place))
    except (ValueError, struct.error) as error:
        raise SourceError(f"{place} is not a whole GGUF file ({error}); copy it again") from error


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Numbers and strings of a file whose length bounds all that it can promise."""

    file: File
    size: int

    def take(self, form: str) -> int:
        width = struct.calcsize(form)
        number: int = struct.unpack("<" + form, self.file.read(width))[0]
        return number

    def text(self) -> str:
        length = self.take("Q")
        if length > min(self.size, 65_535):
            raise ValueError(f"a name would have {length} characters")
        return self.file.read(length).decode(errors="backslashreplace")

    def skip(self, length: int) -> None:
        if length > self.size - self.file.tell():
            raise ValueError("a value ends after the file")
        self.file.seek(length, 1)


def _entries(cursor: _Cursor, place: Place) -> Iterator[Entry]:
    if cursor.file.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = cursor.take("I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}, or its bytes are in the other order")
    tensors, values = cursor.take("Q"), cursor.take("Q")
    alignment = 32
    for _ in range(values):
        key, kind = cursor.text(), cursor.take("I")
        if key == "general.alignment" and kind == UINT32:
            alignment = cursor.take("I") or 1
        else:
            _step_over(cursor, kind)
    table = [_row(cursor) for _ in _counted(tensors)]
    if len({name for name, *_ in table}) != len(table):
        raise ValueError("a name stands twice in its table")
    start = -(-cursor.file.tell() // alignment) * alignment
    for name, shape, kind, offset in table:
        yield _entry(place, cursor.size, name, shape, kind, start + offset)


def _counted(count: int) -> Iterator[int]:
    """Like ``range``, for a count that nobody has checked; the file ends before memory does."""
    done = 0
    while done < count:
        yield done
        done += 1


def _step_over(cursor: _Cursor, kind: int) -> None:
    if kind in WIDTHS:
        cursor.skip(WIDTHS[kind])
    elif kind == STRING:
        cursor.skip(cursor.take("Q"))
    elif kind == ARRAY:
        inner, count = cursor.take("I"), cursor.take("Q")
        if inner in WIDTHS:
            cursor.skip(WIDTHS[inner] * count)
        elif inner == STRING:
            for _ in _counted(count):
                cursor.skip(cursor.take("Q"))
        else:
            raise ValueError(f"an array holds values of the unknown type {inner}")
    else:
        raise ValueError(f"a value has the unknown type {kind}")


def _row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, axes = cursor.text(), cursor.take("I")
    if axes > 8:
        raise ValueError(f"{name} would have {axes} axes")
    shape = tuple(cursor.take("Q") for _ in range(axes))[::-1]
    return name, shape, cursor.take("I"), cursor.take("Q")


def _entry(
    place: Place, size: int, name: str, shape: tuple[int, ...], kind: int, start: int
) -> Entry:
    identity = (str(place), name)
    if kind not in PLAIN:
        dtype = QUANTISED.get(kind, f"type {kind}")
        reason = f"quantised {dtype}; analyze the file in F32, F16 or BF16"
        return Entry(
            name=name,
            shape=shape,
            dtype=dtype,
            identity=identity,
            reason=reason,
            load=Refused(f"{place}: {name} is {reason}"),
        )
    dtype = PLAIN[kind]
    load = Span(place=place, name=name, start=start, dtype=dtype, shape=shape)
    if start + load.length() > size:
        raise ValueError(f"{name} ends after the file")
    return Entry(name=name, shape=shape, dtype=dtype, identity=identity, load=load)
