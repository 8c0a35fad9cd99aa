"""Prune the matrices of a network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tailor.errors import UsageError
from tailor.stages.allocate import Allocated, Allocation, UniformAllocation
from tailor.stages.inputs import Inputs, collect
from tailor.stages.inputs.vectors import is_turned
from tailor.stages.prune.arguments import check_arguments, check_inputs
from tailor.stages.prune.hold import Hold, hold
from tailor.stages.prune.layers import (
    TURNED,
    PrunedMatrix,
    check_matrix,
    outputs_first,
    prune_layers,
)
from tailor.stages.prune.masks import Masks
from tailor.stages.prune.plain import check_plain, plain
from tailor.stages.scores import Magnitude, NofM, Score
from tailor.stages.targets import as_dtensor, fitting
from tailor.weights.layer import Layer
from tailor.weights.source import read

Names = str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A network with zeros.

    Zeros alone make nothing faster and no file smaller; they do when units are removed, or when
    the file is coded.

    Attributes:
        model: The network, in the modes of the one that came.
        masks: Which entries of each matrix stay.
        allocated: How many entries each was to lose.
        report: One row for each matrix.
        skipped: Every other tensor by name, and why.
    """

    model: nn.Module
    masks: Masks
    allocated: Allocated
    report: tuple[PrunedMatrix, ...]
    skipped: dict[str, str]

    @property
    def sparsity(self) -> float:
        """Share of zeros in the matrices that were pruned."""
        size = sum(row.size for row in self.report)
        return sum(row.zeros for row in self.report) / size if size else 0.0

    def hold(self, optimizer: Optimizer) -> Hold:
        """Keep the zeros while the optimizer trains the rest; see ``hold``."""
        return hold(self.model, optimizer, self.masks)


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    score: Score | None = None,
    allocation: Allocation | Allocated | None = None,
    pattern: NofM | None = None,
    data: Iterable[Any] | None = None,
    inputs: Mapping[str, Inputs] | None = None,
    layers: Names = "*",
    skip: Names = (),
    inplace: bool = False,
) -> Pruned:
    """Set weights to zero: the allocation says how many of each matrix, the score which ones.

    Scores that look at inputs see those of the network as it came, not those behind layers that
    are pruned already.

    Args:
        model: The trained network; not changed unless ``inplace``.
        sparsity: Share of all entries of the matrices that goes, in [0, 1). Zeros that are there
            count. None where the allocation or the pattern says it.
        score: Which entries go; ``Magnitude()`` by default.
        allocation: How many of each matrix; ``UniformAllocation()`` by default. Also one that
            was made before.
        pattern: Which entries may go together, such as ``NofM(n=2, m=4)``, instead of an
            allocation.
        data: Batches, as for ``tailor.stages.inputs.collect``; what a score or an allocation
            needs of the layers' inputs is collected from them. With them the report has errors
            of outputs, too.
        inputs: The same, collected before.
        layers: Patterns of names of weights. A tied weight is pruned once.
        skip: Patterns of names to leave out all the same.
        inplace: Change the model itself.

    Returns:
        The network, its masks and a report.

    Raises:
        UsageError: An argument is out of range, or does not go with another; no weight fits; one
            that fits is computed by a parametrization; data is needed and missing; a matrix
            would be emptied.
        NonFinite: A weight is NaN or infinite.

    Warns:
        UserWarning: Masks of ``torch.nn.utils.prune`` were made permanent.

    Examples:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> found = prune(model, 0.75)
        >>> found.sparsity, [row.zeros for row in found.report]
        (0.75, [96, 24])
    """
    score = Magnitude() if score is None else score
    allocation = UniformAllocation() if allocation is None else allocation
    check_arguments(sparsity, score, allocation, pattern)
    if data is not None and inputs is not None:
        raise UsageError("give data, or inputs that were collected before, but not both")
    work = plain(model, inplace=inplace)
    chosen, skipped = matrices(work, layers, skip)
    if data is not None:
        inputs = _collected(work, data, chosen, score, allocation)
    if sparsity != 0:
        asking = (score,) if pattern else (score, allocation)
        check_inputs(chosen, asking, inputs or {})
    allocated = _allocated(work, chosen, sparsity, score, allocation, pattern, inputs)
    for layer in chosen:
        check_matrix(layer, layer.load().detach(), allocated, pattern)
    if sparsity == 0 and pattern is None:
        score = Magnitude()  # nothing goes, whatever the score needs
    keep, report = {}, []
    for one in prune_layers(chosen, allocated, score, inputs=inputs, pattern=pattern):
        with torch.no_grad():
            one.layer.load().copy_(one.tensor)
        keep[one.layer.name] = one.keep
        report.append(one.row)
    return Pruned(
        model=work,
        masks=Masks(keep),
        allocated=allocated,
        report=tuple(report),
        skipped=skipped,
    )


def matrices(
    model: nn.Module, layers: Names = "*", skip: Names = ()
) -> tuple[list[Layer], dict[str, str]]:
    """The weights that can be pruned, and every other tensor with the reason why not.

    Raises:
        UsageError: No weight fits; one that fits is computed from others, or spread over
            processes.
    """
    fit = fitting(model, layers, skip, who="prune")
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    chosen = [_kind(model, one) for one in fit if one.key not in buffers]
    if not chosen:
        raise UsageError(
            f"{', '.join(one.name for one in fit[:8])} are buffers, not weights; choose parameters"
        )
    check_plain(model, chosen)
    for one in chosen:
        if as_dtensor(one.load()) is not None:
            raise UsageError(
                f"{one.name} is spread over processes; prune the whole model before fully_shard"
            )
    whole = read(model)
    names = {one.name for one in chosen}
    skipped = {one.name: one.reason for one in whole.others}
    for one in whole.layers:
        if one.name not in names:
            skipped[one.name] = "a buffer, not a weight" if one.key in buffers else "not selected"
    return chosen, skipped


def _kind(model: nn.Module, layer: Layer) -> Layer:
    """Say of a linear layer that keeps its weight as inputs by outputs that it does."""
    path, _, name = layer.key.rpartition(".")
    part = model.get_submodule(path) if name == "weight" else None
    return replace(layer, kind=f"{TURNED} linear") if part and is_turned(part) else layer


def _collected(
    model: nn.Module,
    data: Iterable[Any],
    chosen: Sequence[Layer],
    score: Score,
    allocation: Allocation | Allocated,
) -> dict[str, Inputs]:
    names = [escape(one.name) for one in chosen]
    gram = "gram" in (score.needs, getattr(allocation, "needs", "nothing"))
    return collect(model, data, layers=names, gram=names if gram else ())


def _allocated(
    model: nn.Module,
    chosen: Sequence[Layer],
    sparsity: float | None,
    score: Score,
    allocation: Allocation | Allocated,
    pattern: NofM | None,
    inputs: Mapping[str, Inputs] | None,
) -> Allocated:
    sizes = {one.name: math.prod(one.shape) for one in chosen}
    if pattern is not None:
        drop = {name: size // pattern.m * (pattern.m - pattern.n) for name, size in sizes.items()}
        return Allocated(method=f"pattern {pattern}", drop=dict(drop), sizes=sizes)
    if isinstance(allocation, Allocated):
        return allocation
    if sparsity == 0:
        return Allocated(method=repr(allocation), drop=dict.fromkeys(sizes, 0), sizes=sizes)
    layers = [outputs_first(one) for one in chosen]
    return allocation.allocate(layers, sparsity, score=score, inputs=inputs, model=model)
