"""The decisions that hold for every reader: names, order, ties, layer or other."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from numpy import ndarray
from torch import Tensor, nn

from tailor.errors import NoMatrices, SourceError, UsageError
from tailor.weights.layer import Layer, Other, Weights
from tailor.weights.source.entry import FLOATS, Entry, Found
from tailor.weights.source.lora import paired
from tailor.weights.source.memory import from_mapping, from_module, from_one, from_pairs
from tailor.weights.source.paths import from_path, from_paths
from tailor.weights.source.quantised import marked

Source: TypeAlias = (
    str
    | os.PathLike[str]
    | nn.Module
    | Mapping[str, Any]  # of Tensor or ndarray
    | Tensor
    | ndarray
    | Iterable[tuple[str, Tensor | ndarray]]
    | Iterable[str | os.PathLike[str]]
)

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
KINDS = {2: "matrix", 3: "3-D", 4: "conv2d", 5: "conv3d"}  # by the number of axes


def read(source: Source) -> Weights:
    """Enumerate every tensor of a model without loading the large ones.

    Args:
        source: One of

            - a module; a state dict of tensors or numpy arrays; a single tensor or array, which
              gets the name ``weight``; pairs of name and tensor;
            - a file: ``.safetensors``, a torch checkpoint (``.pt``, ``.pth``, ``.th``,
              ``.bin``), ``.npy``, ``.npz``, ``.onnx``, ``.gguf``, Keras (``.h5``, ``.keras``,
              with the extra ``keras``), or the ``.index.json`` of shards;
            - a folder with any of them, also of a LoRA adapter;
            - a pattern such as ``"model-*.safetensors"``, or several paths, for one model in
              several files;
            - any of these behind a URL that fsspec knows, such as ``hf://`` or ``s3://``.

    Returns:
        Layers (matrices) and others, with canonical names in natural order. Nothing of a file
        but its head is in memory, except for pickles in the format before torch 1.6.

    Raises:
        SourceError: The source is missing, damaged or not made of tensors.
        NoMatrices: The source is fine but holds no matrix.
        UsageError: The argument is of a type that cannot be read.
    """
    return _enumerate(_found(source))


def _found(source: object) -> Found:
    if isinstance(source, nn.Module):
        return from_module(source)
    if isinstance(source, Mapping):
        return from_mapping(source)
    if isinstance(source, Tensor | ndarray):
        return from_one(source)
    if isinstance(source, str | os.PathLike):
        return from_path(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray):
        return _from_several(source)
    raise UsageError(
        f"cannot read weights from a {type(source).__name__}; "
        "give a module, a state dict, a tensor, a file or a folder"
    )


def _from_several(source: Iterable[object]) -> Found:
    """Paths or pairs, as the first one is."""
    items = iter(source)
    first = next(items, None)
    if first is None:
        raise UsageError("the source is empty; give at least one path or pair (name, tensor)")
    if not isinstance(first, str | os.PathLike):
        return from_pairs(chain([first], items))
    paths: list[str | os.PathLike[str]] = [first]
    for path in items:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"a {type(path).__name__} stands among paths; give paths only")
        paths.append(path)
    return from_paths(paths)


def _enumerate(found: Found) -> Weights:
    entries = paired(marked(found.entries), found.scale)
    named = sorted(_named(entries, found.label), key=lambda pair: natural(pair[0]))
    aliases = _aliases(named)
    layers: list[Layer] = []
    others: list[Other] = []
    for name, entry in named:
        if name not in aliases:
            continue
        reason = _why_not_a_layer(entry)
        if reason is None:
            layers.append(_layer(name, entry, tuple(aliases[name])))
        else:
            others.append(
                Other(
                    name=name,
                    shape=entry.shape,
                    dtype=entry.dtype,
                    reason=reason,
                    load=entry.load,
                )
            )
    if not layers:
        raise NoMatrices(f"{found.label} holds no weight matrix; {_instead(others)}")
    return Weights(
        source=found.label, layers=tuple(layers), others=tuple(others), files=found.files
    )


def _layer(name: str, entry: Entry, aliases: tuple[str, ...]) -> Layer:
    axes = len(entry.shape)
    return Layer(
        name=name,
        key=entry.name,
        shape=entry.shape,
        dtype=entry.dtype,
        aliases=aliases,
        load=entry.load,
        factors=entry.factors,
        kind=entry.kind or KINDS.get(axes, f"{axes}-D"),
        note=entry.note,
    )


def _instead(others: Sequence[Other]) -> str:
    """What a source without matrices holds; the format if its weights are quantised."""
    for other in others:
        if "quantised" in other.reason:
            return f"{other.name} is {other.reason}"
    return "found: " + (", ".join(other.name for other in others[:8]) or "nothing")


def _aliases(named: list[tuple[str, Entry]]) -> dict[str, list[str]]:
    """Other names of the same tensor, under the first of its names."""
    first: dict[object, str] = {}
    aliases: dict[str, list[str]] = {}
    for name, entry in named:
        if entry.identity in first:
            aliases[first[entry.identity]].append(name)
        else:
            first[entry.identity] = name
            aliases[name] = []
    return aliases


def _why_not_a_layer(entry: Entry) -> str | None:
    if entry.reason:
        return entry.reason
    if entry.dtype not in FLOATS:
        return f"not floating point ({entry.dtype})"
    if 0 in entry.shape:
        return "empty"
    if len(entry.shape) < 2:
        return "scalar" if not entry.shape else "vector"
    return None


# Names


def _named(entries: Sequence[Entry], label: str) -> list[tuple[str, Entry]]:
    """Entries with their canonical names; with their own where stripping would confuse two."""
    stored = Counter(entry.name for entry in entries)
    twice = next((name for name, count in stored.items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{label} holds the name {_canonical(twice)!r} twice; names must differ")
    names = Counter(_canonical(entry.name) for entry in entries)
    return [
        (entry.name if names[_canonical(entry.name)] > 1 else _canonical(entry.name), entry)
        for entry in entries
    ]


def _canonical(name: str) -> str:
    """Strip what wrappers (DataParallel, torch.compile, FSDP) put in front of names.

    Characters that do not print (terminal escapes, lone surrogates) are spelled out.
    """
    stripped = name
    for wrapper in WRAPPERS:
        while stripped.startswith(wrapper) or f".{wrapper}" in stripped:
            stripped = stripped.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in stripped)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts ``layers.10`` after ``layers.9``."""
    parts = re.split(r"([0-9]+)", name)  # text at even places, digits at odd ones
    numbers = [(0, len(p.lstrip("0")), p.lstrip("0")) for p in parts]  # int() refuses long ones
    return [numbers[i] if i % 2 else (1, 0, p) for i, p in enumerate(parts) if p]
