"""One matrix of a model in training, and what penalties ask about it; each solved once a step."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from tailor.errors import NonFinite
from tailor.numerics.spectrum.top import WARM_UP, Top, follow, start_block

Memory: TypeAlias = dict[str, Tensor]  # what a method keeps of a matrix from step to step

WIDE_SIDE = 128  # up to this side the Gram matrix is formed in float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """All eigenvalues of the Gram matrix of the smaller side, and its eigenvectors.

    Attributes:
        eigenvalues: Squared singular values, largest first, in float64 or float32.
        vectors: Column i belongs to eigenvalue i.
    """

    eigenvalues: Float[Tensor, "side"]
    vectors: Float[Tensor, "side side"]


class LiveMatrix:
    """A matrix as a penalty sees it at one step.

    Attributes:
        name: Name of the weight, and of the part of it where a view makes several.
        W: Its entries in float32 or float64, outside the graph; not to be changed.
        solver: What following the top vectors keeps of this matrix.
        memory: What the penalty that looks at it keeps of this matrix; it may add entries.
    """

    def __init__(self, name: str, W: Float[Tensor, "rows columns"], solver: Memory) -> None:
        self.name, self.W, self.solver = name, W, solver
        self.memory: Memory = {}

    @cached_property
    def squares(self) -> Float[Tensor, ""]:
        """The squared Frobenius norm."""
        total: Tensor = torch.linalg.vector_norm(self.W).square()
        return total

    @cached_property
    def top(self) -> Top:
        """The largest singular value and its vectors, by a block that follows them."""
        block = self.solver.get("block")
        if block is None:
            block, iterations = start_block(self.W, self.name), WARM_UP
        else:
            block, iterations = block.to(self.W), 1
        try:
            top, self.solver["block"] = follow(self.W, block, iterations)
        except LinAlgError as error:
            raise self._spoilt() from error
        return top

    @cached_property
    def spectrum(self) -> Spectrum:
        """Every eigenvalue of the smaller Gram matrix."""
        W = self.W.double() if min(self.W.shape) <= WIDE_SIDE else self.W
        gram = W.T @ W if self.tall else W @ W.T
        try:
            eigenvalues, vectors = torch.linalg.eigh(gram)
        except LinAlgError as error:
            raise self._spoilt() from error
        return Spectrum(eigenvalues=eigenvalues.flip(0).clamp(min=0), vectors=vectors.flip(1))

    def _spoilt(self) -> NonFinite:
        return NonFinite(
            f"{self.name} holds NaN or infinity, so its singular values cannot be found; training "
            "has diverged: lower the learning rate or the penalty's weight"
        )

    @property
    def tall(self) -> bool:
        """Whether the smaller side is that of the columns."""
        return self.W.shape[0] > self.W.shape[1]
