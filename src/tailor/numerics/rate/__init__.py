"""What heavy tails buy: bits a weight at a given error, for the laws that weights follow.

A weight is rounded to the nearest multiple of a step, without a dead zone, and the multiples are
entropy coded. Errors are relative squared errors D: mean squared error over mean square. At small
D every law with a density needs (1/2) log2(1/D) bits plus a constant of its own (Gish & Pierce
1968): 0.25 for the Gaussian law, less for heavier tails, because fewer weights carry the energy.

Laws are symmetric about 0, and the number of Student's law is the **tail index**,
P(|X| > x) ~ x^-index (its degrees of freedom).
"""

from tailor.numerics.rate.curves import (
    SampledRate,
    gaussian_limit,
    kept,
    rate,
    sampled_rate,
    shannon_lower_bound,
)
from tailor.numerics.rate.laws import Gaussian, Laplace, Law, Student
from tailor.numerics.rate.predicted import Predicted, predicted_bits

__all__ = [
    "Gaussian",
    "Laplace",
    "Law",
    "Predicted",
    "SampledRate",
    "Student",
    "gaussian_limit",
    "kept",
    "predicted_bits",
    "rate",
    "sampled_rate",
    "shannon_lower_bound",
]
