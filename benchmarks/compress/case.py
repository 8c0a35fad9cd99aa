"""One language model, its data, and every rule that shares a sparsity among its blocks."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.compress import charlm
from tailor.integrations.causal_lm import prune_causal_lm
from tailor.numerics.powerlaw import FARMS, HillMid, XminPeak
from tailor.stages.allocate import (
    ERK,
    LAMP,
    OWL,
    Allocation,
    AlphaPruning,
    FixedAllocation,
    GlobalMagnitude,
    Ramp,
    Sensitivity,
    UniformAllocation,
    blocks,
)
from tailor.stages.scores import Magnitude, Score, SparseGPT, Wanda
from tailor.weights.source import read

SCORES: dict[str, Score] = {"magnitude": Magnitude(), "Wanda": Wanda(), "SparseGPT": SparseGPT()}
SPAN = 0.3  # of the shares of a ramp, from the first block to the last
SPARED = 0.2  # what the first block loses less than the others on average
HILL, WINDOWS = HillMid(), FARMS(window=64, windows=5)

Make = Callable[["Case", float], Allocation]


class Case:
    """One trained model with decoder blocks, and the data that are used on it."""

    def __init__(self, model: nn.Module, calibration: Tensor, held_out: Tensor) -> None:
        self.model, self.calibration, self.held_out = model, calibration, held_out
        inside = [one for one in read(model).layers if one.name.startswith("model.layers.")]
        self.block = blocks([one.name for one in inside])
        self.alphas = {
            one.name: HILL.fit(torch.linalg.svdvals(one.load().detach()).square().numpy()).alpha
            for one in inside
        }

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(set(self.block.values()))

    def pruned(self, score: Score, allocation: Allocation, sparsity: float) -> float:
        """Bits for each held-out token after pruning."""
        found = prune_causal_lm(
            self.model,
            [self.calibration],
            sparsity,
            score=score,
            allocation=allocation,
        )
        return charlm.bits(found.model, self.held_out)

    def by_block(self, values: dict[str, float]) -> list[float]:
        """Plain means over the matrices of each block."""
        gathered: dict[str, list[float]] = {}
        for name, value in values.items():
            gathered.setdefault(self.block[name], []).append(value)
        return [statistics.fmean(few) for few in gathered.values()]

    def fixed(self, shares: list[float]) -> FixedAllocation:
        """Given shares of the blocks."""
        of = dict(zip(dict.fromkeys(self.block.values()), shares, strict=True))
        return FixedAllocation(ratios={name: of[block] for name, block in self.block.items()})


def _reversed(case: Case, sparsity: float) -> Allocation:
    return AlphaPruning(alphas={name: -alpha for name, alpha in case.alphas.items()})


def _first(case: Case, sparsity: float) -> Allocation:
    others = case.count - 1
    return case.fixed([sparsity - SPARED] + [sparsity + SPARED / others] * others)


def _measured(case: Case, sparsity: float) -> Allocation:
    return Sensitivity(evaluate=lambda model: charlm.bits(model, case.calibration))


UNIFORM, ALPHA = "uniform", "alpha, median"
METHODS: dict[str, Make] = {
    UNIFORM: lambda case, s: UniformAllocation(),
    ALPHA: lambda case, s: AlphaPruning(fit=HILL, gate=False),
    "alpha, median, by matrix": lambda case, s: AlphaPruning(fit=HILL, group="layer", gate=False),
    "alpha, FARMS": lambda case, s: AlphaPruning(fit=WINDOWS, gate=False),
    "alpha, peak": lambda case, s: AlphaPruning(fit=XminPeak(), gate=False),
    "alpha, reversed": _reversed,
    "OWL": lambda case, s: OWL(),
    "LAMP": lambda case, s: LAMP(),
    "ERK": lambda case, s: ERK(),
    "global magnitude": lambda case, s: GlobalMagnitude(),
    "ramp": lambda case, s: Ramp(beta=SPAN / (case.count - 1)),
    "ramp, reversed": lambda case, s: Ramp(beta=-SPAN / (case.count - 1)),
    "first block spared": _first,
    "measured loss": _measured,
}
