"""Frobenius norms of the Jacobians between layers, exact or estimated."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tailor.stages.measures.chain import AT_ONCE, Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How norms of Jacobians are found.

    Attributes:
        exact_rows: A layer with at most so many values has its Jacobians computed row by row.
        probes: Random signs for each other one: E ||J' v||^2 = ||J||_F^2 (Hutchinson 1989).
    """

    exact_rows: int
    probes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Squares:
    """Squared Frobenius norms of one Jacobian J^{i,j}, by example.

    Attributes:
        by_pixel: Of its columns at each pixel of layer i; a linear layer has one.
        error: Standard error of the whole; 0 where it was computed row by row.
        exact: Whether it was.
    """

    by_pixel: Float[Tensor, "n pixels"]
    error: Float[Tensor, "n"]
    exact: bool

    @property
    def total(self) -> Float[Tensor, "n"]:
        """||J||_F^2."""
        return self.by_pixel.sum(dim=1)


def jacobian_squares(
    chain: Chain, x: Tensor, counting: Counting, generator: torch.Generator
) -> dict[tuple[int, int], Squares]:
    """Squared norms of J^{i,j} at x^i for all layers i < j, numbered from 0.

    One backward pass for each value of layer j serves every i before it.

    Args:
        chain: The network.
        x: Inputs.
        counting: When to compute and when to estimate.
        generator: Of the signs of estimates.
    """
    values = [chain[0].follow(x).detach().requires_grad_()]
    with torch.enable_grad():
        values += onward_values(chain, values[0])
    found: dict[tuple[int, int], Squares] = {}
    for j in range(1, len(chain)):
        exact = values[j][0].numel() <= counting.exact_rows
        rows = values[j][0].numel() if exact else counting.probes
        sums = [_Sums(values[i]) for i in range(j)]
        for vectors in _vectors(values[j], rows, exact, _block(values[: j + 1], rows), generator):
            slopes = torch.autograd.grad(
                values[j], values[:j], vectors, retain_graph=True, is_grads_batched=True
            )
            for one, slope in zip(sums, slopes, strict=True):
                one.add(slope)
        found |= {(i, j): one.squares(rows, exact) for i, one in enumerate(sums)}
    return found


def onward_values(chain: Chain, x: Tensor) -> list[Tensor]:
    """x^2, ..., x^d with their graph."""
    found = []
    for link in chain[1:]:
        x = link.follow(x)
        found.append(x)
    return found


class _Sums:
    """Sums over rows or probes of the squares of J' v."""

    def __init__(self, values: Tensor) -> None:
        n, self.channels = len(values), values.shape[1]
        self.by_pixel = torch.zeros(n, values[0].numel() // self.channels, dtype=values.dtype)
        self.totals = torch.zeros(n, dtype=values.dtype)
        self.squared = torch.zeros(n, dtype=values.dtype)

    def add(self, slope: Float[Tensor, "k n *features"]) -> None:
        k, n = slope.shape[:2]
        squares = slope.reshape(k, n, self.channels, -1).square().sum(dim=2)  # k x n x pixels
        self.by_pixel += squares.sum(dim=0)
        each = squares.sum(dim=2)
        self.totals += each.sum(dim=0)
        self.squared += each.square().sum(dim=0)

    def squares(self, rows: int, exact: bool) -> Squares:
        if exact:
            return Squares(by_pixel=self.by_pixel, error=torch.zeros_like(self.totals), exact=True)
        mean = self.totals / rows
        variance = (self.squared / rows - mean**2).clamp(min=0) * rows / max(rows - 1, 1)
        return Squares(by_pixel=self.by_pixel / rows, error=(variance / rows).sqrt(), exact=False)


def _block(values: list[Tensor], rows: int) -> int:
    """How many vectors go back at once."""
    return max(1, min(rows, AT_ONCE // max(one.numel() for one in values)))


def _vectors(
    values: Tensor, rows: int, exact: bool, block: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Unit vectors of the layer's values, or random signs."""
    n, size = len(values), values[0].numel()
    for start in range(0, rows, block):
        k = min(block, rows - start)
        if exact:
            vectors = torch.zeros(k, n, size, dtype=values.dtype)
            at = torch.arange(k)
            vectors[at, :, start + at] = 1
        else:
            bits = torch.randint(0, 2, (k, n, size), generator=generator, dtype=torch.int8)
            vectors = bits.to(values.dtype) * 2 - 1
        yield vectors.reshape(k, *values.shape)
