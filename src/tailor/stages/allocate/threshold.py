"""One threshold for the whole network: global magnitude, and LAMP."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import nn

from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.matrices import pieces, sizes_of
from tailor.stages.allocate.shares import check_bounds, check_reach, entries, most_of, total_of
from tailor.stages.allocate.smallest import smallest
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMagnitude(Allocation):
    """As many of each matrix as lie among the smallest weights of the network.

    Exact, of equal weights the first of the first matrix; a matrix is loaded a few times and
    none is held. Weights that are zero are the smallest of all.

    Attributes:
        relative: Compare in units of each matrix's root mean square over its weights that are
            not zero, so that a matrix is not emptied because its weights are small as a whole.
            Otherwise as they are (Han et al. 2015).
        cap: Largest share of a matrix; 1, the rule as it is, still leaves one entry.
    """

    relative: bool = False
    cap: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self.cap)

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``."""
        rule = _relative if self.relative else _plain
        return _under_threshold(repr(self), layers, sparsity, rule, self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class LAMP(Allocation):
    """One threshold for w^2 over the sum of all squares of the matrix from it upwards.

    Layer-adaptive magnitude of Lee et al. (2021): the score is the error that dropping the weight
    makes, relative to what is left of its matrix. The largest weight of each matrix has the
    score 1 and stays.

    Attributes:
        cap: Largest share of a matrix; 1, the rule as it is, still leaves one entry.
    """

    cap: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self.cap)

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``."""
        return _under_threshold(repr(self), layers, sparsity, _lamp, self.cap)


Rule = Callable[[Layer], Iterator[Float64[ndarray, "n"]]]


def _under_threshold(
    method: str, layers: Sequence[Layer], sparsity: float | None, rule: Rule, cap: float
) -> Allocated:
    sizes = entries(layers)
    total = total_of(sizes, sparsity, method)
    most = most_of(sizes, cap)
    count = np.array(list(sizes.values()), dtype=np.float64)
    check_reach(total, int(most.sum()), count, method, cap)
    drop = dropped_below(layers, total, rule, most.tolist())
    return Allocated(method=method, drop=dict(drop), sizes=sizes)


def dropped_below(
    layers: Sequence[Layer], total: int, rule: Rule | None = None, most: Sequence[int] = ()
) -> dict[str, int]:
    """How many of each matrix lie among the ``total`` smallest, by size or by another rule."""
    sizes = entries(layers)
    sources = [lambda layer=layer: (rule or _plain)(layer) for layer in layers]
    found = smallest(sources, list(sizes.values()), total, most or list(sizes.values()))
    return dict(zip(sizes, found, strict=True))


def _plain(layer: Layer) -> Iterator[Float64[ndarray, "n"]]:
    return pieces(sizes_of(layer))


def _relative(layer: Layer) -> Iterator[Float64[ndarray, "n"]]:
    """Sizes over their root mean square without zeros; zeros alone as they are."""
    sizes = sizes_of(layer)
    squares, count = 0.0, 0
    for piece in pieces(sizes):
        positive = torch.from_numpy(piece[piece > 0])
        squares += float((positive**2).sum())
        count += len(positive)
    unit = (squares / count) ** 0.5 if count else 1.0
    for piece in pieces(sizes):
        yield piece / unit


def _lamp(layer: Layer) -> Iterator[Float64[ndarray, "n"]]:
    """The scores of one matrix, rising."""
    squares = np.sort(sizes_of(layer).flatten().numpy()).astype(np.float64) ** 2
    left = np.cumsum(squares[::-1])[::-1]
    yield np.divide(squares, left, out=np.zeros_like(squares), where=left > 0)
