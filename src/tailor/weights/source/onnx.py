"""ONNX: the initialisers and constants of a model's graph.

An ONNX file is one message in the wire format of protocol buffers (fields numbered as in
onnx.proto). It is walked here without a package for it: only names, shapes and places are
read, so a model of any size can be looked through, and each tensor is read when it is asked for.
What MatMul and Gemm multiply with is stored inputs first, and turned around here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.layer import Loader
from tailor.weights.source.entry import Entry, Refused, torch_dtype, turned
from tailor.weights.source.place import Place
from tailor.weights.source.span import Span
from tailor.weights.source.wire import Field, Piece, Wire

TYPES = {  # TensorProto.DataType
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
}
GRAPH = 7  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
INPUT, OUTPUT, OPERATION, ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR = 1, 3, 5  # of AttributeProto
DIMS, DATA_TYPE, NAME, EXTERNAL, LOCATION = 1, 2, 8, 13, 14  # of TensorProto
RAW, FLOATS, INTS, DOUBLES = 9, 4, 5, 10
NODE_PARTS = (INPUT, OUTPUT, OPERATION, ATTRIBUTE)
ATTRIBUTE_PARTS = (ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR)
TENSOR_PARTS = (DIMS, DATA_TYPE, NAME, EXTERNAL, LOCATION, RAW, FLOATS, INTS, DOUBLES)
FLAT = {FLOATS: ("float32", "complex64"), DOUBLES: ("float64", "complex128")}
AXES = 16  # more than any model has


def read_onnx(place: Place) -> list[Entry]:
    """One entry for each initialiser and constant of the graph."""
    try:
        with place.open() as file:
            return _entries(Wire(file, place.size()), place)
    except (ValueError, EOFError) as error:
        raise SourceError(f"{place} is not a whole ONNX model ({error}); copy it again") from error


@dataclass(slots=True)
class _Use:
    """What the nodes of a graph do with a tensor."""

    kinds: set[str] = field(default_factory=set)
    turned: set[bool] = field(default_factory=set)


def _entries(wire: Wire, place: Place) -> list[Entry]:
    graphs = [one.piece for one in wire.fields(Piece(0, wire.size)) if one.number == GRAPH]
    if len(graphs) != 1:
        raise ValueError("it holds no graph")
    stored: list[Entry] = []
    uses: dict[str, _Use] = {}
    for one in wire.fields(graphs[0]):
        if one.number == INITIALIZER:
            stored.append(_tensor(wire, one.piece, place))
        elif one.number == NODE:
            stored.extend(_node(wire, one.piece, place, uses))
    return [_oriented(entry, uses.get(entry.name, _Use())) for entry in stored]


def _node(wire: Wire, piece: Piece, place: Place, uses: dict[str, _Use]) -> Iterator[Entry]:
    """Note what the node uses; yields the tensor of a Constant."""
    fields = wire.listed(piece, NODE_PARTS)
    operation = "".join(wire.text(one) for one in fields if one.number == OPERATION)
    inputs = [wire.text(one) for one in fields if one.number == INPUT]
    attributes = [
        wire.listed(one.piece, ATTRIBUTE_PARTS) for one in fields if one.number == ATTRIBUTE
    ]
    if operation == "Constant":
        outputs = [wire.text(one) for one in fields if one.number == OUTPUT]
        for one in (one for attribute in attributes for one in attribute):
            if one.number == ATTRIBUTE_TENSOR and len(outputs) == 1:
                yield replace(_tensor(wire, one.piece, place), name=outputs[0])
    if operation in ("MatMul", "Gemm") and len(inputs) > 1:
        use = uses.setdefault(inputs[1], _Use())
        use.kinds.add("linear")
        use.turned.add(operation == "MatMul" or not _number(wire, attributes, "transB"))
    elif operation in ("Conv", "ConvTranspose") and len(inputs) > 1:
        uses.setdefault(inputs[1], _Use()).kinds.add(operation)
    elif operation == "Gather" and inputs:
        uses.setdefault(inputs[0], _Use()).kinds.add("embedding")


def _number(wire: Wire, attributes: list[list[Field]], name: str) -> int:
    for attribute in attributes:
        if any(one.number == ATTRIBUTE_NAME and wire.text(one) == name for one in attribute):
            return next((one.value for one in attribute if one.number == ATTRIBUTE_INT), 0)
    return 0


def _oriented(entry: Entry, use: _Use) -> Entry:
    """Outputs first; a tensor that nodes read both ways stays as it is stored."""
    kind = next(iter(use.kinds)) if len(use.kinds) == 1 else ""
    if kind in ("Conv", "ConvTranspose"):
        plain = f"conv{len(entry.shape) - 2}d"
        kind = plain if kind == "Conv" else f"transposed {plain}"
    if len(entry.shape) == 2 and use.kinds == {"linear"} and use.turned == {True}:
        load = turned(entry.load, entry.shape, (1, 0))
        return replace(entry, kind=kind, load=load, shape=load.shape, note="transposed")
    return replace(entry, kind=kind)


# One TensorProto


def _tensor(wire: Wire, piece: Piece, place: Place) -> Entry:
    fields = wire.listed(piece, TENSOR_PARTS)
    name = "".join(wire.text(one) for one in fields if one.number == NAME)
    kind = next((one.value for one in fields if one.number == DATA_TYPE), 0)
    numbers = (n for one in fields if one.number == DIMS for n in wire.numbers(one))
    shape = tuple(islice(numbers, AXES + 1))
    if len(shape) > AXES or any(n < 0 or n >= 2**62 for n in shape):
        raise ValueError(f"the shape of {name} is wrong")
    dtype = TYPES.get(kind, f"type {kind}")
    external = any(one.number == LOCATION and one.value == 1 for one in fields)
    load: Loader
    file = ""
    if torch_dtype(dtype) is None:
        load = Refused(f"{place} holds {name} as {dtype}, which tailor cannot read")
    elif external:
        load = _external(wire, fields, place, name, dtype, shape)
        file = str(load.place)
    else:
        load = _inside(fields, place, name, dtype, shape)
    identity = (str(place), piece.start)
    return Entry(name=name, shape=shape, dtype=dtype, identity=identity, load=load, file=file)


def _inside(
    fields: list[Field], place: Place, name: str, dtype: str, shape: tuple[int, ...]
) -> Loader:
    """Numbers lie as raw bytes, as packed floats, or as packed varints of unknown length."""
    data = [one for one in fields if one.number in (RAW, FLOATS, INTS, DOUBLES)]
    if not data and 0 in shape:
        return Span(place=place, name=name, start=0, dtype=dtype, shape=shape)
    if len(data) != 1 or not data[0].piece:
        return Refused(f"{place} holds {name} in a form that tailor cannot read; save it anew")
    (one,) = data
    span = Span(place=place, name=name, start=one.piece.start, dtype=dtype, shape=shape)
    if one.number == RAW or dtype in FLAT.get(one.number, ()):
        if span.length() != one.piece.length():
            raise ValueError(f"the length of {name} is not that of its shape")
        return span
    if one.number == INTS and dtype in ("float16", "bfloat16"):
        if math.prod(shape) > one.piece.length():
            raise ValueError(f"the length of {name} is not that of its shape")
        return _Varints(span, one.piece)
    return Refused(f"{place} holds {name} in a form that tailor cannot read; save it anew")


@dataclass(frozen=True, slots=True)
class _Varints:
    """A loader of 16-bit floats whose bits are stored as one varint each."""

    span: Span
    piece: Piece

    def __call__(self) -> Tensor:
        try:
            with self.span.place.open() as file:
                wire = Wire(file, self.span.place.size())
                bits = list(wire.numbers(Field(INTS, piece=self.piece)))
            raw = torch.tensor(bits, dtype=torch.int32).to(torch.int16)
            return raw.view(getattr(torch, self.span.dtype)).reshape(self.span.shape)
        except (ValueError, EOFError, RuntimeError, OSError) as error:
            raise SourceError(f"{self.span.place}: {self.span.name} is damaged") from error


def _external(
    wire: Wire,
    fields: list[Field],
    place: Place,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
) -> Span:
    """A tensor in another file, which must lie in the model's own folder."""
    told = {}
    for one in fields:
        if one.number == EXTERNAL:
            pair = {part.number: wire.text(part) for part in wire.fields(one.piece)}
            told[pair.get(1, "")] = pair.get(2, "")
    where = told.get("location", "")
    if not place.within(where):
        raise SourceError(f"{place} names the file {where!r} outside its own folder; refused")
    start = int(told.get("offset") or 0)
    span = Span(place=place.beside(where), name=name, start=start, dtype=dtype, shape=shape)
    length = int(told.get("length") or span.length())
    if start < 0 or length != span.length():
        raise ValueError(f"the length of {name} is not that of its shape")
    if not span.place.exists():
        raise SourceError(f"{place} names the file {where}, which is missing; fetch it")
    return span
