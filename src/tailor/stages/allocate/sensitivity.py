"""Shares from measured loss: where pruning hurts least, more goes."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.blocks import blocks
from tailor.stages.allocate.matrices import matrix_of
from tailor.stages.allocate.shares import CAP, check_bounds, entries, share_out, total_of
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer

STEPS = 256  # in which the share of a block grows from 0 to 1; tuned by us


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Allocation):
    """Measures how much each block's pruning alone raises the loss, then equalises the slopes.

    Each block is pruned at two or three shares, the others left whole. Increases between
    neighbouring shares give slopes, made to rise (isotonic regression), with straight lines
    between their middles. Then, step by step, that block loses more weights for which a weight
    costs least. What blocks do to each other is not measured.

    It changes the weights of the model for a while and restores them, also on failure. The
    metric is the measured increase of the loss at the sparsity, or at the share next to it.

    Attributes:
        evaluate: Gives the loss of a model, finite and the same for the same weights; lower is
            better. It is called once, and once for each block and share.
        ratios: The shares, rising, in (0, 1), at least two. None: half the sparsity, the sparsity,
            and the middle between it and the cap (tuned by us).
        cap: Largest share of a matrix.
        floor: Least share of a matrix.

    Raises:
        UsageError: A setting is out of range.
    """

    evaluate: Callable[[nn.Module], float] = field(repr=False)
    ratios: tuple[float, ...] | None = None
    cap: float = CAP
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self.cap, self.floor)
        given = self.ratios
        if given is not None:
            rising = all(a < b for a, b in zip((0.0, *given), (*given, 1.0), strict=True))
            if len(given) < 2 or not rising:
                raise UsageError(f"ratios must be two or more, rising, in (0, 1), but are {given}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; also raises UsageError where a loss is not finite."""
        sizes = entries(layers)
        total = total_of(sizes, sparsity, repr(self))
        _check_shared(layers, model)
        shares = self._shares(sparsity or 0.0)
        block = blocks(list(sizes))
        members: dict[str, list[Layer]] = {}
        for layer in layers:
            members.setdefault(block[layer.name], []).append(layer)
        before = self._loss(model, "the whole model")
        increases = {}
        for name, few in members.items():
            rises = []
            for share in shares:
                with _pruned(few, share, score, inputs or {}):
                    rises.append(self._loss(model, f"{name} pruned by {share:.3g}") - before)
            increases[name] = rises
        counts = {name: sum(sizes[one.name] for one in few) for name, few in members.items()}
        slopes = {name: _Slope(shares, rises) for name, rises in increases.items()}
        ratio = equal_slopes(slopes, counts, float(total), low=self.floor, high=self.cap)
        near = int(np.argmin(np.abs(np.array(shares) - (sparsity or 0.0))))
        return share_out(
            repr(self),
            layers,
            {name: ratio[block[name]] for name in sizes},
            sparsity,
            cap=self.cap,
            floor=self.floor,
            metric={name: increases[block[name]][near] for name in sizes},
        )

    def _shares(self, sparsity: float) -> tuple[float, ...]:
        if self.ratios is not None:
            return self.ratios
        if not 0 < sparsity < self.cap:
            sparsity = self.cap / 2
        return sparsity / 2, sparsity, (sparsity + self.cap) / 2

    def _loss(self, model: nn.Module | None, what: str) -> float:
        loss = float(self.evaluate(model)) if model is not None else float("nan")
        if not np.isfinite(loss):
            raise UsageError(
                f"evaluate gave {loss} for {what}, but slopes need finite losses; bound the loss "
                "or give smaller ratios"
            )
        return loss


class _Slope:
    """Rising slope of the loss of a block, by its share."""

    def __init__(self, shares: Sequence[float], rises: Sequence[float]) -> None:
        at = np.array([0.0, *shares])
        width = np.diff(at)
        self.middles = at[:-1] + width / 2
        slopes = np.diff([0.0, *rises]) / width
        self.slopes = np.maximum(_rising(slopes, width), 0.0)

    def __call__(self, share: float) -> float:
        """Slope at a share; the last line goes on beyond the last middle, the first before it."""
        i = int(np.clip(np.searchsorted(self.middles, share), 1, len(self.middles) - 1))
        x, y = self.middles[i - 1 : i + 1], self.slopes[i - 1 : i + 1]
        return max(0.0, float(y[0] + (share - x[0]) * (y[1] - y[0]) / (x[1] - x[0])))


def equal_slopes(
    slopes: Mapping[str, Callable[[float], float]],
    counts: Mapping[str, int],
    total: float,
    *,
    low: float,
    high: float,
) -> dict[str, float]:
    """Shares of the blocks with counts @ shares = total, found greedily in small steps.

    Args:
        slopes: Rising slope of the cost of each block, by its share.
        counts: Number of entries of each.
        total: Number that goes.
        low: Least share.
        high: Largest share.
    """
    share = dict.fromkeys(slopes, low)
    left = total - low * sum(counts.values())
    costs = [(_cost(slopes, counts, n, low), low, n) for n in slopes if counts[n]]
    heapq.heapify(costs)
    while left > 0 and costs:
        _, at, name = heapq.heappop(costs)
        step = min(1 / STEPS, high - at, left / counts[name])
        share[name] = at + step
        left -= step * counts[name]
        if share[name] < high:
            heapq.heappush(costs, (_cost(slopes, counts, name, share[name]), share[name], name))
    return share


def _cost(
    slopes: Mapping[str, Callable[[float], float]], counts: Mapping[str, int], name: str, at: float
) -> float:
    """What one more weight of a block costs, halfway through the next step."""
    return slopes[name](at + 0.5 / STEPS) / counts[name]


def _rising(values: Float[ndarray, "n"], weights: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """The closest rising values: falling neighbours become their mean, again and again."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m, i), (b, n, j) = pools.pop(-2), pools.pop()
            pools.append(((a * m + b * n) / (m + n), m + n, i + j))
    return np.array([value for value, _, times in pools for _ in range(times)])


def _check_shared(layers: Sequence[Layer], model: nn.Module | None) -> None:
    """Refuse layers that are not the weights of the model, but copies, or computed anew.

    Raises:
        UsageError: There is no model, or a layer shares no memory with its parameters.
    """
    if model is None:
        raise UsageError(
            "Sensitivity measures the loss of a network; give the model, not a file of weights"
        )
    places = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for layer in layers:
        if layer.load().untyped_storage().data_ptr() not in places:
            raise UsageError(
                f"{layer.name} is no plain parameter of the model and cannot be pruned on trial; "
                "leave it out, or remove its parametrization"
            )


@contextmanager
def _pruned(
    layers: Sequence[Layer], share: float, score: Score, inputs: Mapping[str, Inputs]
) -> Iterator[None]:
    """Some matrices with that share of their weights dropped, until the block is left."""
    weights = [layer.load().detach() for layer in layers]
    before = [weight.clone() for weight in weights]
    try:
        for layer, weight in zip(layers, weights, strict=True):
            matrix = matrix_of(layer)
            drop = round(share * matrix.numel())
            trimmed = score.prune(matrix, drop, inputs=inputs.get(layer.name)).matrix
            weight.copy_(trimmed.reshape(weight.shape))
        yield
    finally:
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
