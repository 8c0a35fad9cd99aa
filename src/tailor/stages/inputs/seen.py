"""Sums over what one matrix was multiplied with."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """Sums over all that one matrix was multiplied with; a convolution sees unfolded patches.

    Attributes:
        count: Number of input vectors (tokens, examples or patches).
        squares: Sum of the squares of each input, in float64.
        gram: Sum of the outer products x x^T, in float64, where it was asked for.
    """

    count: int
    squares: Float[Tensor, "inputs"]
    gram: Float[Tensor, "inputs inputs"] | None = None

    def plus(self, other: "Inputs") -> "Inputs":
        """The sums over both; with a Gram matrix if both have one."""
        both = self.gram is not None and other.gram is not None
        return Inputs(
            count=self.count + other.count,
            squares=self.squares + other.squares,
            gram=self.gram + other.gram if both else None,  # type: ignore[operator]
        )
