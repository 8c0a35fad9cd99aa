"""One matrix after the other: loaded, pruned, handed on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.stages.allocate import Allocated
from tailor.stages.inputs import Inputs
from tailor.stages.prune.error import output_error, weight_error
from tailor.stages.scores import Drop, NofM, Score
from tailor.stages.scores.smallest import wide
from tailor.weights.layer import Layer, Loader

TURNED = "transposed"  # how the kind of a weight begins that has its inputs on the first axis


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedMatrix:
    """What pruning did to one matrix.

    Attributes:
        name: Canonical name.
        shape: Of the stored tensor.
        aliases: Other names of the same tensor; it was pruned once.
        target: Share of its entries that was to go.
        zeros: Entries that are zero now.
        size: All entries.
        error: ||W - W'|| / ||W||, in Frobenius norm.
        output_error: ||(W - W') X|| / ||W X|| over the data; None without data.
        known: What is known of X: its Gram matrix, with which the above is exact, or the norms
            of the inputs, with which they are taken as uncorrelated.
        note: What a user has to know; empty if nothing.
    """

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...]
    target: float
    zeros: int
    size: int
    error: float
    output_error: float | None = None
    known: Literal["gram", "norms", "nothing"] = "nothing"
    note: str = ""

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.size if self.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrunedLayer:
    """One weight after pruning.

    Attributes:
        layer: Where it comes from.
        tensor: Its new values, in the stored shape and type.
        keep: Which entries stay, in the stored shape.
        row: For the report.
    """

    layer: Layer
    tensor: Tensor
    keep: Bool[Tensor, "..."]
    row: PrunedMatrix


def prune_layers(
    layers: Sequence[Layer],
    allocated: Allocated,
    score: Score,
    *,
    inputs: Mapping[str, Inputs] | None = None,
    pattern: NofM | None = None,
) -> Iterator[PrunedLayer]:
    """Prune matrices one at a time, such as those of a checkpoint on disk.

    A tensor counts as a matrix with its first axis as outputs and all others as inputs; with
    its second axis as outputs where its kind begins with "transposed".

    Args:
        layers: From ``read``.
        allocated: How many entries each loses.
        score: Which ones.
        inputs: What each layer saw, by name, for a score that needs it.
        pattern: Which entries may go together; ``allocated`` is then left aside.

    Raises:
        UsageError: The allocation lacks a layer or would take all of one; inputs that the score
            needs are missing; the pattern does not fit.
        NonFinite: A weight is NaN or infinite.
    """
    for layer in layers:
        stored = layer.load().detach()
        check_matrix(layer, stored, allocated, pattern)
        yield _pruned(layer, stored, allocated, score, (inputs or {}).get(layer.name), pattern)


def check_matrix(
    layer: Layer, stored: Tensor, allocated: Allocated, pattern: NofM | None = None
) -> None:
    """Refuse what cannot be pruned, before anything is changed; see ``prune_layers``."""
    values = wide(stored)
    wrong = stored.numel() - int(torch.isfinite(values).sum())
    if wrong:
        raise NonFinite(
            f"{layer.name} holds {wrong} NaN or infinite weights; mend or reload them, or leave "
            f"it out with skip=({layer.name!r},)"
        )
    if pattern is not None:
        width = stored.numel() // stored.shape[1 if turned(layer) else 0]
        if width % pattern.m:
            raise UsageError(
                f"{layer.name} has {width} inputs, but the pattern {pattern} needs a multiple of "
                f"{pattern.m}; leave it out with skip=({layer.name!r},)"
            )
        return
    if layer.name not in allocated.drop:
        raise UsageError(
            f"the allocation says nothing of {layer.name}; make it for the same layers"
        )
    if allocated.dropped(layer.name) >= stored.numel() and bool((values != 0).any()):
        most = (stored.numel() - 1) / stored.numel()
        raise UsageError(
            f"{allocated.method} would take all {stored.numel()} weights of {layer.name}, which "
            f"can lose at most {most:.4g} of them; ask for less, or leave it out with "
            f"skip=({layer.name!r},)"
        )


def turned(layer: Layer) -> bool:
    """Whether a weight has its inputs on the first axis."""
    return layer.kind.startswith(TURNED)


def outputs_first(layer: Layer) -> Layer:
    """The layer as one whose first axis is that of the outputs."""
    if not turned(layer):
        return layer
    inputs, outputs, *rest = layer.shape
    return replace(layer, shape=(outputs, inputs, *rest), load=Swapped(layer.load), factors=None)


@dataclass(frozen=True, slots=True)
class Swapped:
    """A loader that swaps the first two axes of what another loads."""

    load: Loader

    def __call__(self) -> Tensor:
        """The tensor, its second axis first."""
        return self.load().detach().transpose(0, 1)


def _pruned(
    layer: Layer,
    stored: Tensor,
    allocated: Allocated,
    score: Score,
    inputs: Inputs | None,
    pattern: NofM | None,
) -> PrunedLayer:
    first = stored.transpose(0, 1) if turned(layer) else stored
    matrix = first.flatten(1)
    drop: Drop = 0 if pattern else allocated.drop[layer.name]
    found = score.prune(matrix, drop, inputs=inputs, pattern=pattern)
    row = PrunedMatrix(
        name=layer.name,
        shape=layer.shape,
        aliases=layer.aliases,
        target=pattern.sparsity if pattern else allocated.ratio(layer.name),
        zeros=int((wide(found.matrix) == 0).sum()),
        size=stored.numel(),
        error=weight_error(matrix, found.matrix),
        output_error=None if inputs is None else output_error(matrix, found.matrix, inputs),
        known=_known(inputs),
        note=_note(score, inputs),
    )
    tensor, keep = (one.reshape(first.shape) for one in (found.matrix, found.keep))
    if turned(layer):
        tensor, keep = tensor.transpose(0, 1), keep.transpose(0, 1)
    return PrunedLayer(layer=layer, tensor=tensor.contiguous(), keep=keep.contiguous(), row=row)


def _known(inputs: Inputs | None) -> Literal["gram", "norms", "nothing"]:
    if inputs is None:
        return "nothing"
    return "norms" if inputs.gram is None else "gram"


def _note(score: Score, inputs: Inputs | None) -> str:
    if score.needs != "gram" or inputs is None or inputs.count >= len(inputs.squares):
        return ""
    return (
        f"{inputs.count} vectors for {len(inputs.squares)} inputs: the Gram matrix is singular "
        "and damped more"
    )
