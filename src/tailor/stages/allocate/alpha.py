"""AlphaPruning: heavier tails of the spectrum are pruned less."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.powerlaw import FARMS
from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.blocks import block_means, blocks
from tailor.stages.allocate.matrices import matrix_of
from tailor.stages.allocate.shares import CAP, check_bounds, entries, share_out, total_of
from tailor.stages.exponents import SpectrumFit, exponent
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Score
from tailor.weights.layer import Layer
from tailor.weights.views import Taps, View

LEAST_SIDE = 4  # of a matrix that is cut in two along that axis, for the error of its exponent
INDEPENDENT = 2  # of four quarters: the others share rows or columns with these
ERRORS = 2.0  # standard errors that exponents have to spread by, in order to say anything


class Found(NamedTuple):
    """The exponent of a matrix.

    Attributes:
        alpha: Density exponent, or why there is none.
        error: Its standard error; None where it cannot be told.
    """

    alpha: float | str
    error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaPruning(Allocation):
    """Shares that rise linearly with the density exponent alpha (Lu et al. 2024).

    r = 1 - eps + 2 eps (alpha - least) / (largest - least), times the factor that gives the
    sparsity. The largest share is (1 + eps) / (1 - eps) times the least **however little the
    exponents differ**, so that noise is stretched to the full range; hence the gate. There
    is no cap in the authors' program, which zeroes whole blocks of LLaMA-7B at 80 %.

    What speaks for it and against: in trained transformers alpha rises with depth, and shares
    that rise with depth alone (``Ramp``), or that spare the first block, often do as well or
    better. Try those beside it.

    The error of an exponent comes from four interleaved quarters of the matrix, of its own
    aspect ratio: the standard deviation of their exponents over the square root of two, since
    two of them share rows and two columns. Measured on 64 x 64 to 400 x 400 matrices, it is 0.6 to
    1.0 of the true one where columns have Pareto scales, and 0.8 to 2.3 for independent weights.

    Attributes:
        eps: How far the shares spread, in [0, 1). The authors tuned it to model and method, from
            0.2 to 0.5; 0.2 is theirs for LLaMA-7B with Wanda or SparseGPT, and for images.
        fit: How exponents are found. ``FARMS()``, windows of one aspect ratio with the median
            as xmin, by default: shapes become comparable. The authors' ``XminPeak(compat=True)``
            is there to compare with; two runs of it on one model differ by up to 3.
        group: ``"block"``: the matrices of a block share the plain mean of their exponents (the
            authors', for language models); or ``"layer"``: each has its own (theirs for images).
        alphas: Exponents by name of the matrix, where they are known already.
        view: How a tensor becomes matrices; ``Taps()``, the authors' way, by default.
        gate: Fall back to uniform if the standard deviation of the exponents over the groups is
            below 2 of their standard errors. Given exponents have no error and pass.
        cap: Largest share of a matrix.
        floor: Least share of a matrix.

    Raises:
        UsageError: A setting is out of range.
    """

    eps: float = 0.2
    fit: SpectrumFit = field(default_factory=FARMS)
    group: str = "block"
    alphas: Mapping[str, float] | None = field(default=None, repr=False)
    view: View = field(default_factory=Taps)
    gate: bool = True
    cap: float = CAP
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self.cap, self.floor)
        if not 0 <= self.eps < 1:
            raise UsageError(f"eps must lie in [0, 1), but is {self.eps}")
        if self.group not in ("block", "layer"):
            raise UsageError(f"group must be 'block' or 'layer', but is {self.group!r}")

    def allocate(
        self,
        layers: Sequence[Layer],
        sparsity: float | None,
        *,
        score: Score,
        inputs: Mapping[str, Inputs] | None = None,
        model: nn.Module | None = None,
    ) -> Allocated:
        """See ``Allocation.allocate``; the metric is the exponent of each matrix itself."""
        sizes = entries(layers)
        total_of(sizes, sparsity, repr(self))  # before the spectra are computed
        found = self._given(layers) if self.alphas is not None else self._measured(layers)
        alphas = {name: one.alpha for name, one in found.items() if isinstance(one.alpha, float)}
        block = blocks(list(sizes)) if self.group == "block" else {name: name for name in sizes}
        means = block_means(alphas, block)
        why = _why_uniform(means, _errors(found, block), self.gate and self.alphas is None)
        return share_out(
            repr(self),
            layers,
            {name: 1.0 if why else self._ratio(block[name], means) for name in sizes},
            sparsity,
            cap=self.cap,
            floor=self.floor,
            metric=alphas,
            note="; ".join(filter(None, (why, _without(found)))),
        )

    def _given(self, layers: Sequence[Layer]) -> dict[str, Found]:
        given = self.alphas or {}
        for layer in layers:
            if not np.isfinite(given.get(layer.name, np.nan)):
                raise UsageError(
                    f"alphas give no finite exponent for {layer.name}; give one for each matrix"
                )
        return {layer.name: Found(float(given[layer.name]), None) for layer in layers}

    def _measured(self, layers: Sequence[Layer]) -> dict[str, Found]:
        return {layer.name: self._one(layer) for layer in layers}

    def _one(self, layer: Layer) -> Found:
        """The exponent of a layer, and its error if it matters."""
        matrix = matrix_of(layer).reshape(layer.shape)
        if matrix.numel() == 0:
            return Found("it has no entries", None)
        alpha = self._exponent(layer.name, matrix)
        if isinstance(alpha, str) or not self.gate:
            return Found(alpha, None)
        parts = [self._exponent(layer.name, part) for part in quarters(matrix)]
        numbers = [one for one in parts if isinstance(one, float)]
        if len(numbers) < len(parts) or len(numbers) < 2:
            return Found(alpha, None)
        return Found(alpha, float(np.std(numbers, ddof=1)) / INDEPENDENT**0.5)

    def _exponent(self, name: str, weight: Float[Tensor, "out *rest"]) -> float | str:
        return exponent(name, weight, view=self.view, fit=self.fit, device="cpu")

    def _ratio(self, group: str, means: Mapping[str, float]) -> float:
        """The share of a group; one without an exponent gets that of the mean exponent."""
        least, largest = min(means.values()), max(means.values())
        alpha = means.get(group, float(np.mean(list(means.values()))))
        return 1 - self.eps + 2 * self.eps * (alpha - least) / (largest - least)


def quarters(weight: Float[Tensor, "out *rest"]) -> list[Float[Tensor, "_ *rest2"]]:
    """Every second row and column: disjoint parts of the same aspect ratio.

    An axis that is too short is not cut; what an odd length has too much is left out.
    """
    parts = [weight]
    for axis in (0, 1):
        half = weight.shape[axis] // 2
        if weight.shape[axis] >= LEAST_SIDE:
            every = [torch.arange(first, 2 * half, 2) for first in (0, 1)]
            parts = [part.index_select(axis, some) for part in parts for some in every]
    return parts


def _errors(found: Mapping[str, Found], block: Mapping[str, str]) -> dict[str, float]:
    """The standard error of the mean of each block; a matrix without one counts as the average."""
    squares = {name: one.error**2 for name, one in found.items() if one.error is not None}
    usual = float(np.mean(list(squares.values()))) if squares else float("nan")
    gathered: dict[str, list[float]] = {}
    for name, one in found.items():
        if isinstance(one.alpha, float):
            gathered.setdefault(block[name], []).append(squares.get(name, usual))
    return {one: sum(few) ** 0.5 / len(few) for one, few in gathered.items()}


def _why_uniform(means: Mapping[str, float], errors: Mapping[str, float], gate: bool) -> str:
    """Why the exponents say nothing about the groups; empty if they do."""
    if len(means) < 2:
        return f"uniform, since only {len(means)} of the groups have an exponent"
    if len(set(means.values())) < 2:
        return "uniform, since all exponents are equal"
    if not gate:
        return ""
    spread = float(np.std(list(means.values()), ddof=1))
    error = float(np.sqrt(np.mean(np.square(list(errors.values())))))
    if not np.isfinite(error):
        return "uniform, since the matrices are too small to tell the error of their exponents"
    if spread < ERRORS * error:
        return (
            f"uniform, since the exponents of the groups spread by {spread:.3g} only, less than "
            f"{ERRORS:g} standard errors of {error:.3g}"
        )
    return ""


def _without(found: Mapping[str, Found]) -> str:
    """Which matrices have no exponent, and why the first one has none."""
    reasons = {name: one.alpha for name, one in found.items() if isinstance(one.alpha, str)}
    if not reasons:
        return ""
    name, reason = next(iter(reasons.items()))
    return f"no exponent for {len(reasons)} of {len(found)} matrices, such as {name}: {reason}"
