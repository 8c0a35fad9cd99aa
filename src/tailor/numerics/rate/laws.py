"""The laws that weights follow about zero."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.errors import UsageError


class Law(ABC):
    """A symmetric law with a density."""

    @abstractmethod
    def log_density(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Natural logarithm of the density at x >= 0."""

    @abstractmethod
    def variance(self) -> float:
        """Its variance, which may be infinite."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> Float[ndarray, "n"]:
        """Independent values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian(Law):
    """The normal law.

    Attributes:
        scale: Standard deviation.
    """

    scale: float = 1.0

    def log_density(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """See ``Law.log_density``."""
        flat: Float[ndarray, "*shape"] = -0.5 * np.square(x / self.scale)
        return flat - math.log(self.scale * math.sqrt(2 * math.pi))

    def variance(self) -> float:
        """See ``Law.variance``."""
        return self.scale**2

    def draw(self, n: int, seed: int) -> Float[ndarray, "n"]:
        """See ``Law.draw``."""
        return self.scale * np.random.default_rng(seed).standard_normal(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace(Law):
    """The two-sided exponential law.

    Attributes:
        scale: Mean size.
    """

    scale: float = 1.0

    def log_density(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """See ``Law.log_density``."""
        return -x / self.scale - math.log(2 * self.scale)

    def variance(self) -> float:
        """See ``Law.variance``."""
        return 2 * self.scale**2

    def draw(self, n: int, seed: int) -> Float[ndarray, "n"]:
        """See ``Law.draw``."""
        return np.random.default_rng(seed).laplace(scale=self.scale, size=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Student(Law):
    """Student's t law.

    Attributes:
        index: Tail index, its degrees of freedom; the variance is infinite up to 2.
        scale: Factor before the standard law.

    Raises:
        UsageError: The index is not positive.
    """

    index: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.index < math.inf:
            raise UsageError(f"a tail index must be a positive number, but is {self.index}")

    def log_density(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """See ``Law.log_density``."""
        power = (self.index + 1) / 2
        # The square of x could overflow far out in a tail, its logarithm cannot.
        far: Float[ndarray, "*shape"] = np.logaddexp(
            0.0, 2 * np.log(np.maximum(x, 1e-300) / self.scale) - math.log(self.index)
        )
        constant = math.lgamma(power) - math.lgamma(self.index / 2)
        return constant - math.log(self.scale * math.sqrt(math.pi * self.index)) - power * far

    def variance(self) -> float:
        """See ``Law.variance``."""
        return self.scale**2 * self.index / (self.index - 2) if self.index > 2 else math.inf

    def draw(self, n: int, seed: int) -> Float[ndarray, "n"]:
        """See ``Law.draw``."""
        return self.scale * np.random.default_rng(seed).standard_t(self.index, n)
