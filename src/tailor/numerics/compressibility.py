"""How few of a layer's weights carry most of its norm, and how few of Gaussian weights would.

A quantity of the sample alone, without a model: it stands next to a tail index and keeps it
honest. Compressibility of *values* says nothing of what a network computes with them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError

# Shares of kept entries at which curves are drawn, dense where few are kept (tuned by us).
KAPPA = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
    *(0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
)
TOLERANCE = 0.1  # relative l2 error, as in the figures of Barsbey et al. (2021)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressibility:
    """How unequal the sizes of weights are.

    Attributes:
        pq_index: I_{1/2, 1} of Diao et al. (2023): 0 if all sizes are equal, towards 1 if few
            weights are all; see ``pq_index``.
        gini: Gini index of the sizes, from 0 to 1; see ``gini``.
        hoyer: Hoyer's sparseness, from 0 to 1; see ``hoyer``.
        kept: Least share of weights with a relative l2 error of at most 0.1, the others set to
            0; one minus it is the share that can be pruned.
        kept_gaussian: The same for very many Gaussian weights, 0.735: only what is below it is
            more than chance.
        kappa: Shares of kept weights.
        error: Relative l2 error at each share.
        gaussian: That of very many Gaussian weights.
        n: Number of weights.
    """

    pq_index: float
    gini: float
    hoyer: float
    kept: float
    kept_gaussian: float
    kappa: tuple[float, ...]
    error: tuple[float, ...]
    gaussian: tuple[float, ...]
    n: int


def compressibility(values: Float[ndarray, "n"], kappa: Sequence[float] = KAPPA) -> Compressibility:
    """Measure a flat sample of weights.

    Args:
        values: The weights, in any order.
        kappa: Shares of kept weights at which the curve is taken, each in (0, 1].

    Raises:
        UsageError: There is no value other than 0, or a value is NaN or infinite, or a share
            lies outside (0, 1].
    """
    size = _sizes(values)
    rest = _rest(size, 2.0)
    return Compressibility(
        pq_index=_pq_index(size, 0.5, 1.0),
        gini=_gini(size),
        hoyer=_hoyer(size),
        kept=_least_kept(rest, TOLERANCE) / len(size),
        kept_gaussian=gaussian_kept(TOLERANCE),
        kappa=tuple(float(share) for share in kappa),
        error=tuple(_errors(rest, 2.0, kappa).tolist()),
        gaussian=tuple(gaussian_best_k_error(float(share)) for share in kappa),
        n=len(size),
    )


def best_k_error(
    values: Float[ndarray, "n"], p: float = 2.0, kappa: Sequence[float] = KAPPA
) -> Float[ndarray, "k"]:
    """Relative best-k error: what is lost, in the l_p norm, if all but k entries become 0.

    min ||x - y||_p / ||x||_p over vectors y with k = floor(kappa n) entries that are not 0; the
    minimum keeps the largest (Gribonval, Cevher & Davies 2012). For independent
    values with infinite E|X|^p it falls to 0 as n grows, however small kappa is; otherwise it
    tends to a positive limit.

    Args:
        values: The vector x, in any order.
        p: Order of the norm, above 0.
        kappa: Shares kept, each in (0, 1].

    Returns:
        The error at each share, from 0 to 1.

    Raises:
        UsageError: There is no value other than 0, or a value is NaN or infinite, or p or a
            share is out of range.
    """
    _check_order(p)
    return _errors(_rest(_sizes(values), p), p, kappa)


def gaussian_best_k_error(kappa: float, p: float = 2.0) -> float:
    """The limit of ``best_k_error`` for very many independent Gaussian values.

    (E[|Z|^p; |Z| <= t] / E|Z|^p)^(1/p) with P(|Z| > t) = kappa (Gribonval, Cevher & Davies
    2012). For p = 2 that is sqrt(1 - kappa - 2 t phi(t)), phi the normal density; for p = 1
    it is 1 - exp(-t^2 / 2).

    Raises:
        UsageError: p is neither 1 nor 2, or kappa lies outside (0, 1].
    """
    _check_shares([kappa])
    if p not in (1, 2):
        raise UsageError(f"the Gaussian error has a closed form for p = 1 and p = 2, not for {p}")
    t = -NormalDist().inv_cdf(kappa / 2) if kappa < 1 else 0.0
    if p == 1:
        return -math.expm1(-(t**2) / 2)
    return math.sqrt(max(0.0, 1 - kappa - 2 * t * NormalDist().pdf(t)))


def gaussian_kept(tolerance: float) -> float:
    """Least share of very many Gaussian values with a relative l2 error of ``tolerance``.

    The inverse of ``gaussian_best_k_error`` for p = 2; 0.735 at a tolerance of 0.1.

    Raises:
        UsageError: The tolerance lies outside (0, 1).
    """
    if not 0 < tolerance < 1:
        raise UsageError(f"the tolerance must lie in (0, 1), but is {tolerance}")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if gaussian_best_k_error(middle) > tolerance:
            low = middle
        else:
            high = middle
    return high


def lp_norm(values: Float[ndarray, "n"], p: float) -> float:
    """(sum |x|^p)^(1/p); a quasi-norm for p below 1, the largest size for p infinite.

    Raises:
        UsageError: p is not above 0, or a value is NaN or infinite.
    """
    _check_order(p)
    size = np.abs(_finite(values))
    largest = float(size.max()) if len(size) else 0.0
    if largest == 0 or math.isinf(p):
        return largest
    return largest * math.pow(float(((size / largest) ** p).sum()), 1 / p)


def pq_index(values: Float[ndarray, "n"], p: float = 0.5, q: float = 1.0) -> float:
    """1 - n^(1/q - 1/p) ||x||_p / ||x||_q, for 0 < p < q.

    Diao et al. (2023), by default with one of their two pairs of orders. It is 0 if all sizes
    are equal and 1 - n^(1/q - 1/p) if one entry is all.

    Raises:
        UsageError: There is no value other than 0, or a value is NaN or infinite, or p and q do
            not rise from above 0.
    """
    if not 0 < p < q < math.inf:
        raise UsageError(f"the PQ index needs 0 < p < q, but got p = {p} and q = {q}")
    return _pq_index(_sizes(values), p, q)


def gini(values: Float[ndarray, "n"]) -> float:
    """Gini index of the sizes: 0 if all are equal, 1 - 1/n if one entry is all.

    Hurley & Rickard (2009), who find it one of only two common measures that have all six
    properties they ask of sparsity.

    Raises:
        UsageError: There is no value other than 0, or a value is NaN or infinite.
    """
    return _gini(_sizes(values))


def hoyer(values: Float[ndarray, "n"]) -> float:
    """(sqrt(n) - ||x||_1 / ||x||_2) / (sqrt(n) - 1), from 0 to 1 (Hoyer 2004); 0 for one value.

    Raises:
        UsageError: There is no value other than 0, or a value is NaN or infinite.
    """
    return _hoyer(_sizes(values))


def _sizes(values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Absolute values in falling order, the largest scaled to 1 so that no power overflows."""
    size = np.sort(np.abs(_finite(values)))[::-1]
    if len(size) == 0 or size[0] == 0:
        raise UsageError(
            f"compressibility needs a value other than 0, but there is none among {len(size)}"
        )
    scaled: ndarray = size / size[0]
    return scaled


def _finite(values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise UsageError("compressibility needs finite values, but some are NaN or infinite")
    return x


def _check_order(p: float) -> None:
    if not p > 0:
        raise UsageError(f"the order p of a norm must be above 0, but is {p}")


def _check_shares(kappa: Sequence[float]) -> None:
    if not all(0 < share <= 1 for share in kappa):
        raise UsageError(f"shares kept must lie in (0, 1], but are {list(kappa)}")


def _rest(size: Float[ndarray, "n"], p: float) -> Float[ndarray, "m"]:
    """Share of sum |x|^p that is not in the k largest, for k = 0, 1, ..., n."""
    from_smallest = np.cumsum(size[::-1] ** p)  # small terms first: no cancellation at the end
    rest: ndarray = np.append(from_smallest[::-1], 0.0) / from_smallest[-1]
    return rest


def _errors(rest: Float[ndarray, "m"], p: float, kappa: Sequence[float]) -> Float[ndarray, "k"]:
    _check_shares(kappa)
    shares = np.asarray(kappa, dtype=np.float64)
    # Without the rounding, 0.29 of 100 entries would be 28.
    kept = np.floor(np.round(shares * (len(rest) - 1), 9)).astype(np.intp)
    errors: ndarray = rest[kept] ** (1 / p)
    return errors


def _least_kept(rest: Float[ndarray, "m"], tolerance: float) -> int:
    """Least k whose relative l2 error is at most the tolerance; rest falls."""
    return int(np.searchsorted(-rest, -(tolerance**2)))


def _pq_index(size: Float[ndarray, "n"], p: float, q: float) -> float:
    # With means in place of sums the power of n is gone, and nothing overflows.
    small, large = float(np.mean(size**p)), float(np.mean(size**q))
    return 1 - math.pow(small, 1 / p) / math.pow(large, 1 / q)


def _gini(size: Float[ndarray, "n"]) -> float:
    n = len(size)
    weight = (np.arange(n) + 0.5) / n  # (n - k + 1/2) / n for the k-th smallest
    return 1 - 2 * float(size @ weight) / float(size.sum())


def _hoyer(size: Float[ndarray, "n"]) -> float:
    root = math.sqrt(len(size))
    ratio = float(size.sum()) / math.sqrt(float(size @ size))
    return (root - ratio) / (root - 1) if len(size) > 1 else 0.0
