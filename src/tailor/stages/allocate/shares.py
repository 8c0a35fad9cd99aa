"""From shares to counts: proportional, between a floor and a cap, and exact in total."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated
from tailor.weights.layer import Layer

# Share of a matrix that may go. Tuned by us: the formula of AlphaPruning asks for up to 1.06 of a
# block of LLaMA-7B at 80 %, and their program then zeroes the block.
CAP = 0.99


def entries(layers: Sequence[Layer]) -> dict[str, int]:
    """Number of entries of each matrix by name.

    Raises:
        UsageError: There is none, or two have one name.
    """
    if not layers:
        raise UsageError("there is no matrix to prune; choose layers that the model has")
    sizes = {layer.name: math.prod(layer.shape) for layer in layers}
    if len(sizes) < len(layers):
        raise UsageError(f"{len(layers)} layers have only {len(sizes)} names; give each its own")
    return sizes


def check_bounds(cap: float, floor: float = 0.0) -> None:
    """Refuse bounds of a ratio that are none."""
    if not 0 <= floor < cap <= 1:
        raise UsageError(f"a floor and a cap need 0 <= floor < cap <= 1, but are {floor} and {cap}")


def share_out(
    method: str,
    layers: Sequence[Layer],
    ratios: Mapping[str, float],
    sparsity: float | None,
    *,
    cap: float,
    floor: float = 0.0,
    metric: Mapping[str, float] | None = None,
    note: str = "",
) -> Allocated:
    """Counts in proportion to the ratios, with exactly ``round(sparsity * all entries)`` in total.

    What is above the cap goes to the matrices below it, in proportion, until none is above; so
    it is with the floor.

    Args:
        method: The allocation, as text.
        layers: The matrices.
        ratios: Shares of each matrix that should go, by name, up to a common factor.
        sparsity: Share of all entries that goes.
        cap: Largest share of a matrix; at least one entry stays in any case.
        floor: Least share of a matrix.
        metric: What the ratios come from.
        note: What a user has to know.

    Raises:
        UsageError: As for ``total_of``, or the sparsity is not between what floor and cap allow.
    """
    sizes = entries(layers)
    total = total_of(sizes, sparsity, method)
    count = np.array(list(sizes.values()), dtype=np.float64)
    rates = np.array([max(ratios[name], 0.0) for name in sizes], dtype=np.float64)
    most = most_of(sizes, cap)
    high = most / np.maximum(count, 1)
    low = np.minimum(floor, high)
    reach = int(most[rates > 0].sum()) + int(np.floor(low * count)[rates == 0].sum())
    check_reach(total, reach, count, method, cap)
    least = float(low @ count)
    if total < least - 0.5:
        raise UsageError(
            f"a sparsity of {sparsity} is below the floor {floor}, at which {method} drops "
            f"{least / count.sum():.4f} of all entries; lower the floor"
        )
    exact = fill(rates, count, float(max(total, least)), low=low, high=high)
    drop = apportion(exact * count, total, most)
    return Allocated(
        method=method,
        drop=dict(zip(sizes, drop.tolist(), strict=True)),
        sizes=sizes,
        metric=dict(metric or {}),
        note=note,
    )


def total_of(sizes: Mapping[str, int], sparsity: float | None, method: str) -> int:
    """How many entries go in all.

    Raises:
        UsageError: The sparsity is missing or not in [0, 1).
    """
    if sparsity is None:
        raise UsageError(f"{method} shares out a given sparsity; give one, such as 0.5")
    if isinstance(sparsity, bool | str) or not 0 <= sparsity < 1:
        raise UsageError(f"sparsity must be a number in [0, 1), but is {sparsity!r}")
    return round(sparsity * sum(sizes.values()))


def no_sparsity(sparsity: float | None, method: str) -> None:
    """Refuse a sparsity where the allocation finds its own."""
    if sparsity is not None:
        raise UsageError(f"{method} finds its own sparsity, so give None, not {sparsity}")


def most_of(sizes: Mapping[str, int], cap: float) -> Int[ndarray, "n"]:
    """How many entries each matrix may lose: up to the cap, and never the last one."""
    most = [max(0, min(math.floor(cap * size + 1e-9), size - 1)) for size in sizes.values()]
    return np.array(most, dtype=np.int64)


def check_reach(
    total: int, reach: int, count: Float[ndarray, "n"], method: str, cap: float
) -> None:
    """Refuse to drop more than the matrices can lose, and say how much they can."""
    if total > reach:
        largest = math.floor(1e4 * reach / count.sum()) / 1e4
        raise UsageError(
            f"{method} can drop at most {largest:.4f} of all entries with the cap {cap}, but "
            f"{total / count.sum():.4f} was asked for; lower the sparsity or raise the cap"
        )


def fill(
    rates: Float[ndarray, "n"],
    weights: Float[ndarray, "n"],
    total: float,
    *,
    low: Float[ndarray, "n"],
    high: Float[ndarray, "n"],
) -> Float[ndarray, "n"]:
    """The values min(max(c rates, low), high), with the c for which weights @ values = total.

    The sum is piecewise linear in c and rises, so it is solved exactly between two of its kinks.
    This is what capping and sharing the surplus out in proportion, again and again, ends with.
    """
    active = rates > 0
    kinks = np.unique(np.concatenate([low[active] / rates[active], high[active] / rates[active]]))

    def values(c: float) -> Float[ndarray, "n"]:
        clipped: ndarray = np.minimum(np.maximum(c * rates, low), high)
        return clipped

    first, last = 0, len(kinks) - 1
    while first < last:  # the last kink at which the sum is not above the total
        half = (first + last + 1) // 2
        if float(weights @ values(kinks[half])) > total:
            last = half - 1
        else:
            first = half
    if not len(kinks) or first + 1 == len(kinks):
        return values(kinks[first] if len(kinks) else 0.0)
    middle = (kinks[first] + kinks[first + 1]) / 2  # away from the kinks, where rounding decides
    moving = (middle * rates > low) & (middle * rates < high)
    fixed = float(weights[~moving] @ values(middle)[~moving])
    slope = float(weights[moving] @ rates[moving])
    found = values(middle)
    if slope > 0:
        found[moving] = (total - fixed) / slope * rates[moving]
    return found


def apportion(exact: Float[ndarray, "n"], total: int, most: Int[ndarray, "n"]) -> Int[ndarray, "n"]:
    """Whole numbers near the exact ones, with the given total and none above ``most``.

    Each is rounded down; the largest fractional parts, of equal ones the first, get one more
    (the method of largest remainders).
    """
    whole: ndarray = np.minimum(np.floor(exact).astype(np.int64), most)
    order = np.argsort(-(exact - whole), kind="stable")
    while (rest := total - int(whole.sum())) > 0:
        room = order[whole[order] < most[order]]
        whole[room[:rest]] += 1
    return whole
