"""The smallest of very many values that lie in several places, counted by place.

No place has to be held while another one is looked at. Doubles from 0 on are in the order of
their bit patterns, so that a histogram of the leading bits tells in which narrow range the
last dropped value lies; when few values lie in it, they are sorted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

Source: TypeAlias = Callable[[], Iterable[Float64[ndarray, "n"]]]

FEW = 1 << 22  # values that are sorted together, 32 MiB
BITS = 20  # that one histogram tells apart; 8 MiB
SIGN = 63  # bits of a double besides its sign


def smallest(
    sources: Sequence[Source], sizes: Sequence[int], drop: int, most: Sequence[int]
) -> list[int]:
    """How many of each source are among the ``drop`` smallest of all, none above its ``most``.

    Where one meets its ``most``, the others lose more instead. Of equal values those of the
    first source go first.

    Args:
        sources: Each gives its values, from 0 on and finite, in pieces, anew at each call.
        sizes: Number of values of each.
        drop: Number that goes, at most the sum of ``most``.
        most: Bound for each.
    """
    counts = list(most)
    free = list(range(len(sources)))
    while free:
        rest = drop - sum(counts[i] for i in range(len(sources)) if i not in set(free))
        found = _smallest([sources[i] for i in free], [sizes[i] for i in free], rest)
        over = {i for i, n in zip(free, found, strict=True) if n > most[i]}
        if not over:
            for i, n in zip(free, found, strict=True):
                counts[i] = n
            break
        free = [i for i in free if i not in over]
    return counts


def _smallest(sources: Sequence[Source], sizes: Sequence[int], drop: int) -> list[int]:
    """The same without bounds."""
    if drop <= 0:
        return [0] * len(sources)
    start, shift, before, inside = 0, SIGN, 0, sum(sizes)
    while inside > FEW and shift > 0:
        shift = max(0, shift - BITS)
        histogram = _histogram(sources, start, shift)
        upto = before + np.cumsum(histogram)
        place = int(np.searchsorted(upto, drop))
        inside = int(histogram[place])
        before = int(upto[place]) - inside
        start += place << shift
    return _counted(sources, start, shift, drop)


def _histogram(sources: Sequence[Source], start: int, shift: int) -> Int64[ndarray, "bins"]:
    """Numbers of values from ``start`` on, by their bits from ``shift`` on."""
    total = np.zeros(1 << BITS, dtype=np.int64)
    for source in sources:
        for piece in source():
            places = (piece.view(np.int64) - start) >> shift
            places = places[(places >= 0) & (places < len(total))]
            total += np.bincount(places, minlength=len(total))
    return total


def _counted(sources: Sequence[Source], start: int, shift: int, drop: int) -> list[int]:
    """Counts by source, given that the last dropped value lies in the range from ``start`` on."""
    below = np.zeros(len(sources), dtype=np.int64)
    values, times, owners = [], [], []
    for owner, source in enumerate(sources):
        for piece in source():
            places = piece.view(np.int64) - start
            below[owner] += int((places < 0).sum())
            inside = places[(places >= 0) & (places >> shift == 0)]
            value, many = np.unique(inside, return_counts=True)
            values.append(value)
            times.append(many)
            owners.append(np.full(len(value), owner))
    value, many, owner_of = map(np.concatenate, (values, times, owners))
    order = np.lexsort((owner_of, value))  # of equal values the first source's first
    many, owner_of = many[order], owner_of[order]
    before = np.cumsum(many) - many
    taken = np.clip(drop - int(below.sum()) - before, 0, many)
    for owner in range(len(sources)):
        below[owner] += int(taken[owner_of == owner].sum())
    counts: list[int] = below.tolist()
    return counts
