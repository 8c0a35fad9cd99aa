"""Allocations that look at no weight: what every cleverer one has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.blocks import blocks, in_order
from tailor.stages.allocate.shares import (
    CAP,
    apportion,
    check_bounds,
    check_reach,
    entries,
    fill,
    most_of,
    share_out,
    total_of,
)
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformAllocation(Allocation):
    """The same share of every matrix.

    Attributes:
        cap: Largest share; only small matrices meet it, of which at least one entry stays.
    """

    cap: float = CAP

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
        ratios = {layer.name: 1.0 for layer in layers}
        return share_out(repr(self), layers, ratios, sparsity, cap=self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedAllocation(Allocation):
    """Given shares, such as those of another allocation in random order.

    Without a sparsity each matrix loses the nearest whole number to its share, none its last
    entry; with one, the shares are scaled to it by a common factor.

    Attributes:
        ratios: Share of its entries that goes, by name of the matrix; those that are not named
            lose nothing.
        cap: Largest share, where they are scaled.

    Raises:
        UsageError: A share lies outside [0, 1), or the name is that of no matrix.
    """

    takes_sparsity: ClassVar[bool] = False

    ratios: Mapping[str, float]
    cap: float = CAP

    def __post_init__(self) -> None:
        check_bounds(self.cap)
        for name, ratio in self.ratios.items():
            if not 0 <= ratio < 1:
                raise UsageError(f"the share of {name} must lie in [0, 1), but is {ratio}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the sparsity may be None."""
        sizes = entries(layers)
        unknown = sorted(set(self.ratios) - set(sizes))
        if unknown:
            raise UsageError(
                f"ratios name {unknown[0]}, but the matrices are {', '.join(sizes)}; name these"
            )
        ratios = {name: float(self.ratios.get(name, 0.0)) for name in sizes}
        if sparsity is not None:
            return share_out(repr(self), layers, ratios, sparsity, cap=self.cap)
        drop = {name: min(round(ratios[name] * n), max(n - 1, 0)) for name, n in sizes.items()}
        return Allocated(method=repr(self), drop=dict(drop), sizes=sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp(Allocation):
    """Shares that rise evenly from block to block: an arithmetic progression over depth.

    s_b = S + beta (b - mean of b), the mean taken over the weights, so that the sparsity is S.
    ATP (Huang et al. 2025) finds beta between 0 and min(2 S, 2 (1 - S)) / (blocks - 1) by trying
    values in steps of 0.002. The first blocks of trained transformers bear pruning worst, and
    this says no more than that; yet it often does better than shares from spectra.

    Attributes:
        beta: Increase of the share from one block to the next; below 0 the first are pruned
            most.
        cap: Largest share of a matrix.
        floor: Least share of a matrix.
    """

    beta: float
    cap: float = CAP
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self.cap, self.floor)
        if not -1 < self.beta < 1:
            raise UsageError(f"beta must lie between -1 and 1, but is {self.beta}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the metric is the number of the block.

        Blocks count in the order of the model's modules, without a model in that of the layers.
        """
        layers = in_order(layers, model)
        sizes = entries(layers)
        total_of(sizes, sparsity, repr(self))
        block = blocks(list(sizes))
        place = {one: i for i, one in enumerate(dict.fromkeys(block.values()))}
        depth = np.array([place[block[name]] for name in sizes], dtype=np.float64)
        weight = np.array(list(sizes.values()), dtype=np.float64)
        shares = (sparsity or 0.0) + self.beta * (depth - np.average(depth, weights=weight))
        return share_out(
            repr(self),
            layers,
            dict(zip(sizes, shares.tolist(), strict=True)),
            sparsity,
            cap=self.cap,
            floor=self.floor,
            metric=dict(zip(sizes, depth.tolist(), strict=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ERK(Allocation):
    """Erdos-Renyi-Kernel: small matrices stay denser (Evci et al. 2020, RigL).

    The share of a matrix that stays is proportional to the sum of its axes over their product:
    (out + in) / (out in), and (out + in + kernel height + width) / (out in height width) for
    a convolution; those that would have to be more than dense are dense.

    Attributes:
        cap: Largest share of a matrix that goes.
    """

    cap: float = CAP

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
        """See ``Allocation.allocate``; the metric is the sum of the axes over their product."""
        sizes = entries(layers)
        total = total_of(sizes, sparsity, repr(self))
        count = np.array(list(sizes.values()), dtype=np.float64)
        most = most_of(sizes, self.cap)
        check_reach(total, int(most.sum()), count, repr(self), self.cap)
        dense = np.array([sum(layer.shape) for layer in layers]) / np.maximum(count, 1)
        stay = fill(
            np.where(count > 0, dense, 0.0),
            count,
            float(count.sum() - total),
            low=1 - most / np.maximum(count, 1),
            high=np.ones_like(count),
        )
        drop = apportion((1 - stay) * count, total, most)
        return Allocated(
            method=repr(self),
            drop=dict(zip(sizes, drop.tolist(), strict=True)),
            sizes=sizes,
            metric=dict(zip(sizes, dense.tolist(), strict=True)),
        )
