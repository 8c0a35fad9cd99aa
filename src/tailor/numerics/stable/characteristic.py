"""The empirical characteristic function, with the covariance of its parts."""

import math

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

_CHUNK = 1 << 14  # values whose sines and cosines are held at once


def characteristic(
    z: Float[ndarray, "n"], u: Float[ndarray, "k"]
) -> tuple[Complex[ndarray, "k"], Float[ndarray, "parts parts"]]:
    """The mean of exp(i u z), and the covariance of the real parts, then imaginary parts, of it.

    The covariance is that of the mean, so it falls as 1 / n.
    """
    total = np.zeros(2 * len(u))
    products = np.zeros((2 * len(u), 2 * len(u)))
    for start in range(0, len(z), _CHUNK):
        angle = np.outer(z[start : start + _CHUNK], u)
        parts = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        total += parts.sum(axis=0)
        products += parts.T @ parts
    mean = total / len(z)
    covariance = (products / len(z) - np.outer(mean, mean)) / len(z)
    return mean[: len(u)] + 1j * mean[len(u) :], covariance


def log_minus_log(
    phi: Complex[ndarray, "k"], covariance: Float[ndarray, "parts parts"]
) -> tuple[Float[ndarray, "k"], Float[ndarray, "k k"]]:
    """log(-log|phi|^2), which for a stable law is linear in log u, and its covariance.

    By the delta method; |phi| must lie strictly between 0 and 1.
    """
    square = np.abs(phi) ** 2
    log = np.log(square)
    weight = 2 / (square * log)
    slope = np.concatenate([np.diag(weight * phi.real), np.diag(weight * phi.imag)], axis=1)
    return np.log(-log), slope @ covariance @ slope.T


def usable(phi: Complex[ndarray, "k"], n: int) -> bool:
    """Whether every modulus is below 1 and stands out from the noise of n values."""
    size = np.abs(phi)
    return bool((size < 1).all() and (size > 2 / math.sqrt(n)).all())
