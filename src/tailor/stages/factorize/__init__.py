"""Low rank: two thin layers in place of one.

A linear layer becomes ``Sequential(Linear(in, r, bias=False), Linear(r, out))``; a convolution
becomes one of the same kernel to r channels, then one of 1 x 1. That saves parameters and work if
r < m n / (m + n) for a matrix of m outputs and n inputs, below half the side of a square.
"""

from tailor.stages.factorize.layer import Factored
from tailor.stages.factorize.pipeline import Factorized, factorize

__all__ = ["Factored", "Factorized", "factorize"]
