"""The bounds once more, by other sums than those of the library."""

import math

import numpy as np


def binomial_upper(k: int, n: int, log_level: float) -> float:
    """Largest p with ln P(Bin(n, p) <= k) >= log_level, by bisection."""
    if k >= n:
        return 1.0
    j = np.arange(1, k + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log((n - j + 1) / j))])
    j = np.arange(k + 1)
    low, high = 0.0, 1.0
    for _ in range(200):
        p = (low + high) / 2
        if not low < p < high:
            break
        terms = choose + j * math.log(p) + (n - j) * math.log1p(-p)
        tail = terms.max() + math.log(np.exp(terms - terms.max()).sum())
        low, high = (low, p) if tail < log_level else (p, high)
    return high


def kl_upper(q: float, c: float) -> float:
    """Largest p with q ln(q/p) + (1-q) ln((1-q)/(1-p)) <= c, by bisection."""
    own = (q * math.log(q) if q else 0.0) + ((1 - q) * math.log1p(-q) if q < 1 else 0.0)
    low, high = q, 1.0
    for _ in range(200):
        p = (low + high) / 2
        if not low < p < high:
            break
        between = own - q * math.log(p) - (1 - q) * math.log1p(-p)
        low, high = (low, p) if between > c else (p, high)
    return high
