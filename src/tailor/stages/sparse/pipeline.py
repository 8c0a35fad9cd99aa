"""The linear layers of a network that gain by skipping zeros."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.inputs.collect import evaluation
from tailor.stages.modules import LeftAlone, Part, copied, parts, replaced
from tailor.stages.sparse.linear import SparseLinear
from tailor.stages.sparse.measure import Measure, alternately

# Share of zeros up to which nothing is timed: with int32 indices CSR takes as many bytes as the
# dense matrix there, and in benchmarks/results/sparse.json it was slower at every size and batch.
TOO_FEW = 0.5
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SLOW = "CSR convolutions were slower than dense ones at every sparsity measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A linear layer, dense and sparse.

    Attributes:
        name: Canonical name of the weight.
        shape: Its shape.
        zeros: Share of zeros.
        rows: Input vectors in the call that was timed.
        dense: Seconds of that call, as it was.
        sparse: Seconds with CSR.
        chosen: What the layer now is.
    """

    name: str
    shape: tuple[int, ...]
    zeros: float
    rows: int
    dense: float
    sparse: float
    chosen: Literal["dense", "sparse"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sparse:
    """A network for inference on this machine.

    Attributes:
        model: The network.
        report: Every layer that was timed.
        left_alone: The other matrices, and why.
        threads: Threads that torch used in the timing.
    """

    model: nn.Module
    report: tuple[Timed, ...]
    left_alone: tuple[LeftAlone, ...]
    threads: int


def to_sparse_cpu(
    model: nn.Module,
    example: Any,
    *,
    repeats: int = 15,
    margin: float = 0.1,
    layers: str | Sequence[str] = "*",
    skip: str | Sequence[str] = (),
    measure: Measure = alternately,
) -> Sparse:
    """Make those linear layers sparse that are then faster here, at this batch.

    Each layer of which more than half is zero is timed, on what it gets in its first call.

    Args:
        model: A pruned network on the CPU; it is copied.
        example: A typical input: a tensor, a tuple of arguments, or keyword arguments by name.
        repeats: Number of timings, of which the median counts.
        margin: Share of the dense time that has to be saved.
        layers: Patterns of names of weights.
        skip: Patterns of names to leave out.
        measure: Gives the seconds of two calls; gets the dense one, the sparse one and ``repeats``.

    Raises:
        UsageError: An argument is out of range, or the model has no linear layer to look at.
        NonFinite: A weight holds NaN or infinite values.
    """
    if repeats < 1 or not 0 <= margin < 1:
        raise UsageError(
            "to_sparse_cpu needs repeats from 1 and a margin in [0, 1), but got "
            f"{repeats} and {margin}"
        )
    made = copied(model, who="to_sparse_cpu")
    because: dict[type[nn.Module], str] = dict.fromkeys(CONVOLUTIONS, SLOW)
    found, left = parts(made, (nn.Linear,), layers, skip, who="to_sparse_cpu", because=because)
    seen = _inputs(made, found, example)
    report: list[Timed] = []
    for part in found:
        reason = _why_not(part, seen)
        if reason is not None:
            left.append(LeftAlone(name=part.name, reason=reason))
            continue
        new = SparseLinear.of(part.module)
        report.append(_timed(part, new, seen[part.name], margin, repeats, measure))
        if report[-1].chosen == "sparse":
            made = replaced(made, part.path, new)
    return Sparse(
        model=made,
        report=tuple(report),
        left_alone=tuple(left),
        threads=torch.get_num_threads(),
    )


def _why_not(part: Part, seen: Mapping[str, Tensor]) -> str | None:
    weight = part.module.weight
    if weight.device.type != "cpu":
        return f"on {weight.device.type}, and sparse layers gain on CPUs only"
    if weight.dtype != torch.float32:
        return f"of {weight.dtype}, and only float32 has fast sparse products"
    zeros = _zeros(weight)
    if zeros <= TOO_FEW:
        return f"{zeros:.0%} zeros are too few for CSR, which was never faster up to {TOO_FEW:.0%}"
    return None if part.name in seen else "the example never reached it"


def _zeros(weight: Tensor) -> float:
    return 1 - int(weight.count_nonzero()) / weight.numel()


def _timed(
    part: Part, new: SparseLinear, x: Tensor, margin: float, repeats: int, measure: Measure
) -> Timed:
    with torch.no_grad():
        dense, sparse = measure(lambda: part.module(x), lambda: new(x), repeats)
    return Timed(
        name=part.name,
        shape=tuple(part.module.weight.shape),
        zeros=_zeros(part.module.weight),
        rows=x.numel() // x.shape[-1],
        dense=dense,
        sparse=sparse,
        chosen="sparse" if sparse <= (1 - margin) * dense else "dense",
    )


def _inputs(model: nn.Module, found: list[Part], example: Any) -> dict[str, Tensor]:
    """What each layer gets first, by name; the model is as before afterwards."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.setdefault(name, (args[0] if args else kwargs["input"]).detach())

        return hook

    hooks = [
        part.module.register_forward_pre_hook(keep(part.name), with_kwargs=True) for part in found
    ]
    try:
        with evaluation(model):
            _call(model, example)
    finally:
        for handle in hooks:
            handle.remove()
    return seen


def _call(model: nn.Module, example: Any) -> None:
    if isinstance(example, Mapping):
        model(**example)
    elif isinstance(example, tuple | list):
        model(*example)
    else:
        model(example)


def speed_note(sparsity: float, *, sparse_layers: int = 0) -> str:
    """What to tell a user about the speed of a pruned network; empty if there is nothing.

    Args:
        sparsity: Share of single weights that are zero.
        sparse_layers: How many layers ``to_sparse_cpu`` has replaced.
    """
    if sparsity <= 0 or sparse_layers:
        return ""
    advice = "`to_sparse_cpu` may, on a CPU" if sparsity > TOO_FEW else "sparse formats would not"
    return (
        f"Zeros alone speed nothing up: {sparsity:.0%} of the weights are zero, but they lie "
        "anywhere, and dense products multiply by them as by any number. Removing whole units "
        f"(`shrink`) or a low rank (`factorize`) makes it faster; {advice}."
    )
