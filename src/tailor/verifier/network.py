"""What a file is decoded into, and what it errs on."""

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tailor.verifier.said import Mismatch, digest, raw_bytes, sha256

TIE = 1e-9  # share of the largest score up to which two scores count as equal
BLOCK = 2**15  # numbers that the network is given at a time


def wrong_classes(model: nn.Module, data: Any) -> Tensor:
    """Which examples a classifier gets wrong; ties and NaN are wrong."""
    found = scores(model, data.x)
    if found.shape[0] != len(data.y) or int(data.y.max()) >= found.shape[1]:
        raise Mismatch("the network does not score the classes of these data")
    return wrong_scores(found, data.y)


def scores(model: nn.Module, x: Tensor) -> Tensor:
    """What the network makes of the inputs, in float64."""
    with torch.no_grad():
        parts = torch.split(x, max(1, BLOCK * len(x) // max(1, x.numel())))
        return torch.cat([model(x.double() if x.is_floating_point() else x) for x in parts])


def wrong_scores(scores: Tensor, y: Tensor) -> Tensor:
    """Which rows do not put the right class first by more than rounding; NaN is wrong."""
    own = scores.gather(1, y.long()[:, None])
    rivals = scores.scatter(1, y.long()[:, None], -torch.inf).amax(dim=1, keepdim=True)
    size = scores.abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    return ~((own - rivals).squeeze(1) > TIE * size)


def network(build: Callable[[], nn.Module], task: str) -> dict[str, Any]:
    """What a file is decoded into; refuses tensors that nobody pays for."""
    model = build()
    state = model.state_dict(keep_vars=True)
    parts, inner = [], set()
    for name, module in model.named_modules():
        if type(module).__name__ == "Frozen" and hasattr(module, "statement"):
            inner |= {id(one) for one in module.modules()}
            part = {"type": "Part", "name": name or "network", "statement": module.statement}
            parts.append({**part, "domain": module.domain, "sha256": _hash_part(module)})
    stored = {id(tensor) for tensor in state.values()}
    for name, module in model.named_modules():
        for key, value in _held(module) if id(module) not in inner else []:
            if id(value) not in stored:
                raise Mismatch(f"the network holds a tensor that no file pays for: {name}.{key}")
    foreign = {type(one) for one in model.modules()}
    foreign = {one for one in foreign if one.__module__.split(".")[0] not in ("torch", "tailor")}
    text = {
        "text": repr(model),
        "tensors": [[n, list(t.shape), str(t.dtype)] for n, t in state.items()],
        "parts": [part["sha256"] for part in parts],
        "sources": sorted(sha256(_source(one).encode()) for one in foreign),
    }
    found = {"type": "Network", "task": task, "tensors": len(state), "parts": parts}
    values = sum(tensor.numel() for tensor in state.values())
    return {**found, "values": values, "sha256": digest(text)}


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__


def _held(module: nn.Module) -> list[tuple[str, Any]]:
    """Tensors and arrays of one module, also those within its lists and mappings."""
    found: list[tuple[str, Any]] = []
    hidden = vars(nn.Module())
    for key, value in {**module._parameters, **module._buffers, **vars(module)}.items():
        if key.startswith("_") and key in hidden:
            continue
        inside = list(value.values()) if isinstance(value, dict) else value
        for one in inside if isinstance(inside, list | tuple) else [inside]:
            if isinstance(one, Tensor) or (isinstance(one, np.ndarray) and one.ndim > 0):
                found.append((key, one))
    return found


def _hash_part(module: Any) -> str:
    hashed = hashlib.sha256(f"{module.part} {module.statement} {module.domain};".encode())
    for name, tensor in module.part.named_buffers():
        array = tensor.double() if tensor.is_floating_point() else tensor
        hashed.update(f"{name} {tuple(array.shape)};".encode())
        hashed.update(raw_bytes(array))
    return hashed.hexdigest()


def ties_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names that stand for the memory of an earlier name."""
    first: dict[Any, str] = {}
    ties = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            ties[name] = first[place]
        else:
            first[place] = name
    return ties


def hash_data(data: Any) -> str:
    """SHA-256 of types, shapes and values."""
    hashed = hashlib.sha256()
    for tensor in (data.x, data.y):
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode() + raw_bytes(tensor))
    return hashed.hexdigest()


def hash_records(data: Any) -> list[str]:
    """SHA-256 of each example with its label."""
    head = f"{data.x.dtype} {tuple(data.x.shape[1:])};".encode()
    return [
        sha256(head + raw_bytes(x) + b"%d" % y)
        for x, y in zip(data.x, data.y.tolist(), strict=True)
    ]


def cut(data: Any, split: Mapping[str, Any]) -> tuple[Any, Any]:
    """The examples before and after a cut by content."""
    keys = (sha256(f"{split['salt']} {record}".encode()) for record in hash_records(data))
    first = torch.tensor([int(key[:13], 16) < split["share"] * 16**13 for key in keys])
    return take(data, first), take(data, ~first)


def take(data: Any, indices: Tensor) -> Any:
    """Some of the examples."""
    part = copy.copy(data)
    for name in ("x", "y"):
        object.__setattr__(part, name, getattr(data, name)[indices])
    return part
