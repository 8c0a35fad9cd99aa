"""Compression by random projections of a matrix's entries, and the noise that it leaves."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tailor.errors import UsageError
from tailor.stages.measures.chain import Chain

MOST_SIGNS = 10**10  # that one projection may draw: a minute
BLOCK = 1 << 18  # signs at a time: 2 MiB, which stay in the cache

Disturb = Callable[[Tensor, list[Tensor]], list[Tensor]]


def matrix_project(
    matrix: Float[Tensor, "*shape"], count: int, seed: int
) -> Float[Tensor, "*shape"]:
    """Rebuild a matrix from its inner products with random matrices of signs.

    Matrix-Project, algorithm 1 of Arora et al. (2018): (1/k) sum <A, M_l> M_l with independent
    entries +1 and -1. It is unbiased, and E ||B - A||_F^2 = (N - 1) / k ||A||_F^2 for N entries:
    with as many numbers as entries the error is as large as the matrix. The paper's k =
    ln(1/eta) / eps^2 fails more often than eta; each inner product has a variance of up to twice
    its bound, so k has to be about 4 ln(2/eta) / eps^2.

    Args:
        matrix: Of any shape; the result is float64.
        count: Number k of inner products that are kept.
        seed: Of the signs, which a decoder draws again.

    Raises:
        UsageError: The count is not positive, or there would be too many signs to draw.
    """
    size = matrix.numel()
    if count < 1:
        raise UsageError(f"matrix_project keeps at least one inner product, but count is {count}")
    if count * size > MOST_SIGNS:
        raise UsageError(
            f"{count} projections of {size} entries draw {count * size:.1e} signs, more than "
            f"{MOST_SIGNS:.0e}; take fewer, or GaussianNoise for large layers"
        )
    flat = matrix.detach().double().flatten().numpy()
    total = np.zeros(size)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // max(size, 1))
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = np.frombuffer(generator.bytes(rows * -(-size // 8)), dtype=np.uint8)
        bits = np.unpackbits(drawn.reshape(rows, -1), axis=1, count=size)
        signs = bits.astype(np.float64) * 2 - 1
        total += (signs @ flat) @ signs
    return torch.from_numpy(total / count).reshape(matrix.shape)


class Noise(ABC):
    """What disturbs the values of a layer when its smoothness is measured."""

    @abstractmethod
    def drawn(self, chain: Chain, seed: int) -> Disturb:
        """One draw: gives, for inputs and x^1, ..., x^d, what is added to each of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise(Noise):
    """Independent Gaussian noise on each layer's values, of a given size.

    Attributes:
        relative: Its norm over that of the values; 0.1 by default (tuned by us).

    Raises:
        UsageError: The size is not positive.
    """

    relative: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.relative < math.inf:
            raise UsageError(f"relative must be positive, but is {self.relative}")

    def drawn(self, chain: Chain, seed: int) -> Disturb:
        """See ``Noise``."""
        generator = torch.Generator().manual_seed(seed)

        def disturb(inputs: Tensor, values: list[Tensor]) -> list[Tensor]:
            return [self._like(x, generator) for x in values]

        return disturb

    def _like(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        size = self.relative * x.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        scaled: Tensor = noise * size.reshape(-1, *[1] * (x.ndim - 1))
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixProjectNoise(Noise):
    """The errors at each layer when it and all before it are rebuilt by ``matrix_project``.

    Attributes:
        per_weight: Inner products that are kept for each weight. The relative error of a matrix
            is about 1 / sqrt(per_weight); 16 by default (tuned by us).

    Raises:
        UsageError: It is not positive.
    """

    per_weight: float = 16.0

    def __post_init__(self) -> None:
        if not 0 < self.per_weight < math.inf:
            raise UsageError(f"per_weight must be positive, but is {self.per_weight}")

    def drawn(self, chain: Chain, seed: int) -> Disturb:
        """See ``Noise``."""
        rebuilt = []
        for place, link in enumerate(chain):
            W = link.module.weight
            count = math.ceil(self.per_weight * W.numel())
            rebuilt.append(matrix_project(W, count, derived(seed, place)))

        def disturb(inputs: Tensor, values: list[Tensor]) -> list[Tensor]:
            found, x = [], inputs
            for link, W, clean in zip(chain, rebuilt, values, strict=True):
                x = link.follow(x, W)
                found.append(x - clean)
            return found

        return disturb


def derived(*seeds: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))
