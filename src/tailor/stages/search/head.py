"""A linear layer on fixed features, small whole numbers as weights, and its certificate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.bounds import bits_allowed, occam
from tailor.tasks import Data
from tailor.tasks.data import wrong_scores

Bits = Callable[[Int[ndarray, "classes features"]], float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadProblem:
    """Find whole numbers W with a small Occam bound for the classifier argmax W f(x).

    Attributes:
        features: f(x) of each example, in float64.
        labels: Class of each example.
        classes: Number of rows of W.
        bits: Length of W's codeword.
        top: Largest size of a weight.
        paid: Bits for choices outside W.
        delta: Probability with which the bound may fail.
    """

    features: Float[Tensor, "n features"]
    labels: Int[Tensor, "n"]
    classes: int
    bits: Bits
    top: int = 1
    paid: float = 0.0
    delta: float = 0.05
    narrow: Float[Tensor, "n features"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.top < 1 or self.classes < 2 or len(self.features) == 0:
            raise UsageError(
                f"needs examples, 2 classes and a largest weight of 1, but got "
                f"{len(self.features)}, {self.classes} and {self.top}"
            )
        if self.features.dtype != torch.float64:
            raise UsageError(f"features must be float64, but are {self.features.dtype}")
        object.__setattr__(self, "narrow", self.features.to(torch.float32).contiguous())

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of W."""
        return self.classes, self.features.shape[1]

    def data(self) -> Data:
        """Features and labels as examples."""
        return Data(x=self.features, y=self.labels)

    def errors(self, scores: Float[Tensor, "n classes"]) -> int:
        """Errors by scores, ties counted as errors, as ``zero_one`` counts them."""
        return int(wrong_scores(scores, self.labels).sum())

    def length(self, levels: Int[ndarray, "classes features"]) -> float:
        """Bits that the certificate pays for these weights."""
        return self.bits(levels) + self.paid

    def bound(self, errors: int, bits: float) -> float:
        """The Occam bound."""
        return occam(errors, self.n, bits, self.delta).binomial

    def allowed(self, errors: int, bound: float) -> float:
        """Longest code with which so many errors give at most this bound."""
        return bits_allowed(errors, self.n, bound, self.delta) if bound < 1 else -math.inf

    def price(self, errors: int, bits: float) -> float:
        """Bits that one error is worth near this point, the bound held fixed."""
        bound = self.bound(errors, bits)
        fewer = max(0, errors - max(1, errors // 4))
        if bound >= 1 or fewer == errors:
            return 4.0  # about what it is for a thousand examples
        gain = self.allowed(fewer, bound) - self.allowed(errors, bound)
        return gain / (errors - fewer)


def as_levels(weights: Float[Tensor, "classes features"]) -> Int[ndarray, "classes features"]:
    """Whole numbers held as floats, as whole numbers."""
    result: ndarray = weights.numpy().astype(np.int64)
    return result
