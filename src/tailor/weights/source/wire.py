"""The wire format of protocol buffers: numbered fields, read where they lie.

See https://protobuf.dev/programming-guides/encoding. Nothing is allocated for what a message
promises: a field with bytes is given as the place of those bytes.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice

from tailor.weights.source.place import File

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELD_LIMIT = 65_535  # of a node or a tensor
TEXT_LIMIT = 65_535  # characters of a name


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file, from ``start`` to just before ``stop``."""

    start: int = 0
    stop: int = 0

    def length(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def __bool__(self) -> bool:
        return self.stop > 0


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: a number, or a piece of the file."""

    number: int
    value: int = 0
    piece: Piece = Piece()


@dataclass(frozen=True, slots=True)
class Wire:
    """A file of known length that holds messages."""

    file: File
    size: int

    def fields(self, message: Piece) -> Iterator[Field]:
        """The fields of a message, in order; other reads may come in between."""
        at = message.start
        while at < message.stop:
            tag, at = self._varint(at)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = self._varint(at)
                yield Field(number, value=value)
                continue
            if kind == BYTES:
                length, at = self._varint(at)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise ValueError(f"a field has the unknown kind {kind}")
            if length > message.stop - at:
                raise ValueError("a field ends after its message")
            if kind == BYTES:
                yield Field(number, piece=Piece(at, at + length))
            at += length

    def listed(self, message: Piece, numbers: Container[int]) -> list[Field]:
        """The fields of a message with certain numbers, as many as a model can have."""
        wanted = (one for one in self.fields(message) if one.number in numbers)
        found = list(islice(wanted, FIELD_LIMIT + 1))
        if len(found) > FIELD_LIMIT:
            raise ValueError("a message has too many fields")
        return found

    def text(self, field: Field) -> str:
        """A field of characters."""
        if field.piece.length() > TEXT_LIMIT:
            raise ValueError("a name is too long")
        self.file.seek(field.piece.start)
        return self.file.read(field.piece.length()).decode(errors="backslashreplace")

    def numbers(self, field: Field) -> Iterator[int]:
        """A field of whole numbers, packed into one piece or alone."""
        if not field.piece:
            yield field.value
        at = field.piece.start
        while at < field.piece.stop:
            value, at = self._varint(at)
            yield value

    def _varint(self, at: int) -> tuple[int, int]:
        """A number in groups of seven bits, lowest first; and where it ends."""
        if self.file.tell() != at:
            self.file.seek(at)
        value = 0
        for shift in range(0, 70, 7):
            byte = self.file.read(1)
            if not byte:
                raise EOFError("it ends in the middle of a number")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value, at + shift // 7 + 1
        raise ValueError("a number is too long")
