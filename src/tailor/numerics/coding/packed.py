"""Tensors of a large network to bytes and back: the packed stream.

Unlike the adaptive stream, which serves certificates of small networks, this one is made for
speed: symbols are counted first, and go with the tables of their frequencies through a
vectorised coder. The stream is a sequence of sections, each with a few small tensors or a large
one; its decoder knows shapes and types and nothing else. No stream is the beginning of another
one for the same shapes, so 8 x bytes is a code length.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tailor.errors import PayloadError
from tailor.numerics.coding.entropy import order0_bits
from tailor.numerics.coding.modes import MODES, plan
from tailor.numerics.coding.section import read_section, write_section
from tailor.numerics.coding.tensors import Codebook, Coded, Grid, Spec

SECTION_ELEMENTS = 1 << 20  # a section ends with the tensor that reaches this many elements
SECTION_TENSORS = 32  # or with this one
MAX_PACKED_ELEMENTS = 1 << 24  # of all tensors, unless the stream is long:
ELEMENTS_PER_BYTE = 1 << 10  # then at most so many for each of its bytes


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one tensor costs, coded on its own.

    Attributes:
        mode: How it is sent: "grid", "codebook", "floats" (sign and exponent coded, fraction
            stored), "bytes" or "stored".
        elements: Number of elements.
        entropy_bits: Order-0 entropy of the symbols; with the bytes and bits that are stored.
        parts: Bits by part: modes, classes, tables, symbols, rests of symbols (low bits of
            far outliers), stored (values of a codebook, fractions), frame.
    """

    mode: str
    elements: int
    entropy_bits: float
    parts: dict[str, float]

    @property
    def total_bits(self) -> float:
        """Length in bits, a whole number of bytes."""
        return math.fsum(self.parts.values())


def encode_packed(tensors: Iterable[tuple[Coded, Spec]]) -> Iterator[bytes]:
    """Code tensors in order, section by section; the stream is all sections joined.

    Args:
        tensors: Each with its shape and type, which the decoder has to know. Only those of
            one section are held at a time.

    Raises:
        UsageError: A tensor has another size than its spec says.
    """
    written = elements = 0
    for group in groups(tensors):
        data = write_group(group)
        written, elements = written + len(data), elements + sum(spec.size for _, spec in group)
        yield data
    if last := ending(elements, written):
        yield last


def decode_packed(data: bytes | memoryview, specs: Sequence[Spec]) -> Iterator[Coded]:
    """Invert ``encode_packed``, one section at a time.

    Levels and codes come in the smallest type of int8, int16 and int32 that holds them. A
    stream that differs from what the encoder writes for the same tensors may decode, too: to
    compare would take as long as to encode.

    Raises:
        PayloadError: The bytes are no stream of such tensors, or the shapes claim more
            elements than so many bytes may hold.
    """
    left = memoryview(data)
    claimed = sum(spec.size for spec in specs)
    allowed = max(MAX_PACKED_ELEMENTS, ELEMENTS_PER_BYTE * len(left))
    if claimed > allowed:
        raise PayloadError(f"the file claims {claimed} elements, more than {allowed} allowed")
    for group in groups((spec, spec) for spec in specs):
        found, left = read_section(left, [spec for spec, _ in group])
        yield from found
    written = len(memoryview(data)) - len(left)
    if left != ending(claimed, written):
        raise PayloadError("the stream is damaged: bytes follow its end")


def groups(tensors: Iterable[tuple[Item, Spec]]) -> Iterator[list[tuple[Item, Spec]]]:
    """Tensors (or whatever stands for them) in the groups that make a section each."""
    group: list[tuple[Item, Spec]] = []
    elements = 0
    for item in tensors:
        group.append(item)
        elements += item[1].size
        if elements >= SECTION_ELEMENTS or len(group) >= SECTION_TENSORS:
            yield group
            group, elements = [], 0
    if group:
        yield group


def write_group(group: Sequence[tuple[Coded, Spec]]) -> bytes:
    """The section of one group: with the others of ``groups`` and the ``ending``, the stream."""
    return write_section(group).data


def ending(elements: int, written: int) -> bytes:
    """Zero bytes behind the last section, so that a stream of almost nothing is allowed its size.

    Args:
        elements: Number of elements of all tensors.
        written: Bytes of all sections.
    """
    needed = -(-elements // ELEMENTS_PER_BYTE) if elements > MAX_PACKED_ELEMENTS else 0
    return bytes(max(0, needed - written))


def report(tensor: Coded, spec: Spec) -> Report:
    """Code one tensor on its own, and say what it costs.

    Among others it may be shorter, as tensors of a section can share tables.

    Raises:
        UsageError: The tensor has another size than the spec says.
    """
    section = write_section([(tensor, spec)])
    return Report(
        mode=MODES[section.modes[0]],
        elements=spec.size,
        entropy_bits=_entropy(tensor, spec),
        parts=section.parts,
    )


def _entropy(tensor: Coded, spec: Spec) -> float:
    if isinstance(tensor, Grid):
        return order0_bits(tensor.levels)
    if isinstance(tensor, Codebook):
        return order0_bits(tensor.codes) + 8.0 * len(plan(tensor, spec).stored)
    sent = plan(tensor, spec)
    runs = sum(order0_bits(run.symbols) + 8.0 * len(run.rest) for run in sent.stretches)
    return runs + 8.0 * len(sent.stored)
