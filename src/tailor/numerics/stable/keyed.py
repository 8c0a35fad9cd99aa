"""Rows of alpha-stable noise whose every entry is a function of a key, a row and a column.

Any rows can be drawn alone, so that processes that hold parts of a matrix agree on the whole. All
kinds have the normalisation exp(-|u|^index) of the characteristic function; at index 2 that is
the normal law of variance 2.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tailor.numerics.counter import Stream, stream
from tailor.numerics.stable.transform import Standard, normals, positive

Kind = Literal["shared", "iid", "rotation"]
Key = tuple[int | str, ...]


def keyed_rows(
    kind: Kind,
    index: float,
    key: Key,
    rows: range,
    columns: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Float[Tensor, "rows columns"]:
    """Noise of types I, II and III of Wan et al. (2024, section 3), for a range of rows.

    Args:
        kind: "shared" (type I): one value for the whole row, given as one column;
            characteristic function exp(-|sum of u|^index). "iid" (II): independent entries,
            exp(-sum of |u_j|^index). "rotation" (III): rotationally invariant,
            exp(-|u|_2^index).
        index: Tail index, in (0, 2].
        key: What the bits depend on besides the place, such as (seed, name, step).
        rows: Consecutive rows.
        columns: Length of a row.
        dtype: torch.float32 or torch.float64.
        device: Where it is drawn; the bits are the same everywhere.
    """
    if kind == "shared":
        return _scalars(Standard(index=index), stream(*key, kind), rows, device).to(dtype)
    if kind == "iid":
        bits = _pairs(stream(*key, kind), rows, columns, dtype, device)
        return Standard(index=index).values(*bits)
    noise = _normal_rows(stream(*key, "normal"), rows, columns, dtype, device)
    if index == 2:
        return noise.mul_(math.sqrt(2))
    # Doubles, since all of a row hangs on this one value.
    bits = _pairs(stream(*key, "length"), rows, 1, torch.float64, device)
    return noise.mul_(positive(index / 2, *bits).mul_(2).sqrt_().to(dtype))


def _scalars(
    law: Standard, bits: Stream, rows: range, device: str | torch.device
) -> Float[Tensor, "rows 1"]:
    return law.values(*_pairs(bits, rows, 1, torch.float64, device))


def _normal_rows(
    bits: Stream, rows: range, columns: int, dtype: torch.dtype, device: str | torch.device
) -> Float[Tensor, "rows columns"]:
    """Standard normal entries; a pair of integers gives two, half a row apart."""
    both = normals(*_pairs(bits, rows, (columns + 1) // 2, dtype, device))
    return torch.cat(both, dim=1)[:, :columns]


def _pairs(
    bits: Stream, rows: range, columns: int, dtype: torch.dtype, device: str | torch.device
) -> tuple[Int[Tensor, "rows columns"], Int[Tensor, "rows columns"]]:
    """Two integers for each place, as ``Standard.values`` takes them."""
    width, each = (torch.int32, 1) if dtype == torch.float32 else (torch.int64, 2)
    words = bits.words(rows.start * columns * each, len(rows) * columns * each, device)
    found = words.view(width).view(len(rows), 2 * columns)
    return found[:, :columns], found[:, columns:]
