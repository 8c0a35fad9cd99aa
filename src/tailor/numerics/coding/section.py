"""A few tensors as one section of the stream: side information, their symbols, other bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from tailor.errors import PayloadError
from tailor.numerics.coding import rans
from tailor.numerics.coding.arithmetic import Decoder, Encoder
from tailor.numerics.coding.modes import Bytes, Plan, plan, restore
from tailor.numerics.coding.side import MAX_TABLES, Side
from tailor.numerics.coding.stretch import read_values
from tailor.numerics.coding.tensors import Coded, Spec

MAX_SIDE = 1 << 20  # bytes of the side information


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The bytes of a section, and what they are spent on.

    Attributes:
        data: The bytes.
        parts: Bits by part.
        modes: How each tensor is sent.
    """

    data: bytes
    parts: dict[str, float]
    modes: tuple[int, ...]


def write_section(tensors: Sequence[tuple[Coded, Spec]]) -> Section:
    """Code tensors as one section.

    Raises:
        UsageError: A tensor has another size than its spec says.
    """
    plans = _fit([plan(tensor, spec) for tensor, spec in tensors])
    coder = Encoder()
    side = Side(coder)
    told = [side.tensor(p, spec) for p, (_, spec) in zip(plans, tensors, strict=True)]
    said = coder.finish()
    symbols = rans.encode(
        _joined((run.symbols for p in plans for run in p.stretches), np.uint16),
        _joined((contexts for t in told for contexts in t.contexts), np.uint8),
        side.pool(),
    )
    rests = [b"".join(run.rest for run in p.stretches) for p in plans]
    stored = [rest + p.stored for rest, p in zip(rests, plans, strict=True)]
    data = b"".join([_varint(len(said)), _varint(len(symbols)), said, symbols, *stored])
    parts = {
        **side.spent,
        "symbols": 8.0 * len(symbols),
        "rests of symbols": 8.0 * sum(map(len, rests)),
        "stored": 8.0 * sum(len(p.stored) for p in plans),
    }
    parts["frame"] = 8.0 * len(data) - sum(parts.values())
    return Section(data=data, parts=parts, modes=tuple(p.mode for p in plans))


def read_section(data: memoryview, specs: Sequence[Spec]) -> tuple[list[Coded], memoryview]:
    """Invert ``write_section``; also gives what follows the section.

    Raises:
        PayloadError: The bytes do not begin with a section of such tensors.
    """
    source = Bytes(data)
    n_said, n_symbols = _read_varint(source), _read_varint(source)
    if n_said > MAX_SIDE:
        raise PayloadError("the stream is damaged: the side information is too long")
    side = Side(Decoder(bytes(source.take(n_said))))
    coded = source.take(n_symbols)
    told = [side.tensor(None, spec) for spec in specs]
    contexts = _joined((contexts for t in told for contexts in t.contexts), np.uint8)
    symbols = rans.decode(coded, contexts, side.pool())
    tensors, place = [], 0
    for heard, spec in zip(told, specs, strict=True):
        values = []
        for split in heard.splits:
            run, size = read_values(split, symbols[place : place + spec.size], source.left)
            source.take(size)
            values.append(run)
            place += spec.size
        tensors.append(restore(heard.mode, heard.header, values, spec, source))
    return tensors, source.left


def _fit(plans: Sequence[Plan]) -> list[Plan]:
    """Give up classes where the section would have too many tables."""
    room = MAX_TABLES - sum(len(p.stretches) for p in plans)
    fitting = []
    for p in plans:
        stretches = []
        for run in p.stretches:
            more = run.classes.pairs - 1
            stretches.append(run if more <= room else run.plain())
            room -= more if more <= room else 0
        fitting.append(replace(p, stretches=tuple(stretches)))
    return fitting


def _joined(parts: Iterable[ndarray], dtype: type[np.unsignedinteger]) -> ndarray:
    found = list(parts)
    return found[0] if len(found) == 1 else np.concatenate([np.zeros(0, dtype=dtype), *found])


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the highest bit says that more follow."""
    parts = []
    while number >> 7:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _read_varint(source: Bytes) -> int:
    number, place = 0, 0
    while True:
        byte = source.take(1)[0]
        number |= (byte & 127) << place
        place += 7
        if byte < 128:
            break
        if place > 35:
            raise PayloadError("the stream is damaged: a length is too large")
    if place > 7 and byte == 0:
        raise PayloadError("the stream is damaged: a length is not written the short way")
    return number
