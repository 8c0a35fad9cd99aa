"""The file: a complete network as bytes."""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import DTYPES, Coded, Grid, Raw, Spec, code_length, decode, encode
from tailor.records import Json, write

MAGIC = b"\x89TAILOR\x01"  # the last byte is the version of the format
MAX_HEADER = 1 << 20
MAX_FILE = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedModel:
    """A complete network as bytes, and nothing else.

    The bytes are: magic and version; a header that names each tensor with its shape and type
    (and says for people what made the file); the coded stream; a CRC-32. Only the stream
    carries information about the weights: names, shapes and types are those of the
    architecture, which whoever checks a certificate compares with the task's own.

    Attributes:
        payload: The bytes.
    """

    payload: bytes

    def __post_init__(self) -> None:
        _split(self.payload)  # refuses damaged bytes at once

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
    def stream(self) -> bytes:
        """The self-delimiting code of all weights: what a certificate pays for."""
        return _split(self.payload)[1]

    @property
    def about(self) -> dict[str, str]:
        """What made the file; not used to decode it."""
        return _split(self.payload)[0].about

    def specs(self) -> dict[str, Spec]:
        """Name, shape and type of each tensor, in the order of the stream."""
        return _split(self.payload)[0].specs

    def state_dict(self) -> dict[str, Tensor]:
        """Decode every tensor of the network.

        Raises:
            PayloadError: The stream is damaged.
        """
        specs = self.specs()
        return {name: _to_tensor(tensor, specs[name]) for name, tensor in self._coded().items()}

    def into(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Build the network and load the decoded weights into it.

        Raises:
            PayloadError: The file is for another architecture.
        """
        model = build()
        own = {
            name: Spec(shape=tuple(tensor.shape), dtype=_dtype(tensor))
            for name, tensor in model.state_dict().items()
        }
        stored = self.specs()
        if list(own.items()) != list(stored.items()):  # the order could carry information too
            raise PayloadError(
                "the file holds another architecture than the task builds: "
                f"{_difference(own, stored)}"
            )
        model.load_state_dict(self.state_dict(), strict=True)
        return model

    def grids(self) -> dict[str, Grid]:
        """The quantised tensors, by name."""
        return {n: tensor for n, tensor in self._coded().items() if isinstance(tensor, Grid)}

    def code_length(self) -> dict[str, dict[str, float]]:
        """Ideal bits of each part of each tensor's code."""
        return {name: code_length(tensor) for name, tensor in self._coded().items()}

    def _coded(self) -> dict[str, Coded]:
        """Every tensor as the stream has it, by name."""
        header, stream = _split(self.payload)
        return dict(zip(header.specs, decode(stream, list(header.specs.values())), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    specs: dict[str, Spec]
    about: dict[str, str]


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, if it is not too large for one of ours.

    Raises:
        PayloadError: No such file, too large, or unreadable.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise PayloadError(f"the file is larger than {MAX_FILE} bytes; refused")
        return path.read_bytes()
    except FileNotFoundError:
        raise PayloadError("there is no such file") from None
    except OSError as error:
        raise PayloadError(f"the file cannot be read: {error.strerror}") from error


def pack(
    model: nn.Module, grids: dict[str, Grid], about: dict[str, str] | None = None
) -> CompressedModel:
    """Write a model's whole state as one file.

    Args:
        model: Gives names, shapes, types, and the values of all tensors not in ``grids``.
        grids: Quantised tensors by name.
        about: Free text for people, such as versions and seed.
    """
    state = model.state_dict()
    coded: list[Coded] = [
        grids.get(name) or Raw(data=_raw_bytes(tensor)) for name, tensor in state.items()
    ]
    rows: list[Json] = [[n, list(t.shape), _dtype(t)] for n, t in state.items()]
    header = json.dumps(
        {"tensors": rows, "about": about or {}}, separators=(",", ":"), sort_keys=True
    ).encode()
    body = MAGIC + struct.pack("<I", len(header)) + header + encode(coded)
    return CompressedModel(payload=body + struct.pack("<I", zlib.crc32(body)))


def _split(payload: bytes) -> tuple[_Header, bytes]:
    """Header and stream of a file; refuses anything that is not a whole file of this format."""
    start = len(MAGIC) + 4
    if payload[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise PayloadError("this is not a tailor file: it does not begin with the tailor signature")
    if len(payload) < start + 4:
        raise PayloadError("the tailor file is cut short; copy it again")
    if payload[len(MAGIC) - 1] != MAGIC[-1]:
        raise PayloadError(
            f"the file has format version {payload[len(MAGIC) - 1]}, but this tailor reads "
            f"{MAGIC[-1]}; install the matching version"
        )
    if zlib.crc32(payload[:-4]) != struct.unpack("<I", payload[-4:])[0]:
        raise PayloadError("the tailor file is damaged: its checksum does not match; copy it again")
    length = struct.unpack("<I", payload[len(MAGIC) : start])[0]
    if length > min(MAX_HEADER, len(payload) - start - 4):
        raise PayloadError("the tailor file is damaged: its header is longer than the file")
    return _read_header(payload[start : start + length]), payload[start + length : -4]


def _read_header(text: bytes) -> _Header:
    try:
        header = json.loads(text)
        specs = {
            name: Spec(shape=tuple(map(_whole, shape)), dtype=dtype)
            for name, shape, dtype in header["tensors"]
        }
        about = {str(key): str(value) for key, value in header["about"].items()}
        if len(specs) != len(header["tensors"]):
            raise ValueError("a name stands twice")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PayloadError(f"the tailor file has an unreadable header ({error})") from error
    return _Header(specs=specs, about=about)


def _whole(side: object) -> int:
    if type(side) is not int:
        raise ValueError(f"{side!r} is not a side of a shape")
    return side


def _dtype(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"a tensor of type {name} cannot be packed; convert it to float32 first")
    return name


def _raw_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _to_tensor(coded: Coded, spec: Spec) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if isinstance(coded, Grid):
        return (torch.as_tensor(coded.levels, dtype=torch.float64) * coded.step).to(dtype)
    flat = torch.frombuffer(bytearray(coded.data), dtype=dtype) if coded.data else torch.empty(0)
    return flat.to(dtype).reshape(spec.shape)


def _difference(own: dict[str, Spec], stored: dict[str, Spec]) -> str:
    for name in [*own, *stored]:
        if own.get(name) != stored.get(name):
            have = own.get(name), stored.get(name)
            said = [f"{s.dtype} {list(s.shape)}" if s else "absent" for s in have]
            return f"{name} is {said[0]} in the task and {said[1]} in the file"
    return "the tensors stand in another order"
