"""Weights from weights: a selection, a difference; and what tells one source from another."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from tailor.errors import NoMatrices, SourceError, UsageError
from tailor.weights.layer import Layer, Loader, Other, Weights
from tailor.weights.source.place import place

CHUNK = 2**22  # numbers that are subtracted at a time


def select(
    weights: Weights, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> Weights:
    """Keep the layers that fit a pattern; the rest goes to ``others``.

    Args:
        weights: From ``read``.
        include: Patterns of canonical names, as in a shell (``*``, ``?``, ``[...]``); one that
            fits is enough.
        exclude: Patterns of names to leave out all the same.

    Raises:
        UsageError: No layer is left.
    """
    included = (include,) if isinstance(include, str) else tuple(include)
    excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)

    def fits(layer: Layer) -> bool:
        wanted = any(fnmatchcase(layer.name, one) for one in included)
        return wanted and not any(fnmatchcase(layer.name, one) for one in excluded)

    kept = tuple(layer for layer in weights.layers if fits(layer))
    if not kept:
        names = ", ".join(layer.name for layer in weights.layers[:8])
        but = f" without {', '.join(excluded)}" if excluded else ""
        raise UsageError(f"no layer fits {', '.join(included)}{but}; there are: {names}")
    left = tuple(_other(layer, "not selected") for layer in weights.layers if not fits(layer))
    return replace(weights, layers=kept, others=(*weights.others, *left))


def difference(a: Weights, b: Weights) -> Weights:
    """The layers of ``a`` minus those of ``b``, such as a finetuned model minus its base.

    Layers match by shape and by name, also by the other names of a tied weight; what has no
    match goes to ``others`` with the reason. Each difference is formed in float64 and given in
    float32.

    Raises:
        NoMatrices: No layer has a match.
    """
    there = {name: layer for layer in b.layers for name in (*layer.aliases, layer.name)}
    here = {name for layer in a.layers for name in (*layer.aliases, layer.name)}
    layers: list[Layer] = []
    others: list[Other] = list(a.others)
    for layer in a.layers:
        known = (layer.name, *layer.aliases)
        other = next((there[name] for name in known if name in there), None)
        if other is None:
            others.append(_other(layer, f"not in {b.source}"))
        elif other.shape != layer.shape:
            reason = f"of shape {layer.shape} here, but {other.shape} in {b.source}"
            others.append(_other(layer, reason))
        else:
            layers.append(_minus(layer, other))
    here |= {other.name for other in others}
    for layer in b.layers:
        if not here & {layer.name, *layer.aliases}:
            others.append(_other(layer, f"not in {a.source}"))
    if not layers:
        raise NoMatrices(
            f"{a.source} and {b.source} have no layer of equal name and shape; they begin with "
            f"{a.layers[0].name} and {b.layers[0].name}"
        )
    files = (*a.files, *b.files) if a.files and b.files else ()
    source = f"{a.source} minus {b.source}"
    return Weights(source=source, layers=tuple(layers), others=tuple(others), files=files)


def _other(layer: Layer, reason: str) -> Other:
    return Other(
        name=layer.name, shape=layer.shape, dtype=layer.dtype, reason=reason, load=layer.load
    )


def _minus(a: Layer, b: Layer) -> Layer:
    notes = [f"{one.note} ({side})" for one, side in ((a, "first"), (b, "second")) if one.note]
    return replace(
        a,
        dtype="float32",
        load=Minus(a.name, a.load, b.load),
        factors=None,
        note="; ".join(["difference", *notes]),
    )


@dataclass(frozen=True, slots=True)
class Minus:
    """A loader of a difference; beside both tensors it needs the result and a piece of it."""

    name: str
    first: Loader
    second: Loader

    def __call__(self) -> Tensor:
        """The first tensor minus the second."""
        a, b = (load().detach().to("cpu") for load in (self.first, self.second))
        if a.shape != b.shape:
            raise SourceError(f"{self.name} changed its shape while it was read")
        out = torch.empty(a.shape, dtype=torch.float32)
        rows = max(1, CHUNK // max(1, a[0].numel()))
        for i in range(0, len(a), rows):
            piece = slice(i, i + rows)
            out[piece] = a[piece].to(torch.float64) - b[piece].to(torch.float64)
        return out


def fingerprint(weights: Weights) -> str | None:
    """What tells this source from another without reading it, so that a run can be resumed.

    It covers names, shapes, types and what was done to the numbers, and for each file its
    length and the time of its last change.

    Returns:
        A hash; None for tensors in memory, whose numbers may change at any time.

    Raises:
        SourceError: A file is gone.
    """
    if not weights.files:
        return None
    told: list[object] = [
        [one.name, one.key, one.shape, one.dtype, one.note] for one in weights.layers
    ]
    for file in weights.files:
        try:
            told.append(place(file).stamp())
        except OSError as error:
            raise SourceError(f"{file} cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
