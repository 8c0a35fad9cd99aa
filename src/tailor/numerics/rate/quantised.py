"""A law on the multiples of a step: entropy and error, by numerical integration."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.rate.laws import Law

CELLS = 512  # cells one by one; beyond them the density is taken as flat in each
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def rate_at(law: Law, lost: float) -> float:
    """Bits at the step that loses that much (a mean square), by the rule of false position."""
    if lost >= law.variance():
        return 0.0
    low, high = (math.log(math.sqrt(lost) * factor) for factor in (0.5, 4.0))
    while _quantised(law, math.exp(high))[1] < lost:
        high += math.log(4)
    under, over = (math.log(_quantised(law, math.exp(at))[1] / lost) for at in (low, high))
    for trial in range(100):
        share = -under / (over - under) if trial % 3 else 0.5
        middle = low + min(max(share, 0.01), 0.99) * (high - low)
        bits, found = _quantised(law, math.exp(middle))
        excess = math.log(found / lost)
        if abs(excess) < 1e-9 or high - low < 1e-12:
            break
        if excess < 0:
            low, under = middle, excess
        else:
            high, over = middle, excess
    return bits


def _quantised(law: Law, step: float) -> tuple[float, float]:
    """Entropy in bits and mean squared error on the multiples of a step."""
    bits = lost = 0.0
    inside = below(law, step / 2, 0)
    if inside > 0:
        bits -= inside * math.log2(inside)
    lost += below(law, step / 2, 2)
    edges = (np.arange(1, CELLS + 2) - 0.5) * step
    centres = np.arange(1, CELLS + 1)[:, None] * step
    share = 2 * integrals(lambda x: np.exp(law.log_density(x)), edges)
    share = share[share > 0]
    bits += float((share * (1 - np.log2(share))).sum())  # each of the two sides has half of it
    lost += 2 * float(
        integrals(lambda x: np.square(x - centres) * np.exp(law.log_density(x)), edges).sum()
    )
    far = edges[-1] * 2.0 ** np.arange(0, 160, 0.5)

    bits += surprise(law, far, step)
    lost += step**2 / 6 * float(integrals(lambda x: np.exp(law.log_density(x)), far).sum())
    return bits, lost


def surprise(law: Law, edges: Float[ndarray, "p"], unit: float = 1.0) -> float:
    """-2 times the integral of f log2(unit f) over x >= 0, f the density, from edge to edge."""

    def integrand(x: ndarray) -> ndarray:
        logs = law.log_density(x)
        seen: ndarray = np.exp(logs) * (np.maximum(logs, -1e4) + math.log(unit))
        return seen

    return -2 * float(integrals(integrand, edges).sum()) / math.log(2)


def below(law: Law, size: float, power: int) -> float:
    """E[|X|^power; |X| <= size]."""
    edges = size * np.concatenate([[0.0], 2.0 ** np.arange(-60, 0.25, 0.5)])
    return 2 * float(integrals(lambda x: x**power * np.exp(law.log_density(x)), edges).sum())


def integrals(
    function: Callable[[ndarray], ndarray], edges: Float[ndarray, "edges"]
) -> Float[ndarray, "p"]:
    """Integrals between neighbouring edges, by Gauss and Legendre with 16 nodes each."""
    half = np.diff(edges)[:, None] / 2
    nodes = edges[:-1, None] + half * (1 + NODES)
    result: ndarray = (function(nodes) * half) @ WEIGHTS
    return result
