"""What is in memory already: modules, mappings, single tensors, pairs of name and tensor."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from tailor.errors import SourceError, UsageError
from tailor.weights.source.entry import Entry, Found

# Labels of layers by the class that owns the weight, the first that fits.
KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.Bilinear, "bilinear"),
    (nn.Embedding, "embedding"),
    (nn.EmbeddingBag, "embedding"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
    (nn.ConvTranspose1d, "transposed conv1d"),
    (nn.ConvTranspose2d, "transposed conv2d"),
    (nn.ConvTranspose3d, "transposed conv3d"),
    (nn.LSTM, "lstm"),
    (nn.LSTMCell, "lstm"),
    (nn.GRU, "gru"),
    (nn.GRUCell, "gru"),
    (nn.RNN, "rnn"),
    (nn.RNNCell, "rnn"),
    (nn.MultiheadAttention, "attention"),
)


def from_module(module: nn.Module) -> Found:
    """Parameters and persistent buffers; parametrized weights as the forward pass sees them."""
    scales = {
        prefix: part.scaling
        for prefix, part in module.named_modules(remove_duplicate=False)
        if isinstance(getattr(part, "scaling", None), Mapping | float | int)
    }

    def scale(layer: str, adapter: str, rank: int) -> float | None:
        """Adapters of peft keep a scale by name, others a single number."""
        found: Any = scales.get(layer)
        if isinstance(found, Mapping):
            found = found.get(adapter)
        return None if found is None else float(found)

    return Found(entries=list(_of_module(module)), label=type(module).__name__, scale=scale)


def _of_module(module: nn.Module) -> Iterator[Entry]:
    for prefix, part in module.named_modules(remove_duplicate=False):
        if ".parametrizations." in f".{prefix}.":
            continue
        hidden: set[str] = getattr(part, "_non_persistent_buffers_set", set())
        names = [n for n, _ in part.named_parameters(recurse=False, remove_duplicate=False)]
        buffers = part.named_buffers(recurse=False, remove_duplicate=False)
        names += [n for n, _ in buffers if n not in hidden]
        names += list(getattr(part, "parametrizations", {}))
        kind = next((label for owner, label in KINDS if isinstance(part, owner)), "")
        for name in names:
            tensor = getattr(part, name)
            yield from_tensor(f"{prefix}.{name}" if prefix else name, tensor, kind)


def from_mapping(mapping: Mapping[Any, Any]) -> Found:
    """A state dict, of tensors or arrays."""
    return Found(
        entries=[_checked(name, value, "the mapping") for name, value in mapping.items()],
        label="state dict",
    )


def from_one(value: Tensor | ndarray) -> Found:
    """One matrix, named "weight"."""
    if value.ndim < 2:
        raise UsageError(
            f"a single tensor of shape {tuple(value.shape)} is no matrix; "
            "give one with two or more axes"
        )
    kind = "tensor" if isinstance(value, Tensor) else "array"
    return Found(entries=[_checked("weight", value, "the source")], label=kind)


def from_pairs(pairs: Iterable[Any]) -> Found:
    """Pairs of name and tensor, such as ``model.named_parameters()``; all are kept."""
    entries: list[Entry] = []
    names: set[str] = set()
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise SourceError(
                f"the source yields a {type(pair).__name__} where a pair (name, tensor) or a path "
                "is needed; give pairs only, or paths only"
            )
        entry = _checked(pair[0], pair[1], "the source")
        if entry.name in names:
            raise SourceError(f"the source yields the name {entry.name} twice; names must differ")
        names.add(entry.name)
        entries.append(entry)
    return Found(entries=entries, label="pairs of name and tensor")


def _checked(name: object, value: object, where: str) -> Entry:
    if isinstance(name, str) and isinstance(value, Tensor):
        return from_tensor(name, value)
    if isinstance(name, str) and isinstance(value, ndarray):
        return _from_array(name, value)
    raise SourceError(
        f"{where} holds a {type(value).__name__} under {name!r}, but only tensors by name"
        " can be read; pass the state dict itself"
    )


def _from_array(name: str, array: ndarray) -> Entry:
    """A numpy array; its memory is shared where torch can."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.name == "bfloat16":  # of the package ml_dtypes; torch knows only the bytes
        raw = np.ascontiguousarray(native).view(np.int16)
        return from_tensor(name, torch.from_numpy(raw.copy()).view(torch.bfloat16))
    if not native.flags.writeable or any(step < 0 for step in native.strides):
        native = native.copy()  # torch would warn, or refuse
    try:
        return from_tensor(name, torch.from_numpy(native))
    except TypeError as error:
        raise SourceError(
            f"{name} is an array of {array.dtype}, which torch lacks; convert it to float32"
        ) from error


def from_tensor(name: str, tensor: Tensor, kind: str = "") -> Entry:
    """The entry of a tensor in memory; equal memory, shape and strides mean tied weights."""
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        raise SourceError(f"{name} has no shape yet; run the lazy module on one input first")
    shape = tuple(tensor.shape)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        dtype = f"{tensor.layout} tensor on {tensor.device.type}".replace("torch.", "")
        identity: object = id(tensor)
    elif tensor.numel() == 0 or type(tensor) not in (Tensor, nn.Parameter):
        identity = id(tensor)  # a wrapper such as DTensor has no address of its own
    else:
        identity = (tensor.data_ptr(), shape, tensor.stride(), tensor.dtype)
    return Entry(
        name=name, shape=shape, dtype=dtype, identity=identity, load=InMemory(tensor), kind=kind
    )


class InMemory:
    """A loader that hands out a tensor it already holds (and keeps it alive)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __call__(self) -> Tensor:
        """The tensor itself."""
        return self.tensor

    def __reduce__(self) -> tuple[object, ...]:
        """To another process goes the tensor alone: no graph, nothing else of its storage."""
        tensor = self.tensor.detach()
        if tensor.layout is not torch.strided or tensor.device.type == "meta":
            return InMemory, (tensor,)
        alone = tensor.untyped_storage().nbytes() <= tensor.numel() * tensor.element_size()
        return InMemory, (tensor if alone else tensor.clone(),)
