"""Numbers that are no weights as they stand: quantised formats, and 8-bit floats with scales.

A quantised weight is a set of tensors under one name. Each format is recognised by the names of
its tensors; they are listed with the format as the reason and never analyzed, since codes,
zero points and scales have spectra of their own that say nothing about the weight. An 8-bit float
with a scale is the exception: the product is the weight, exactly, and loading forms it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tailor.weights.layer import Loader
from tailor.weights.source.entry import FLOATS, Entry

ADVICE = "analyze the unquantised checkpoint"
BLOCK = 128  # rows and columns that share a scale; DeepSeek-V3 (arXiv:2412.19437), section 3.3.2
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a quantised format stores one weight.

    Attributes:
        name: What people call it.
        codes: Ending of the tensor that holds the codes.
        beside: Endings of which one at least has to stand beside it.
        others: Further endings that belong to it.
    """

    name: str
    codes: str
    beside: tuple[str, ...]
    others: tuple[str, ...] = ()


_NF4, _FP4 = (f".weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
_BITSANDBYTES = tuple(
    f".weight.{part}" for part in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
)

# The first that fits a name wins.
FORMATS = (
    Format(name="GPTQ", codes=".qweight", beside=(".g_idx",), others=(".qzeros", ".scales")),
    Format(name="AWQ", codes=".qweight", beside=(".qzeros", ".scales")),
    Format(
        name="HQQ",
        codes=".W_q",
        beside=(".scale", ".zero", ".meta"),
        others=(".nbits", ".group_size", ".shape", ".axis", ".channel_wise", ".packing"),
    ),
    Format(
        name="EXL2",
        codes=".q_weight",
        beside=(".q_scale",),
        others=(".q_scale_max", ".q_groups", ".q_invperm", ".q_perm"),
    ),
    Format(name="AQLM", codes=".codes", beside=(".codebooks",), others=(".scales",)),
    Format(name="Marlin", codes=".B", beside=(".s",)),
    Format(
        name="compressed-tensors",
        codes=".weight_packed",
        beside=(".weight_scale", ".weight_shape"),
        others=(".weight_zero_point", ".weight_g_idx", ".weight_global_scale"),
    ),
    Format(name="MXFP4", codes="_blocks", beside=("_scales",)),
    Format(name="bitsandbytes 8-bit", codes=".weight", beside=(".SCB",)),
    Format(name="bitsandbytes NF4", codes=".weight", beside=(_NF4,), others=_BITSANDBYTES),
    Format(name="bitsandbytes FP4", codes=".weight", beside=(_FP4,), others=_BITSANDBYTES),
    Format(name="bitsandbytes 4-bit", codes=".weight", beside=_BITSANDBYTES),
    Format(
        name="integer",
        codes=".weight",
        beside=(".weight_scale", ".weight_scale_inv", ".scale_weight"),
        others=(".weight_zero_point", ".weight_scale_2"),
    ),
)
# Where the scale of a float8 tensor "X.weight" or "X" may stand.
SCALES = (".weight_scale_inv", ".weight_scale", ".scale_weight", ".weight.scale")
LOOSE_SCALES = ("_scale_inv", "_scale")


def marked(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with reasons for what is quantised and with scales multiplied."""
    by_name = {entry.name: entry for entry in entries}
    changed: dict[str, Entry] = {}
    for entry in entries:
        if entry.dtype in FLOAT8:
            changed |= _scaled(entry, by_name)
        elif entry.dtype not in FLOATS and not entry.reason:
            changed |= _parts(entry, by_name)
    return [changed.get(entry.name, entry) for entry in entries]


def _parts(entry: Entry, by_name: dict[str, Entry]) -> dict[str, Entry]:
    """The tensors of a quantised weight, each with its reason, if ``entry`` holds its codes."""
    for one in FORMATS:
        base = entry.name.removesuffix(one.codes)
        if base != entry.name and any(base + ending in by_name for ending in one.beside):
            reason = f"{one.name}-quantised: {ADVICE}"
            found = {entry.name: replace(entry, reason=reason)}
            for ending in (*one.beside, *one.others):
                part = by_name.get(base + ending)
                if part is not None:
                    found[part.name] = replace(part, reason=f"part of {entry.name}, {reason}")
            return found
    return {}


# 8-bit floats


def _scaled(entry: Entry, by_name: dict[str, Entry]) -> dict[str, Entry]:
    scale = _scale_of(entry.name, by_name)
    if scale is None or len(entry.shape) < 2:
        return {}
    listed = {scale.name: replace(scale, reason=f"scale of {entry.name}")}
    if not spreads(scale.shape, entry.shape):
        reason = f"float8 with a scale of shape {scale.shape} that cannot be applied: {ADVICE}"
        return listed | {entry.name: replace(entry, reason=reason)}
    load = Scaled(entry.load, scale.load)
    note = f"multiplied by {scale.name}"
    identity = (entry.identity, scale.identity)
    return listed | {entry.name: replace(entry, load=load, note=note, identity=identity)}


def _scale_of(name: str, by_name: dict[str, Entry]) -> Entry | None:
    base = name.removesuffix(".weight")
    tried = [base + ending for ending in SCALES] if base != name else []
    tried += [name + ending for ending in LOOSE_SCALES]
    return next((by_name[one] for one in tried if one in by_name), None)


@dataclass(frozen=True, slots=True)
class Scaled:
    """A loader of stored numbers times their scales, in float32."""

    load: Loader
    scale: Loader

    def __call__(self) -> Tensor:
        """The product."""
        weight = self.load().to(torch.float32)
        return weight.mul_(spread(self.scale().to(torch.float32), tuple(weight.shape)))


def spreads(scale: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether scales of one shape can belong to a weight of another."""
    aligned = _aligned(scale, shape)
    return len(aligned) == len(shape) and all(
        _step(one, size) is not None for one, size in zip(aligned, shape, strict=True)
    )


def spread(scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scales by tensor, row or block, as a tensor that can multiply a weight of this shape."""
    scale = scale.reshape(_aligned(tuple(scale.shape), shape))
    for axis, size in enumerate(shape):
        step = _step(scale.shape[axis], size)
        if step is not None and step > 1 and scale.shape[axis] > 1:
            scale = scale.repeat_interleave(step, dim=axis).narrow(axis, 0, size)
    return scale


def _aligned(scale: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """A single number fits everything; a vector is by rows."""
    if all(size == 1 for size in scale):
        return (1,) * len(shape)
    if len(scale) == 1:
        return scale + (1,) * (len(shape) - 1)
    return scale


def _step(count: int, size: int) -> int | None:
    """How many places share a scale along an axis; None if it does not come out even."""
    if count in (1, size):
        return size if count == 1 else 1
    if 0 < count == -(-size // BLOCK):
        return BLOCK
    step = -(-size // count) if 0 < count < size else 0
    return step if step and -(-size // step) == count else None
