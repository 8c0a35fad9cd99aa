"""Low-rank adapters (LoRA, arXiv:2106.09685): two thin factors stand for one matrix.

The update of a layer is scale * B @ A. The scale is lora_alpha / r (section 4.1 there), or
lora_alpha / sqrt(r) when rank-stabilised (arXiv:2312.03732); it is a setting of the training
that stands beside the factors, in ``adapter_config.json``, in a tensor ``alpha``, or nowhere.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tailor.errors import SourceError
from tailor.weights.layer import Loader
from tailor.weights.source.entry import FLOATS, Entry, Scale
from tailor.weights.source.place import Place

CONFIG = "adapter_config.json"
CONFIG_LIMIT = 10_000_000  # bytes
# (mark of A, mark of B, whether both are stored transposed, as peft does for embeddings)
MARKS = (
    (".lora_A", ".lora_B", False),
    (".lora_a", ".lora_b", False),
    (".lora_down", ".lora_up", False),
    (".lora.down", ".lora.up", False),
    (".lora_linear_layer.down", ".lora_linear_layer.up", False),
    (".lora_embedding_A", ".lora_embedding_B", True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A picklable loader of (left, right), whose product is the scaled update.

    Attributes:
        down: Loads A, of shape (rank, inputs, ...).
        up: Loads B, of shape (outputs, rank, ...).
        scale: Goes into the left factor.
        turned: For an embedding the product is transposed: one row for each token.
    """

    down: Loader
    up: Loader
    scale: float
    turned: bool

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Both factors as matrices."""
        down, up = (_computable(load()).flatten(1) for load in (self.down, self.up))
        return (self.scale * down.T, up.T) if self.turned else (self.scale * up, down)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A loader of the dense update."""

    factors: Factors
    shape: tuple[int, ...]

    def __call__(self) -> Tensor:
        """The product in its shape."""
        left, right = self.factors()
        return (left @ right).reshape(self.shape)


def _computable(tensor: Tensor) -> Tensor:
    """At least float32, since 8 and 16 bits lose what the scale multiplies."""
    return tensor if tensor.dtype is torch.float64 else tensor.to(torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    base: str
    adapter: str
    down: Entry
    up: Entry
    turned: bool


def paired(entries: Sequence[Entry], scale: Scale | None) -> list[Entry]:
    """The entries, with one more for each pair of factors; the factors say what they are."""
    by_name = {entry.name: entry for entry in entries}
    pairs = [pair for entry in entries if (pair := _pair(entry, by_name)) is not None]
    several = {pair.base for pair in pairs if sum(one.base == pair.base for one in pairs) > 1}
    changed: dict[str, Entry] = {}
    for pair in pairs:
        whole = f"{pair.base}.{pair.adapter}" if pair.base in several else pair.base
        whole = whole if whole and whole not in by_name else f"{whole}.lora".removeprefix(".")
        made = _product(pair, whole, by_name, scale)
        changed[made.name] = made
        for factor in (pair.down, pair.up):
            changed[factor.name] = replace(factor, reason=f"LoRA factor of {whole}")
        alpha = by_name.get(f"{pair.base}.alpha")
        if alpha is not None:
            changed[alpha.name] = replace(alpha, reason=f"LoRA scale of {whole}")
    return [*(changed.pop(entry.name, entry) for entry in entries), *changed.values()]


def _pair(entry: Entry, by_name: dict[str, Entry]) -> _Pair | None:
    """The pair that ``entry`` is the A of."""
    weight = ".weight" if entry.name.endswith(".weight") else ""
    stem = "." + entry.name.removesuffix(".weight")
    for down, up, turned in MARKS:
        base, mark, adapter = stem.rpartition(down)
        if mark and (not adapter or re.fullmatch(r"\.[^.]+", adapter)):
            other = by_name.get(f"{base}{up}{adapter}{weight}".removeprefix("."))
            if other is not None and _fit(entry, other):
                return _Pair(
                    base=base.removeprefix("."),
                    adapter=adapter.removeprefix("."),
                    down=entry,
                    up=other,
                    turned=turned,
                )
    return None


def _fit(down: Entry, up: Entry) -> bool:
    """Whether B @ A exists; the B of a convolution must have a kernel of one place."""
    return (
        not (down.reason or up.reason)
        and {down.dtype, up.dtype} <= set(FLOATS)
        and len(down.shape) >= 2
        and len(up.shape) >= 2
        and 0 not in (*down.shape, *up.shape)
        and down.shape[0] == up.shape[1]
        and math.prod(up.shape[2:]) == 1
    )


def _product(pair: _Pair, name: str, by_name: dict[str, Entry], scale: Scale | None) -> Entry:
    rank = pair.down.shape[0]
    known = _known_scale(pair, rank, by_name, scale)
    factors = Factors(
        down=pair.down.load,
        up=pair.up.load,
        scale=1.0 if known is None else known,
        turned=pair.turned,
    )
    outputs, inputs = pair.up.shape[0], pair.down.shape[1:]
    shape = (*inputs, outputs) if pair.turned else (outputs, *inputs)
    note = f"rank {rank}, " + (
        f"no scale is known ({CONFIG} is missing), so 1" if known is None else f"scale {known:.6g}"
    )
    dora = f"{pair.base}.lora_magnitude_vector"
    if any(one.startswith(dora) for one in by_name):
        note += "; the magnitudes of DoRA are not applied"
    return Entry(
        name=name,
        shape=shape,
        dtype=pair.up.dtype,
        identity=(pair.down.identity, pair.up.identity),
        load=Product(factors=factors, shape=shape),
        kind="lora",
        note=note,
        factors=factors,
    )


def _known_scale(
    pair: _Pair, rank: int, by_name: dict[str, Entry], scale: Scale | None
) -> float | None:
    alpha = by_name.get(f"{pair.base}.alpha")
    if alpha is not None and math.prod(alpha.shape) == 1:
        return float(alpha.load()) / rank
    return None if scale is None else scale(pair.base, pair.adapter, rank)


# The settings of an adapter


def configured(config: Place) -> Scale:
    """The scale that the settings in ``adapter_config.json`` of peft ask for."""
    try:
        if config.size() > CONFIG_LIMIT:
            raise ValueError("it is too long")
        with config.open() as file:
            told: dict[str, Any] = dict(json.loads(file.read()))
        alpha, stabilised = float(told["lora_alpha"]), bool(told.get("use_rslora"))
        own = {str(key): float(value) for key, value in (told.get("alpha_pattern") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{config} is no configuration of LoRA: it needs lora_alpha") from error
    rules = [(_rule(key, config), value) for key, value in own.items()]

    def scale(layer: str, adapter: str, rank: int) -> float:
        chosen = next((value for fits, value in rules if fits(layer)), alpha)
        return chosen / (math.sqrt(rank) if stabilised else rank)

    return scale


def _rule(key: str, config: Place) -> Callable[[str], bool]:
    """Whether a layer is meant by a key of ``alpha_pattern``.

    A key is the end of a layer's name, or the whole after a ``^``. Other regular expressions
    are refused, since a hostile one can take for ever.
    """
    plain = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.-]+", plain):
        raise SourceError(
            f"{config} has the pattern {key!r} in alpha_pattern, which is not read; "
            "write the names of the layers there"
        )

    def fits(layer: str) -> bool:
        name = layer.removeprefix("base_model.model.")
        return name == plain or (not key.startswith("^") and name.endswith("." + plain))

    return fits
