"""The file: a complete network as bytes."""

import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import (
    DTYPES,
    Codebook,
    Coded,
    Grid,
    Plain,
    Raw,
    Spec,
    code_length,
    contextual_lengths,
    decode,
    decode_contextual,
    decode_packed,
    encode,
    encode_contextual,
    encode_packed,
)
from tailor.records import Json, write
from tailor.stages.shrink import resize
from tailor.weights.source.writing import once

Sizes: TypeAlias = Mapping[str, Mapping[str, Any]]

SIGNATURE = b"\x89TAILOR"
MAX_HEADER = 1 << 24
MAX_FILE = 1 << 40
MAX_OTHER = 1 << 20  # bytes of a file that does not begin as ours do and is read all the same


class Coder(ABC):
    """How the tensors of a file become one stream of bytes.

    Attributes:
        version: The byte of the file that names it.
        certified: Whether certificates take its streams for codewords.
    """

    version: ClassVar[int]
    certified: ClassVar[bool] = False

    def shorten(self, header: bytes) -> bytes:
        """The header as it stands in the file."""
        return header

    def restore(self, header: bytes) -> bytes:
        """Invert ``shorten``.

        Raises:
            PayloadError: It does not hold a header, or one of more than ``MAX_HEADER`` bytes.
        """
        return header

    @abstractmethod
    def encode(self, tensors: Iterable[tuple[Coded, Spec]]) -> Iterator[bytes]:
        """The stream, piece by piece."""

    @abstractmethod
    def decode(self, stream: bytes | memoryview, specs: list[Spec]) -> Iterator[Coded]:
        """The tensors, one by one.

        Raises:
            PayloadError: The stream is damaged.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(Coder):
    """One adaptive arithmetic coder for all tensors: the shortest code, and what certificates pay.

    Seconds for a million weights; at most 2^24 of them, on uniform grids.
    """

    version: ClassVar[int] = 1
    certified: ClassVar[bool] = True

    def encode(self, tensors: Iterable[tuple[Coded, Spec]]) -> Iterator[bytes]:
        """See ``Coder.encode``."""
        yield encode(_plain(tensors, "Adaptive"))

    def decode(self, stream: bytes | memoryview, specs: list[Spec]) -> Iterator[Coded]:
        """See ``Coder.decode``."""
        yield from decode(bytes(stream), specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contextual(Coder):
    """As ``Adaptive``, with coins selected by context: shorter for networks of a few layers."""

    version: ClassVar[int] = 3
    certified: ClassVar[bool] = True

    def encode(self, tensors: Iterable[tuple[Coded, Spec]]) -> Iterator[bytes]:
        """See ``Coder.encode``."""
        yield encode_contextual(_plain(tensors, "Contextual"))

    def decode(self, stream: bytes | memoryview, specs: list[Spec]) -> Iterator[Coded]:
        """See ``Coder.decode``."""
        yield from decode_contextual(bytes(stream), specs)


def _plain(tensors: Iterable[tuple[Coded, Spec]], coder: str) -> list[Plain]:
    plain: list[Plain] = []
    for tensor, _ in tensors:
        if isinstance(tensor, Codebook):
            raise UsageError(
                f"{coder} codes uniform grids, but a tensor has a codebook; quantise with "
                "Uniform or UniformStep, or use coder=RANS()"
            )
        plain.append(tensor)
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class RANS(Coder):
    """Interleaved range asymmetric numeral systems (Duda 2013): fast, for networks of any size.

    Within a fraction of a percent of the entropy, or below it where rows and columns differ.
    """

    version: ClassVar[int] = 2

    def shorten(self, header: bytes) -> bytes:
        """See ``Coder.shorten``: many names look alike, so they are deflated."""
        return zlib.compress(header, 9)

    def restore(self, header: bytes) -> bytes:
        """See ``Coder.restore``."""
        inflate = zlib.decompressobj()
        try:
            text = inflate.decompress(header, MAX_HEADER)
        except zlib.error as error:
            raise PayloadError(f"the tailor file has an unreadable header ({error})") from error
        if not inflate.eof or inflate.unused_data:
            raise PayloadError("the tailor file has an unreadable header (it does not end)")
        return text

    def encode(self, tensors: Iterable[tuple[Coded, Spec]]) -> Iterator[bytes]:
        """See ``Coder.encode``."""
        return encode_packed(tensors)

    def decode(self, stream: bytes | memoryview, specs: list[Spec]) -> Iterator[Coded]:
        """See ``Coder.decode``."""
        return decode_packed(stream, specs)


CODERS: tuple[Coder, ...] = (Adaptive(), RANS(), Contextual())


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedModel:
    """A complete network as bytes, and nothing else.

    The bytes are: signature and version; a header that names each tensor with its shape and type
    (and says for people what made the file); the coded stream; a CRC-32. Only the stream
    carries information about the weights: names, shapes and types are those of the
    architecture, which whoever checks a certificate compares with the task's own.

    Attributes:
        payload: The bytes.
    """

    payload: bytes
    _frame: "_Frame" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_frame", _split(self.payload))  # refuses damaged bytes at once

    @classmethod
    def load(cls, path: str | Path) -> "CompressedModel":
        """Read a file that ``save`` wrote.

        Raises:
            PayloadError: No such file, or its bytes are damaged.
        """
        path = Path(path)
        try:
            return cls(payload=read_bytes(path))
        except PayloadError as error:
            raise PayloadError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the bytes, whole or not at all."""
        return write(path, self.payload)

    @property
    def coder(self) -> Coder:
        """What coded the stream."""
        return self._frame.coder

    @property
    def stream(self) -> bytes:
        """The code of all weights."""
        return bytes(self._frame.stream)

    @property
    def about(self) -> dict[str, str]:
        """What made the file; not used to decode it."""
        return self._frame.about

    @property
    def ties(self) -> dict[str, str]:
        """Names that stand for the tensor of another name."""
        return self._frame.ties

    @property
    def sizes(self) -> Sizes:
        """Of modules that are smaller than those of the network as it is built, by name."""
        return self._frame.sizes

    def specs(self) -> dict[str, Spec]:
        """Name, shape and type of each tensor, in the order of the stream."""
        return self._frame.specs

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Decode one tensor after the other, without the tied ones.

        Raises:
            PayloadError: The stream is damaged.
        """
        frame = self._frame
        for (name, spec), coded in zip(frame.specs.items(), frame.decode(), strict=True):
            yield name, to_tensor(coded, spec)

    def state_dict(self) -> dict[str, Tensor]:
        """Decode every tensor of the network; tied names share one.

        Raises:
            PayloadError: The stream is damaged.
        """
        state = dict(self.tensors())
        return state | {alias: state[name] for alias, name in self.ties.items()}

    def into(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Build the network, as it was before anything was taken out, and load the weights.

        Raises:
            PayloadError: The file is for another architecture.
        """
        model = build()
        resize(model, self.sizes)
        own, ties = specs_of(model.state_dict())
        stored = self.specs()
        if list(own.items()) != list(stored.items()):  # the order could carry information too
            raise PayloadError(
                "the file holds another architecture than the task builds: "
                f"{_difference(own, stored)}"
            )
        if ties != self.ties:
            raise PayloadError(
                "the file ties other tensors than the network that was built; build the same one"
            )
        model.load_state_dict(self.state_dict(), strict=True)
        return model

    def grids(self) -> dict[str, Grid]:
        """The tensors on uniform grids, by name."""
        return {n: tensor for n, tensor in self.coded().items() if isinstance(tensor, Grid)}

    def coded(self) -> dict[str, Coded]:
        """Every tensor as the stream has it, by name."""
        frame = self._frame
        return dict(zip(frame.specs, frame.decode(), strict=True))

    def recoded(self, coder: Coder) -> "CompressedModel":
        """The same network in a file of another coder.

        Raises:
            UsageError: The coder cannot take these tensors.
        """
        frame = self._frame
        pairs = zip(frame.decode(), frame.specs.values(), strict=True)
        head = _head(frame.specs, frame.ties, frame.about, coder, frame.sizes)
        return CompressedModel(payload=b"".join(_framed(head, coder.encode(pairs))))

    def code_length(self) -> dict[str, dict[str, float]]:
        """Ideal bits of each part of each tensor's code, by the coder of certificates."""
        coded = {n: t for n, t in self.coded().items() if not isinstance(t, Codebook)}
        if isinstance(self.coder, Contextual):
            return dict(zip(coded, contextual_lengths(list(coded.values())), strict=True))
        return {name: code_length(tensor) for name, tensor in coded.items()}


def pack(
    model: nn.Module | Mapping[str, Tensor],
    coded: Mapping[str, Coded] | None = None,
    *,
    coder: Coder | None = None,
    about: Mapping[str, str] | None = None,
    sizes: Sizes | None = None,
) -> CompressedModel:
    """Write a model's whole state as one file, from which it comes back bit for bit.

    Args:
        model: A network or a state dict; names, shapes and types are its own. Tensors that
            share their memory are stored once.
        coded: Tensors on grids and with codebooks by name, as ``quantize`` gives them; others
            are stored losslessly.
        coder: ``RANS()`` by default.
        about: Free text for people, such as versions and seed.
        sizes: Of modules that are smaller than as they are built, so that ``into`` can cut them.

    Raises:
        UsageError: A tensor has a type that a file cannot hold, or does not fit its ``coded``.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    coder = RANS() if coder is None else coder
    specs, ties = specs_of(state)
    pairs = ((_coded(state[name], spec, name, coded or {}), spec) for name, spec in specs.items())
    head = _head(specs, ties, dict(about or {}), coder, sizes or {})
    return CompressedModel(payload=b"".join(_framed(head, coder.encode(pairs))))


def write_file(
    path: str | Path,
    specs: Mapping[str, Spec],
    stream: Iterable[bytes],
    *,
    coder: Coder,
    ties: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write a file piece by piece, whole or not at all; for what does not fit into memory."""
    head = _head(dict(specs), dict(ties or {}), dict(about or {}), coder, {})
    return write(path, _framed(head, stream))


def specs_of(state: Mapping[str, Tensor]) -> tuple[dict[str, Spec], dict[str, str]]:
    """Shape and type of each tensor, and which names are tied to an earlier one.

    Raises:
        UsageError: A tensor has a type that a file cannot hold.
    """
    specs = {name: spec_of(tensor, name) for name, tensor in state.items()}
    kept, ties = once(state)
    return {name: specs[name] for name in kept}, ties


def spec_of(tensor: Tensor, name: str) -> Spec:
    """Shape and type of a tensor.

    Raises:
        UsageError: It has a type that a file cannot hold.
    """
    return Spec(shape=tuple(tensor.shape), dtype=_dtype(tensor, name))


def raw(tensor: Tensor) -> Raw:
    """A tensor as its bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return Raw(data=flat.view(torch.uint8).numpy().tobytes())


def to_tensor(coded: Coded, spec: Spec) -> Tensor:
    """What a coded tensor stands for."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if isinstance(coded, Grid):
        return (torch.as_tensor(coded.levels, dtype=torch.float64) * coded.step).to(dtype)
    if isinstance(coded, Codebook):
        return torch.from_numpy(coded.values[coded.codes]).to(dtype).reshape(spec.shape)
    flat = torch.frombuffer(bytearray(coded.data), dtype=dtype) if coded.data else torch.empty(0)
    return flat.to(dtype).reshape(spec.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    coder: Coder
    specs: dict[str, Spec]
    ties: dict[str, str]
    about: dict[str, str]
    sizes: Sizes
    stream: memoryview

    def decode(self) -> Iterator[Coded]:
        return self.coder.decode(self.stream, list(self.specs.values()))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, if it is not too large for one of ours.

    Raises:
        PayloadError: No such file, too large, or unreadable.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE))
            if path.stat().st_size > (MAX_FILE if start == SIGNATURE else MAX_OTHER):
                raise PayloadError("the file is larger than a file of ours can be; refused")
            return start + file.read()
    except FileNotFoundError:
        raise PayloadError("there is no such file") from None
    except OSError as error:
        raise PayloadError(f"the file cannot be read: {error.strerror}") from error


NO_SIGNATURE = "this is not a tailor file: it does not begin with the tailor signature"


def _coded(tensor: Tensor, spec: Spec, name: str, given: Mapping[str, Coded]) -> Coded:
    coded = given.get(name)
    if coded is None:
        return raw(tensor)
    if not isinstance(coded, Raw):
        shape = (coded.levels if isinstance(coded, Grid) else coded.codes).shape
        if tuple(shape) != spec.shape:
            raise UsageError(
                f"{name} has the shape {list(spec.shape)}, but its codes have {list(shape)}"
            )
    return coded


def _head(
    specs: dict[str, Spec],
    ties: dict[str, str],
    about: dict[str, str],
    coder: Coder,
    sizes: Sizes,
) -> bytes:
    rows: list[Json] = [[name, list(spec.shape), spec.dtype] for name, spec in specs.items()]
    head: dict[str, Json] = {"tensors": rows, "about": dict(about)}
    if ties:
        head["ties"] = dict(ties)
    if sizes:
        head["sizes"] = {name: dict(told) for name, told in sizes.items()}
    text = json.dumps(head, separators=(",", ":"), sort_keys=True).encode()
    header = coder.shorten(text)
    if len(text) > MAX_HEADER:
        raise UsageError(f"the names of the tensors take more than {MAX_HEADER} bytes")
    return SIGNATURE + bytes([coder.version]) + struct.pack("<I", len(header)) + header


def _framed(head: bytes, stream: Iterable[bytes]) -> Iterator[bytes]:
    crc = zlib.crc32(head)
    yield head
    for piece in stream:
        crc = zlib.crc32(piece, crc)
        yield piece
    yield struct.pack("<I", crc)


def _split(payload: bytes) -> _Frame:
    """The parts of a file; refuses anything that is not a whole file of this format."""
    start = len(SIGNATURE) + 5
    if payload[: len(SIGNATURE)] != SIGNATURE:
        raise PayloadError(NO_SIGNATURE)
    if len(payload) < start + 4:
        raise PayloadError("the tailor file is cut short; copy it again")
    version = payload[len(SIGNATURE)]
    coder = next((coder for coder in CODERS if coder.version == version), None)
    if coder is None:
        known = " and ".join(str(coder.version) for coder in CODERS)
        raise PayloadError(
            f"the file has format version {version}, but this tailor reads {known}; install the "
            "matching version"
        )
    if zlib.crc32(memoryview(payload)[:-4]) != struct.unpack("<I", payload[-4:])[0]:
        raise PayloadError("the tailor file is damaged: its checksum does not match; copy it again")
    length = struct.unpack("<I", payload[start - 4 : start])[0]
    if length > min(MAX_HEADER, len(payload) - start - 4):
        raise PayloadError("the tailor file is damaged: its header is longer than the file")
    return _read(
        coder.restore(payload[start : start + length]),
        memoryview(payload)[start + length : -4],
        coder,
    )


def _read(text: bytes, stream: memoryview, coder: Coder) -> _Frame:
    try:
        header = json.loads(text)
        specs = {
            name: Spec(shape=tuple(map(_whole, shape)), dtype=dtype)
            for name, shape, dtype in header["tensors"]
        }
        about = {str(key): str(value) for key, value in header["about"].items()}
        ties = dict(header.get("ties", {}))
        if len(specs) != len(header["tensors"]):
            raise ValueError("a name stands twice")
        if not set(ties.values()) <= set(specs) or set(ties) & set(specs):
            raise ValueError("a tie leads nowhere")
        sizes = {name: dict(told) for name, told in header.get("sizes", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PayloadError(f"the tailor file has an unreadable header ({error})") from error
    return _Frame(coder=coder, specs=specs, ties=ties, about=about, sizes=sizes, stream=stream)


def _whole(side: object) -> int:
    if type(side) is not int:
        raise ValueError(f"{side!r} is not a side of a shape")
    return side


def _dtype(tensor: Tensor, tensor_name: str) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        kind = "of a meta tensor" if tensor.is_meta else f"{tensor.layout} {name}"
        what = f"of type {name}" if name not in DTYPES else kind
        raise UsageError(
            f"a tensor {what} cannot be packed ({tensor_name}); convert it to float32 first"
        )
    return name


def _difference(own: dict[str, Spec], stored: dict[str, Spec]) -> str:
    for name in [*own, *stored]:
        if own.get(name) != stored.get(name):
            have = own.get(name), stored.get(name)
            said = [f"{s.dtype} {list(s.shape)}" if s else "absent" for s in have]
            return f"{name} is {said[0]} in the task and {said[1]} in the file"
    return "the tensors stand in another order"
