"""The smallest of many numbers, exactly so many of them: what all scores have in common."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.scores.score import Drop, NofM, Trimmed


def trimmed(
    matrix: Float[Tensor, "out in"],
    scores: Float[Tensor, "out in"],
    drop: Drop,
    pattern: NofM | None = None,
) -> Trimmed:
    """Drop the entries of smallest score, zeros first; the others stay bit for bit.

    Args:
        matrix: Outputs by inputs.
        scores: A finite number for each entry; the larger the more it matters.
        drop: As for ``Score.prune``.
        pattern: As for ``Score.prune``.
    """
    first = scores.masked_fill(matrix.to(scores.dtype) == 0, -math.inf)
    keep = smallest_dropped(first, drop) if pattern is None else fitted(first, pattern)
    return Trimmed(matrix=zeroed(matrix, keep), keep=keep)


def smallest_dropped(scores: Float[Tensor, "out in"], drop: Drop) -> Bool[Tensor, "out in"]:
    """Which entries stay when exactly so many of the smallest scores go; of equal ones the first.

    Raises:
        UsageError: There are not so many.
    """
    if isinstance(drop, int):
        return _dropped(scores.reshape(1, -1), [drop]).reshape(scores.shape)
    if len(drop) != len(scores):
        raise UsageError(f"a matrix of {len(scores)} rows got {len(drop)} numbers to drop by row")
    return _dropped(scores, [int(one) for one in drop])


def _dropped(scores: Float[Tensor, "rows cols"], drop: list[int]) -> Bool[Tensor, "rows cols"]:
    """The drop-th smallest of each row is its threshold; only equals of it need an order."""
    columns = scores.shape[1]
    wrong = next((one for one in drop if not 0 <= one <= columns), None)
    if wrong is not None:
        raise UsageError(f"{wrong} of {columns} entries cannot be dropped; give 0 to {columns}")
    if not any(drop):
        return torch.ones_like(scores, dtype=torch.bool)
    count = torch.tensor(drop, device=scores.device)[:, None]
    threshold = _ascending(scores).gather(1, (count - 1).clamp(min=0))
    keep = scores > threshold
    surplus = columns - keep.sum(dim=1, keepdim=True) - count
    tied = (surplus > 0).flatten().nonzero().flatten()
    if len(tied):
        rows, cols = (scores[tied] == threshold[tied]).nonzero(as_tuple=True)
        many = rows.bincount(minlength=len(tied))
        place = torch.arange(len(rows), device=rows.device) - (many.cumsum(0) - many)[rows]
        late = place >= (many - surplus[tied, 0])[rows]
        keep[tied[rows[late]], cols[late]] = True
    return keep


def wide(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32, unless it is wider already."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def _ascending(scores: Float[Tensor, "rows cols"]) -> Float[Tensor, "rows cols"]:
    """Each row sorted; on the CPU by numpy, whose sort of bare values is ten times as fast."""
    if scores.device.type != "cpu":
        return scores.sort(dim=1).values
    return torch.from_numpy(np.sort(scores.detach().numpy(), axis=1))


def fitted(scores: Float[Tensor, "out in"], pattern: NofM) -> Bool[Tensor, "out in"]:
    """Which entries stay when each group keeps its ``n`` largest scores.

    Raises:
        UsageError: The inputs are not a multiple of ``m``.
    """
    pattern.check(scores.shape[1])
    groups = scores.reshape(-1, pattern.m)
    order = groups.argsort(dim=1, stable=True)
    keep = torch.ones_like(groups, dtype=torch.bool)
    keep.scatter_(1, order[:, : pattern.m - pattern.n], False)
    return keep.reshape(scores.shape)


def zeroed(
    tensor: Float[Tensor, "*shape"], keep: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """A copy with (positive) zeros where nothing is kept, in any floating type."""
    if tensor.element_size() == 1:  # types of eight bits know no arithmetic
        return tensor.view(torch.uint8).masked_fill(~keep, 0).view(tensor.dtype)
    return tensor.detach().masked_fill(~keep, 0)


def shares(
    total: int | Int[Tensor, "*some"], sizes: Int[Tensor, "*some parts"]
) -> Int[Tensor, "*some parts"]:
    """Split totals in proportion to sizes, in whole numbers, by largest remainder.

    The parts add to the total exactly, and none is larger than its size. Of equal remainders
    the first is served first.
    """
    wanted = torch.as_tensor(total, device=sizes.device)[..., None]
    product, whole = wanted * sizes, sizes.sum(dim=-1, keepdim=True).clamp(min=1)
    parts, rest = product // whole, product % whole
    missing = wanted - parts.sum(dim=-1, keepdim=True)
    place = rest.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return parts + (place < missing)
