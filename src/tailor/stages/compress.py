"""From a trained network to a short file that is the network: prune, retrain, quantise, code."""

import copy
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tailor.errors import NonFinite, PayloadError, UsageError
from tailor.numerics.coding import (
    DTYPES,
    MAX_LEVEL,
    Coded,
    Grid,
    Raw,
    Spec,
    code_length,
    decode,
    encode,
    round_step,
)
from tailor.records import Json, write
from tailor.stages.prune import Magnitude, Pruner
from tailor.stages.units import chains, drop_dead, live_first, rescale
from tailor.weights.source import read

Retrain = Callable[[nn.Module], None]

MAGIC = b"\x89TAILOR\x01"  # the last byte is the version of the format
MAX_HEADER = 1 << 20
MAX_FILE = 1 << 28
SHARES = (0.5, 0.75, 0.9, 1.0)  # of the weights on the grid, after each round of quantisation


# The file


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
            if path.stat().st_size > MAX_FILE:
                raise PayloadError(f"{path} is larger than {MAX_FILE} bytes; refused")
            return cls(payload=path.read_bytes())
        except FileNotFoundError:
            raise PayloadError(f"there is no file {path}") from None
        except OSError as error:
            raise PayloadError(f"{path} cannot be read: {error.strerror}") from error

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
        header, stream = _split(self.payload)
        coded = decode(stream, list(header.specs.values()))
        pairs = zip(header.specs.items(), coded, strict=True)
        return {name: _to_tensor(tensor, spec) for (name, spec), tensor in pairs}

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
        header, stream = _split(self.payload)
        coded = zip(header.specs, decode(stream, list(header.specs.values())), strict=True)
        return {name: tensor for name, tensor in coded if isinstance(tensor, Grid)}

    def code_length(self) -> dict[str, dict[str, float]]:
        """Ideal bits of each part of each tensor's code."""
        header, stream = _split(self.payload)
        coded = decode(stream, list(header.specs.values()))
        return {name: code_length(tensor) for name, tensor in zip(header.specs, coded, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    specs: dict[str, Spec]
    about: dict[str, str]


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


# Quantisers


class Quantizer(ABC):
    """Puts a weight tensor on a grid."""

    unit_step: bool

    @abstractmethod
    def step(self, weights: Float[Tensor, "..."]) -> float:
        """The step of the grid for this tensor."""

    @abstractmethod
    def levels(self, weights: Float[Tensor, "..."], step: float) -> Int[Tensor, "..."]:
        """Levels of the nearest grid points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Quantizer):
    """A symmetric grid: weights become -top, ..., -1, 0, 1, ..., top times a step.

    The step is the one with the least squared error among 64 sizes in geometric progression.
    Weights below half a step become zero, which prunes a little more.

    Attributes:
        top: Largest level.
        unit_step: Store the step 1 instead, which saves 16 bits a tensor. Only for networks
            whose decisions do not change when a layer is scaled (ReLU without biases).
    """

    top: int = 3
    unit_step: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MAX_LEVEL:
            raise UsageError(f"top must lie between 1 and {MAX_LEVEL}, but is {self.top}")

    def step(self, weights: Float[Tensor, "..."]) -> float:
        """See ``Quantizer.step``."""
        size = weights[weights != 0].abs().to(torch.float64)
        if size.numel() == 0:
            return 1.0
        largest = float(size.max())
        steps = np.geomspace(largest / (2 * self.top), largest, 64)
        if self.top > 8:  # fine grids clip nothing: finer steps than the largest needs do not help
            steps = np.geomspace(largest / (1.5 * self.top), largest / self.top, 64)
        errors = [float((_nearest(size, s, self.top) * s - size).square().sum()) for s in steps]
        return round_step(float(steps[int(np.argmin(errors))]))

    def levels(self, weights: Float[Tensor, "..."], step: float) -> Int[Tensor, "..."]:
        """See ``Quantizer.levels``."""
        size = weights.detach().abs().to(torch.float64)
        return (weights.detach().sign() * _nearest(size, step, self.top)).to(torch.int64)


def _nearest(size: Tensor, step: float, top: int) -> Tensor:
    return (size / step).round().clamp(max=top)


# The way from a network to a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point on the way from dense to small.

    Attributes:
        sparsity: Share of zeros among the matrices' weights.
        nonzeros: Number of weights that are not zero.
        pruned: State dict after pruning and retraining, before quantisation.
        compressed: The file.
    """

    sparsity: float
    nonzeros: int
    pruned: dict[str, Tensor]
    compressed: CompressedModel


def compress(
    model: nn.Module,
    *,
    pruner: Pruner | None = None,
    quantizer: Quantizer | None = None,
    retrain: Retrain | None = None,
    about: dict[str, str] | None = None,
) -> CompressedModel:
    """Compress a network to one file.

    Args:
        model: The trained network; it is not changed.
        pruner: Rule and final sparsity; ``Magnitude(sparsity=0.9)`` by default.
        quantizer: ``Uniform(top=3)`` by default.
        retrain: Trains the module that it is given, in place, with whatever loop and data;
            pruned and quantised weights stay what they are. Without it, pruning is one shot.
        about: Free text that is stored with the file.

    Returns:
        The file; ``.into(build)`` gives the network back.
    """
    pruner = Magnitude(sparsity=0.9) if pruner is None else pruner
    path = gradual(pruner.sparsity) if retrain else [pruner.sparsity]
    *_, last = frontier(
        model, path, pruner=pruner, quantizer=quantizer, retrain=retrain, about=about
    )
    return last.compressed


def gradual(sparsity: float, first: float = 0.5, keep: float = 0.85) -> list[float]:
    """Rising sparsities from ``first`` to ``sparsity``; each keeps that share of the last."""
    path = [first]
    while 1 - (1 - path[-1]) * keep < sparsity:
        path.append(1 - (1 - path[-1]) * keep)
    return [s for s in path if s < sparsity] + [sparsity]


def frontier(
    model: nn.Module,
    sparsities: Iterable[float],
    *,
    pruner: Pruner | None = None,
    quantizer: Quantizer | None = None,
    retrain: Retrain | None = None,
    quantize_from: float = 0.0,
    about: dict[str, str] | None = None,
) -> Iterator[Candidate]:
    """Prune further and further, and yield a finished file at each sparsity.

    Args:
        model: The trained network; it is not changed.
        sparsities: Rising shares of zeros.
        pruner: As for ``compress``; its own sparsity is not used.
        quantizer: As for ``compress``.
        retrain: As for ``compress``.
        quantize_from: Sparsity from which on files are made; below it nothing is yielded.
        about: As for ``compress``.
    """
    pruner = Magnitude(sparsity=0.0) if pruner is None else pruner
    quantizer = Uniform() if quantizer is None else quantizer
    work = copy.deepcopy(model)
    found = chains(work)
    for sparsity in sparsities:
        weights = _matrices(work)
        keep = pruner.at(sparsity).keep(weights)
        weights = drop_dead({n: w * keep[n] for n, w in weights.items()}, found)
        _write_back(work, weights)
        _retrain_held(work, {n: (w == 0) for n, w in weights.items()}, retrain)
        weights = _matrices(work)
        if sparsity < quantize_from:
            continue
        nonzeros = sum(int((w != 0).sum()) for w in weights.values())
        yield Candidate(
            sparsity=1 - nonzeros / sum(w.numel() for w in weights.values()),
            nonzeros=nonzeros,
            pruned={name: tensor.clone() for name, tensor in work.state_dict().items()},
            compressed=_finish(work, quantizer, retrain, about),
        )


def _finish(
    pruned: nn.Module, quantizer: Quantizer, retrain: Retrain | None, about: dict[str, str] | None
) -> CompressedModel:
    """Quantise step by step: put the best fitting share on the grid, retrain the rest, repeat.

    Incremental quantisation after Zhou et al. (2017), with shares of our own.
    """
    work = copy.deepcopy(pruned)
    found = chains(work)
    weights = rescale(_matrices(work), found)
    _write_back(work, weights)
    steps = {name: quantizer.step(w) for name, w in weights.items()}
    held = {name: w == 0 for name, w in weights.items()}
    for share in SHARES if retrain else (1.0,):
        weights = _matrices(work)
        for name, w in weights.items():
            target = (quantizer.levels(w, steps[name]) * steps[name]).to(w.dtype)
            held[name] = _closest(w, target, held[name], share)
            weights[name] = torch.where(held[name], target, w)
        _write_back(work, weights)
        _retrain_held(work, held, retrain if share < 1 else None)
    ordered = live_first(drop_dead(_matrices(work), found), found)
    _write_back(work, ordered)
    grids = {
        name: Grid(
            levels=quantizer.levels(w, steps[name]).numpy(),
            step=1.0 if quantizer.unit_step else steps[name],
        )
        for name, w in ordered.items()
    }
    return pack(work, grids, about)


def _closest(
    weights: Tensor, target: Tensor, held: Bool[Tensor, "..."], share: float
) -> Bool[Tensor, "..."]:
    """Entries already held (zeros among them), and the closest ones up to the share."""
    distance = (target - weights).abs().double()
    distance[held] = -1.0
    zeros = int((weights == 0).sum())
    count = zeros + round(share * (weights.numel() - zeros))
    chosen = torch.zeros_like(held).flatten()
    chosen[distance.flatten().argsort(stable=True)[: max(count, int(held.sum()))]] = True
    return chosen.reshape(held.shape)


class _Held(nn.Module):
    """A parametrization under which some entries keep their values whatever the optimizer does."""

    def __init__(self, held: Bool[Tensor, "..."], values: Float[Tensor, "..."]) -> None:
        super().__init__()
        self.register_buffer("held", held)
        self.register_buffer("values", values)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.held, self.values, weight)  # type: ignore[arg-type]


def _retrain_held(
    model: nn.Module, held: dict[str, Bool[Tensor, "..."]], retrain: Retrain | None
) -> None:
    """Run the caller's training with some entries held, then leave a plain module behind."""
    if retrain is None:
        return
    for name, fixed in held.items():
        module, attribute = _owner(model, name)
        values = getattr(module, attribute).detach().clone()
        parametrize.register_parametrization(module, attribute, _Held(fixed, values))
    try:
        retrain(model)
    finally:
        for name in held:
            module, attribute = _owner(model, name)
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
    _matrices(model, "retraining made them so; lower its learning rate")


def _matrices(model: nn.Module, why: str = "nothing was compressed") -> dict[str, Tensor]:
    """Detached copies of the matrices, by their key in the state dict."""
    if any(parametrize.is_parametrized(part) for part in model.modules()):
        raise UsageError(
            "the model has parametrized weights; make them plain first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    named = {}
    for layer in read(model).layers:
        if layer.aliases:
            raise UsageError(
                f"{layer.name} and {layer.aliases[0]} are one tensor, which cannot be compressed "
                "yet; give each its own copy first"
            )
        tensor = layer.load().detach()
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{layer.name} holds NaN or infinite weights; {why}")
        named[layer.key] = tensor.cpu().clone()
    return named


def _write_back(model: nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, values in weights.items():
            module, attribute = _owner(model, name)
            getattr(module, attribute).copy_(values)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
