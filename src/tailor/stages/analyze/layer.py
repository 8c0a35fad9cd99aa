"""One tensor: its matrices, their spectra, and what is said about them."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.errors import NonFinite
from tailor.numerics.powerlaw import MatrixFit, NoFit, PowerLawFit, TailFit
from tailor.numerics.spectrum import (
    Spectrum,
    determinant_count,
    entropy,
    product_core,
    stable_rank,
)
from tailor.stages.analyze.drawing import histogram, survival
from tailor.stages.analyze.measures import Exact, Matrix, Measure
from tailor.stages.analyze.record import Failed, LayerAnalysis, Value
from tailor.weights.layer import Layer
from tailor.weights.views import Part, View

WELL_TRAINED = (2.0, 6.0)  # of alpha; Martin & Mahoney (2021), section 3.2
REJECTED = 0.1  # p-value at which Clauset, Shalizi & Newman (2009) reject the power law
LIKE_NOISE = 2.0  # standard deviations from the alpha of shuffled weights

SpectrumFit: TypeAlias = TailFit | MatrixFit
Rows: TypeAlias = tuple[LayerAnalysis | Failed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What to do with one tensor; travels to a worker.

    Attributes:
        layer: Where the tensor is.
        view: How it becomes matrices.
        solver: How eigenvalues are computed.
        spectrum: Fit of the eigenvalues.
        entries: Fit of the weights, or None.
        measures: What else to measure.
        drawings: Whether to keep histogram and survival function of the weights.
    """

    layer: Layer
    view: View
    solver: Exact
    spectrum: SpectrumFit
    entries: TailFit | None
    measures: tuple[Measure, ...]
    drawings: bool


def measure(task: Measurement) -> Rows:
    """Load one tensor and measure each of its parts; a broken one becomes a ``Failed``."""
    layer = task.layer
    began = time.perf_counter()
    found: list[LayerAnalysis | Failed] = []
    for part, rows, columns in parts_of(layer, task.view):
        name = layer.name + part.label
        try:
            one = _measure_part(task, name, part, rows, columns)
        except NonFinite as error:
            reason = why_broken(part.stack, error)
            found.append(Failed(name=name, shape=layer.shape, dtype=layer.dtype, reason=reason))
            continue
        now = time.perf_counter()
        found.append(replace(one, seconds=now - began))
        began = now
    return tuple(found)


def parts_of(layer: Layer, view: View) -> list[tuple[Part, int, int]]:
    """Each part of a tensor with the rows and columns of the matrices that it stands for."""
    if layer.factors is not None:
        left, right = (factor.detach() for factor in layer.factors())
        core = product_core(left, right)
        return [(Part(stack=core[None]), left.shape[0], right.shape[1])]
    tensor = layer.load().detach()
    if tensor.dtype.itemsize == 1:  # 8-bit floats have no reductions, and bfloat16 holds them
        tensor = tensor.to(torch.bfloat16)
    parts = view.split(layer.name, tensor)
    return [(part, *part.stack.shape[1:]) for part in parts]


def why_broken(stack: Shaped[Tensor, "count rows columns"], error: NonFinite) -> str:
    """How many entries are NaN or infinite; the error's own words if none is."""
    bad = int((~torch.isfinite(stack)).sum())
    if bad == 0:
        return str(error)
    return (
        f"{bad} of {stack.numel()} values are NaN or infinite; the checkpoint is broken there, "
        "use an earlier one"
    )


def _measure_part(
    task: Measurement, name: str, part: Part, rows: int, columns: int
) -> LayerAnalysis:
    spectrum = task.solver.solve(part.stack)
    kept = task.solver.significant(spectrum.eigenvalues, rows, columns)
    fit = _fit(task.spectrum, kept, part)
    matrix = Matrix(
        name=name,
        stack=part.stack,
        low_rank=task.layer.factors is not None,
        rows=rows,
        columns=columns,
        eigenvalues=kept,
        whole=spectrum.eigenvalues,
        fit=fit,
        method=task.spectrum,
        solver=task.solver,
    )
    measures: dict[str, Value] = {}
    for one in task.measures:
        measures |= one.measure(matrix)
    values = spectrum.eigenvalues
    stack = part.stack
    return LayerAnalysis(
        name=name,
        tensor=task.layer.name,
        kind=task.layer.kind,
        shape=task.layer.shape,
        dtype=task.layer.dtype,
        aliases=task.layer.aliases,
        rows=rows,
        columns=columns,
        matrices=stack.shape[0],
        zeros=1 - int(torch.count_nonzero(stack)) / stack.numel(),
        singular_values=tuple(np.sqrt(values[::-1]).tolist()),
        frobenius_norm=math.sqrt(values.sum()),
        spectral_norm=math.sqrt(values[-1]),
        stable_rank=stable_rank(values),
        entropy=_entropy(spectrum),
        matrix_rank=spectrum.rank,
        sv_min=spectrum.least,
        spectrum=fit,
        verdict=_verdict(task.spectrum, fit, measures),
        log_alpha_norm=_log_alpha_norm(values, fit),
        detX_num=determinant_count(values),
        entries=None if task.entries is None else task.entries.fit(_sizes(stack, task.entries)),
        measures=measures,
        histogram=histogram(stack) if task.drawings else None,
        survival=survival(stack) if task.drawings else None,
        seconds=0.0,
    )


def _fit(method: SpectrumFit, eigenvalues: Float[ndarray, "n"], part: Part) -> PowerLawFit | NoFit:
    if isinstance(method, MatrixFit):
        return method.fit_matrices(part.stack)
    fit = method.fit(eigenvalues)
    if isinstance(fit, NoFit) or part.copies == 1:
        return fit
    wider = math.sqrt(part.copies)  # equal eigenvalues are no independent draws
    return replace(
        fit,
        sigma=fit.sigma * wider,
        low=max(fit.alpha - (fit.alpha - fit.low) * wider, 1.0),
        high=fit.alpha + (fit.high - fit.alpha) * wider,
    )


def _verdict(method: SpectrumFit, fit: PowerLawFit | NoFit, measures: Mapping[str, Value]) -> str:
    """Speaks only when the whole interval of a tail's exponent lies on one side.

    Nor does it where a measure says that there is no power law, or none that noise lacks.
    """
    low, high = WELL_TRAINED
    if isinstance(fit, NoFit) or not method.exponent_of_tail:
        return "undecided"
    if fit.interval != "bootstrap":  # taking xmin as given, it speaks on pure noise, too
        return "undecided"
    p, z = measures.get("p_value"), measures.get("null_z")
    if isinstance(p, float) and p <= REJECTED:
        return "undecided"
    if isinstance(z, float) and abs(z) < LIKE_NOISE:
        return "undecided"
    if fit.high < low:
        return "over-trained"
    if fit.low > high:
        return "under-trained"
    return "well-trained" if low < fit.low and fit.high < high else "undecided"


def _entropy(spectrum: Spectrum) -> float | None:
    if spectrum.rank is None or spectrum.rank < 2:
        return None
    return entropy(spectrum.eigenvalues, spectrum.rank)


def _log_alpha_norm(values: Float[ndarray, "n"], fit: PowerLawFit | NoFit) -> float | None:
    """log10 of the sum of eigenvalues^alpha, scaled so that it cannot overflow."""
    if isinstance(fit, NoFit):
        return None
    top = float(values[-1])
    return fit.alpha * math.log10(top) + math.log10(((values / top) ** fit.alpha).sum())


def _sizes(stack: Shaped[Tensor, "count rows columns"], method: TailFit) -> Float[ndarray, "n"]:
    """Sizes of the weights in float64; only the largest where the fit looks at no others."""
    flat = stack.flatten().to(device="cpu")
    if flat.dtype.itemsize < 4:
        flat = flat.to(torch.float32)
    sizes = flat.abs()
    largest: int | None = getattr(method, "largest", None)
    if largest is not None and sizes.numel() > largest:
        sizes = torch.topk(sizes, largest, sorted=False).values
    array: ndarray = sizes.to(torch.float64).numpy()
    return array
