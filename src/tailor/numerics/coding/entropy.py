"""Order-0 entropy: what no coder beats that takes symbols one by one, each by the same table."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, Integer
from numpy import ndarray

CHUNK = 1 << 20  # elements


def order0_bits(symbols: Integer[ndarray, "*shape"]) -> float:
    """Empirical entropy of whole numbers times their count, in bits.

    sum over values v of n_v log2(n / n_v), with n_v the number of times that v occurs among n.
    A table of the frequencies is not counted, nor is the end of a coder.
    """
    _, counts = histogram(symbols)
    shares = counts / max(1, symbols.size)
    return float(-(counts * np.log2(shares)).sum()) if len(counts) else 0.0


def histogram(
    values: Integer[ndarray, "*shape"],
) -> tuple[Int64[ndarray, "distinct"], Int64[ndarray, "distinct"]]:
    """Distinct values in rising order, and how often each occurs."""
    flat = values.ravel()
    if flat.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low, high = int(flat.min()), int(flat.max())
    if high - low > max(1 << 12, flat.size):  # too wide to count in place
        distinct, numbers = np.unique(flat, return_counts=True)
        return distinct.astype(np.int64), numbers.astype(np.int64)
    counts = np.zeros(high - low + 1, dtype=np.int64)
    for part in chunks(flat.size):
        offsets = flat[part].astype(np.int64)
        offsets -= low
        counts += np.bincount(offsets, minlength=len(counts))
    present = counts.nonzero()[0]
    return present + low, counts[present]


def chunks(size: int) -> Iterator[slice]:
    """Consecutive parts of an array, small enough to be copied in wide types."""
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))


UNIT = 4096  # of code lengths in whole numbers: so many make a bit
FINE = 14
_LOGARITHMS = np.rint(UNIT * np.log2(1 + np.arange(1 << FINE) / (1 << FINE))).astype(np.int64)


def fixed_log2(numbers: Integer[ndarray, "*shape"] | int) -> Int64[ndarray, "*shape"]:
    """Binary logarithms of whole numbers from 1 up, in 1/UNIT, the same on every platform.

    Exact to a rounding below 2^15, and to 3/UNIT above.
    """
    whole = np.asarray(numbers, dtype=np.int64)
    if whole.size and int(whole.max()) < len(_SMALL):
        return np.asarray(_SMALL[whole])
    return _any_log2(whole)


def _any_log2(whole: Int64[ndarray, "*shape"]) -> Int64[ndarray, "*shape"]:
    exponent = np.frexp(whole.astype(np.float64))[1].astype(np.int64) - 1
    lead = np.where(
        exponent > FINE,
        whole >> np.maximum(exponent - FINE, 0),
        whole << np.maximum(FINE - exponent, 0),
    )
    return np.asarray(exponent * UNIT + _LOGARITHMS[lead - (1 << FINE)])


_SMALL = _any_log2(np.maximum(np.arange(2 << FINE), 1))
