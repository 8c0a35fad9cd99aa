"""Rank correlation of small samples: exact p-value, and an interval that a few points allow."""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from tailor.errors import UsageError

MOST_PERMUTED = 8  # pairs up to which all orders are counted (8! = 40,320)
SHUFFLES = 20_000  # with more pairs
SIMULATIONS = 4_000  # samples for each correlation of the simulated interval
MOST_SIMULATED = 30  # pairs up to which the interval is simulated
GRID = np.tanh(np.linspace(-4, 4, 81))  # correlations at which it is


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCorrelation:
    """Spearman's rank correlation.

    Attributes:
        rho: The correlation of the ranks, ties sharing theirs.
        low: Lower end of the 95 % interval for the rank correlation of the population.
        high: Upper end.
        p: Two-sided p-value of independence, over permutations.
        least_p: The p-value of a perfect order of that many pairs with those ties.
        n: Number of pairs.
    """

    rho: float
    low: float
    high: float
    p: float
    least_p: float
    n: int


def rank_correlation(
    x: Float[ndarray, "n"], y: Float[ndarray, "n"], *, seed: int = 0
) -> RankCorrelation:
    """Spearman's correlation with a permutation p-value and an interval.

    The p-value counts all orders of up to 8 pairs, and random ones of more. The interval of up to
    30 pairs inverts the test: it holds the correlations under which the observed one is in
    neither 2.5 % tail, simulated for normal variables. So a perfect order of four gives a wide
    interval and not a point. With more pairs it is Bonett & Wright's (2000).

    Raises:
        UsageError: Fewer than three pairs, or a variable with one value only.
    """
    if len(x) < 3 or len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        raise UsageError(f"a rank correlation needs three pairs that differ, but got {len(x)}")
    a, b = _standard(_ranks(x)), _standard(_ranks(y))
    rho = float(np.clip(a @ b, -1, 1))
    generator = np.random.default_rng(seed)
    p, least = _p_values(a, b, rho, generator)
    if len(x) > MOST_SIMULATED:
        low, high = _bonett_wright(rho, len(x))
    else:
        low, high = _inverted(rho, len(x), seed)
    return RankCorrelation(rho=rho, low=low, high=high, p=p, least_p=least, n=len(x))


def _ranks(values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """1 to n; equal values share the mean of theirs."""
    below = (values[:, None] > values[None, :]).sum(axis=1)
    equal = (values[:, None] == values[None, :]).sum(axis=1)
    ranks: ndarray = below + (equal + 1) / 2
    return ranks


def _standard(ranks: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Centred, of length one, so that a product is a correlation."""
    centred = ranks - ranks.mean()
    unit: ndarray = centred / np.linalg.norm(centred)
    return unit


def _p_values(
    a: Float[ndarray, "n"], b: Float[ndarray, "n"], rho: float, generator: np.random.Generator
) -> tuple[float, float]:
    n = len(a)
    if n <= MOST_PERMUTED:
        orders = _orders(n)
        extra = 0  # the observed order is among them
    else:
        orders = generator.permuted(np.tile(np.arange(n), (SHUFFLES, 1)), axis=1)
        extra = 1
    strength = np.abs(b[orders] @ a)
    total = float(len(orders) + extra)
    slack = 1e-12
    p = (np.count_nonzero(strength >= abs(rho) - slack) + extra) / total
    best = float(np.sort(a) @ np.sort(b))
    most = max(best, abs(float(np.sort(a) @ np.sort(b)[::-1])))
    least = (np.count_nonzero(strength >= most - slack) + extra) / total
    return float(p), float(min(least, p))


@functools.lru_cache(maxsize=4)
def _orders(n: int) -> Int[ndarray, "orders n"]:
    return np.array(list(itertools.permutations(range(n))))


def _bonett_wright(rho: float, n: int) -> tuple[float, float]:
    """Fisher's transformation with variance (1 + rho^2 / 2) / (n - 3)."""
    if abs(rho) == 1:
        return rho, rho
    spread = 1.959963984540054 * math.sqrt((1 + rho * rho / 2) / (n - 3))
    middle = math.atanh(rho)
    return math.tanh(middle - spread), math.tanh(middle + spread)


def _inverted(rho: float, n: int, seed: int) -> tuple[float, float]:
    """Rank correlations of normal pairs that make the observed one no surprise."""
    seen = _simulated(n, seed)
    above = (seen >= rho - 1e-9).mean(axis=1)
    below = (seen <= rho + 1e-9).mean(axis=1)
    inside = GRID[np.minimum(above, below) > 0.025]
    if len(inside) == 0:
        return rho, rho
    low = -1.0 if inside[0] == GRID[0] else _spearman(inside[0])
    high = 1.0 if inside[-1] == GRID[-1] else _spearman(inside[-1])
    return low, high


@functools.lru_cache(maxsize=4)
def _simulated(n: int, seed: int) -> Float[ndarray, "grid samples"]:
    """Rank correlations of samples of n normal pairs, for each correlation of the grid."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((SIMULATIONS, n))
    noise = generator.standard_normal((SIMULATIONS, n))
    ranks = _unit_ranks(x)
    mixed = (_unit_ranks(r * x + math.sqrt(1 - r * r) * noise) for r in GRID.tolist())
    return np.array([(ranks * other).sum(axis=1) for other in mixed])


def _spearman(r: float) -> float:
    """Of normal variables whose (Pearson's) correlation is r."""
    return 6 / math.pi * math.asin(r / 2)


def _unit_ranks(values: Shaped[ndarray, "samples n"]) -> Float[ndarray, "samples n"]:
    n = values.shape[1]
    ranks = values.argsort(axis=1).argsort(axis=1) - (n - 1) / 2
    unit: ndarray = ranks / math.sqrt(n * (n * n - 1) / 12)
    return unit
