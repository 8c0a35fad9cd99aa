"""Upper bounds on a true error rate, computed in the log domain and rounded outward."""

from tailor.numerics.bounds.occam import (
    OccamBound,
    binomial_upper,
    bits_allowed,
    clopper_pearson,
    kl_upper,
    occam,
)

__all__ = [
    "OccamBound",
    "binomial_upper",
    "bits_allowed",
    "clopper_pearson",
    "kl_upper",
    "occam",
]
