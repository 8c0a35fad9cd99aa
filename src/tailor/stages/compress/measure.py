"""What a compression cost and gained, measured."""

import copy
import math
import statistics
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import torch
from numpy import ndarray
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.coding import Codebook, Coded, Grid, Spec, report
from tailor.numerics.coding.entropy import histogram
from tailor.numerics.rate import Predicted, predicted_bits
from tailor.stages.compress.quantize.quantizer import flat, relative
from tailor.stages.compress.report import Latency, TensorReport

RUNS = 15


@dataclass(slots=True, kw_only=True)
class Known:
    """What the steps of a recipe said of each tensor, by its key in the state dict."""

    target: dict[str, float] = field(default_factory=dict)
    metric: dict[str, float] = field(default_factory=dict)
    output_error: dict[str, float] = field(default_factory=dict)


def tensor_report(
    name: str, before: Tensor | None, after: Tensor, coded: Coded, spec: Spec, known: Known
) -> TensorReport:
    """One row.

    Args:
        name: Key in the state dict.
        before: The tensor as it came; None if there was none of this shape.
        after: The tensor as the file holds it.
        coded: Its code.
        spec: Its shape and type.
        known: What the steps said.
    """
    made = report(coded, spec)
    symbols = _symbols(coded)
    error = None if before is None else relative(before.cpu(), after.cpu()) ** 0.5
    fitted = None if symbols is None or before is None else _predicted(before, error)
    size = after.numel() * after.element_size()
    return TensorReport(
        name=name,
        shape=tuple(after.shape),
        target=known.target.get(name),
        zeros=float((after == 0).to(torch.float64).mean()) if after.numel() else 0.0,
        metric=known.metric.get(name),
        norm=None if before is None else _norm(before),
        error=error,
        output_error=known.output_error.get(name),
        dense_bytes=size if before is None else before.numel() * before.element_size(),
        packed_bytes=made.total_bits / 8,
        parts={part: bits / 8 for part, bits in made.parts.items()},
        limit_bytes=made.entropy_bits / 8,
        mode=made.mode,
        levels=None if symbols is None else len(histogram(symbols)[0]),
        tail_index=None if fitted is None else fitted.tail_index,
        predicted_bits=None if fitted is None else fitted.bits,
    )


def latency(
    before: nn.Module, after: nn.Module, example: tuple[Tensor, ...], runs: int = RUNS
) -> Latency:
    """Time both networks in turns on one example, in evaluation mode and without gradients.

    Raises:
        UsageError: The example is no tuple of tensors.
    """
    if not example or not all(isinstance(one, Tensor) for one in example):
        raise UsageError("example must be a tensor or a tuple of tensors, as the model takes them")
    pair = [copy.deepcopy(model).eval() for model in (before, after)]
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(runs + 2):  # the first two only warm up
            for model, taken in zip(pair, seconds, strict=True):
                start = time.perf_counter()
                model(*example)
                if turn > 1:
                    taken.append(time.perf_counter() - start)
    return Latency(
        before=statistics.median(seconds[0]),
        after=statistics.median(seconds[1]),
        batch=tuple(example[0].shape),
        threads=torch.get_num_threads(),
        runs=runs,
    )


def overall(rows: Sequence[TensorReport], matrices: Container[str]) -> tuple[float, float | None]:
    """Share of zeros, and relative error, over all matrices together.

    The error is None where there were none of these shapes before.
    """
    chosen = [row for row in rows if row.name in matrices]
    sizes = [math.prod(row.shape) for row in chosen]
    zeros = math.fsum(row.zeros * size for row, size in zip(chosen, sizes, strict=True))
    sparsity = zeros / sum(sizes) if sum(sizes) else 0.0
    if any(row.norm is None for row in chosen):
        return sparsity, None
    lost = math.hypot(*((row.error or 0.0) * (row.norm or 0.0) for row in chosen))
    norm = math.hypot(*(row.norm or 0.0 for row in chosen))
    return sparsity, lost / norm if norm else 0.0


def _norm(tensor: Tensor) -> float:
    wide = tensor.detach().to(torch.float64).flatten()
    return float(torch.linalg.vector_norm(wide))


def _symbols(coded: Coded) -> ndarray | None:
    if isinstance(coded, Grid):
        return coded.levels
    return coded.codes if isinstance(coded, Codebook) else None


def _predicted(before: Tensor, error: float | None) -> Predicted | None:
    """What the tail of the tensor as it came predicts; None where it cannot be told."""
    if error is None or not 0 < error < 1 or not before.is_floating_point():
        return None
    found = predicted_bits(flat(before), error**2)
    return found if isinstance(found, Predicted) else None
