"""Spectra of weight matrices: all eigenvalues, or the largest alone, and what they say."""

from tailor.numerics.spectrum.lowrank import product_core
from tailor.numerics.spectrum.measures import (
    determinant_count,
    entropy,
    positive_floor,
    stable_rank,
)
from tailor.numerics.spectrum.norms import SpectralNorm, frobenius_norm, spectral_norm
from tailor.numerics.spectrum.pooled import Spectrum, spectrum

__all__ = [
    "Spectrum",
    "spectrum",
    "SpectralNorm",
    "spectral_norm",
    "frobenius_norm",
    "product_core",
    "stable_rank",
    "entropy",
    "positive_floor",
    "determinant_count",
]
