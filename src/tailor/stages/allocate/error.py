"""Each matrix by itself: as few weights as an error, a deviation or a tail index allow."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.powerlaw import NoFit
from tailor.numerics.stable import Koutrouvelis, StableEstimator, StableFit
from tailor.numerics.stable.largest import k_for_error
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.matrices import PIECE, matrix_of, pieces, refuse_emptied
from tailor.stages.allocate.shares import entries, no_sparsity
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer

# How many entries of a matrix go and the number that this comes from, or why there is none.
Rule: TypeAlias = Callable[[Float[Tensor, "out in"]], tuple[int, float] | str]

SAMPLE = 1 << 20  # weights of which a stable law is fitted
# The law is refused where D is above 1 / sqrt(n), as one in twenty samples of a stable law is, but
# no sooner than at this distance. Tuned by us: Student values with 3 degrees of freedom give 0.010.
LEAST_D = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class ByError(Allocation):
    """As many of each matrix as can go with a relative l2 error of at most ``error``.

    What stays is the fewest weights that hold 1 - error^2 of the sum of squares (the adaptive
    mode of Barsbey et al. 2021, without their centring). No law is assumed. The metric is the
    error itself. A Gaussian matrix loses 0.265 of its weights at an error of 0.1.

    Attributes:
        error: Bound of the relative l2 error of each matrix, in [0, 1); 0.1 as in the figures
            of Barsbey et al.

    Raises:
        UsageError: The error lies outside [0, 1).
    """

    takes_sparsity: ClassVar[bool] = False

    error: float = 0.1

    def __post_init__(self) -> None:
        check_error(self.error)

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the sparsity has to be None."""

        def rule(matrix: Float[Tensor, "out in"]) -> tuple[int, float]:
            return within_error(matrix, self.error)

        return _each(repr(self), layers, sparsity, rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByDeviation(Allocation):
    """All weights of a size of at most ``times`` the standard deviation of their matrix.

    The rule of the program that Shin (2021) released, with the unbiased deviation, and sizes
    from 0, not from the mean. It is no choice of a sparsity: a Gaussian matrix keeps 0.317 of
    its weights, however large it is, and one with tails of index a below 2 about n^(a / 2) of
    n. The metric is the deviation.

    Attributes:
        times: The threshold in standard deviations (1; Shin).

    Raises:
        UsageError: times is below 0 or not finite.
    """

    takes_sparsity: ClassVar[bool] = False

    times: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.times < math.inf:
            raise UsageError(f"times must be at least 0 and finite, but is {self.times}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the sparsity has to be None."""

        def rule(matrix: Float[Tensor, "out in"]) -> tuple[int, float]:
            deviation = _deviation(matrix)
            small = sum(int((abs(p) <= self.times * deviation).sum()) for p in pieces(matrix))
            return small, deviation

        return _each(repr(self), layers, sparsity, rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTailIndex(Allocation):
    """As many as a stable law of the weights' index says can go with an error of ``error``.

    See ``tailor.numerics.stable.largest.k_for_error``. Meant for comparison with ``ByError``,
    which counts instead of trusting a law. A matrix stays whole, and the note says so, where the
    index cannot be told from 2 (finite variance: a fixed share of the weights has to stay) or the
    fitted law is too far from the weights. The metric is the index.

    Attributes:
        error: Relative l2 error, in (0, 1).
        estimator: How the index is estimated, of up to a million weights.

    Raises:
        UsageError: The error lies outside (0, 1).
    """

    takes_sparsity: ClassVar[bool] = False

    error: float = 0.1
    estimator: StableEstimator = field(default_factory=Koutrouvelis)

    def __post_init__(self) -> None:
        check_error(self.error)
        if self.error == 0:
            raise UsageError("error must be above 0: a law of the tail never gives it all")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; raises UsageError if every matrix is refused."""
        return _each(repr(self), layers, sparsity, self._rule)

    def _rule(self, matrix: Float[Tensor, "out in"]) -> tuple[int, float] | str:
        flat = matrix.flatten()
        sample = flat[:: -(-len(flat) // SAMPLE)].to(torch.float64).numpy()
        fit = self.estimator.fit(sample)
        why = _unreliable(fit)
        if why or isinstance(fit, NoFit):
            return why
        return len(flat) - k_for_error(fit.index, self.error, len(flat)), fit.index


def _each(method: str, layers: Sequence[Layer], sparsity: float | None, rule: Rule) -> Allocated:
    """One rule for each matrix by itself.

    Raises:
        UsageError: A matrix would be emptied, or the rule refuses all of them.
    """
    no_sparsity(sparsity, method)
    sizes = entries(layers)
    drop: dict[str, int | tuple[int, ...]] = {}
    metric: dict[str, float] = {}
    refused: dict[str, str] = {}
    for layer in layers:
        matrix = matrix_of(layer)
        found = rule(matrix) if matrix.numel() else (0, 0.0)
        if isinstance(found, str):
            drop[layer.name], refused[layer.name] = 0, found
        else:
            drop[layer.name], metric[layer.name] = found
            refuse_emptied(layer, found[0], int((matrix == 0).sum()), method)
    note = ""
    if refused:
        name, reason = next(iter(refused.items()))
        if len(refused) == len(layers):
            raise UsageError(
                f"{method} finds no number for any matrix, such as {name}: {reason}; use "
                "ByError, which needs no law"
            )
        note = f"{len(refused)} of {len(layers)} matrices stay whole, such as {name}: {reason}"
    return Allocated(method=method, drop=drop, sizes=sizes, metric=metric, note=note)


def check_error(error: float) -> None:
    """Refuse what is no relative error."""
    if not 0 <= error < 1:
        raise UsageError(f"error must lie in [0, 1), but is {error}")


def within_error(matrix: Float[Tensor, "out in"], error: float) -> tuple[int, float]:
    """The largest number of entries that can go with that relative l2 error, and the error."""
    sizes = np.sort(matrix.abs().flatten().numpy())
    largest = float(sizes[-1])
    if largest == 0:
        return len(sizes), 0.0
    parts = [sizes[i : i + PIECE] for i in range(0, len(sizes), PIECE)]
    squares = [float(((part.astype(np.float64) / largest) ** 2).sum()) for part in parts]
    budget, spent, dropped = error**2 * sum(squares), 0.0, 0
    for part, whole in zip(parts, squares, strict=True):
        if spent + whole <= budget:
            spent, dropped = spent + whole, dropped + len(part)
            continue
        upto = spent + np.cumsum((part.astype(np.float64) / largest) ** 2)
        more = int(np.searchsorted(upto, budget, side="right"))
        spent, dropped = float(upto[more - 1]) if more else spent, dropped + more
        break
    return dropped, math.sqrt(spent / sum(squares))


def _unreliable(fit: StableFit | NoFit) -> str:
    """Why an index is not to be relied on; empty if it is."""
    if isinstance(fit, NoFit):
        return fit.reason
    if fit.high >= 2:
        return f"the index {fit.index:.3f} cannot be told from 2, that of a finite variance"
    limit = max(fit.n**-0.5, LEAST_D)
    distance = fit.D
    if distance is not None and distance <= limit:
        return ""
    far = "unknown" if distance is None else f"{distance:.3g}, above {limit:.3g}"
    return f"the weights do not follow a stable law (distance {far})"


def _deviation(matrix: Float[Tensor, "out in"]) -> float:
    """Unbiased standard deviation of all entries; 0 for one entry."""
    n = matrix.numel()
    mean = sum(float(piece.sum()) for piece in pieces(matrix)) / n
    squares = sum(float(((piece - mean) ** 2).sum()) for piece in pieces(matrix))
    return math.sqrt(squares / (n - 1)) if n > 1 else 0.0
