"""``norms``: Frobenius and spectral norm of every matrix, without any spectrum."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tailor import records
from tailor.engine import Engine, Local
from tailor.errors import NonFinite, UsageError
from tailor.numerics.spectrum import frobenius_norm, spectral_norm
from tailor.stages.analyze.layer import parts_of, why_broken
from tailor.stages.analyze.record import Failed, Skipped
from tailor.weights.layer import Layer, Weights
from tailor.weights.source import Source, read
from tailor.weights.views import Part, Standard, View

if TYPE_CHECKING:
    import pandas

Watch: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorms:
    """The norms of one weight matrix, or of one pool of matrices.

    Attributes:
        name: Canonical name of the tensor, and which part of it.
        kind: Kind of layer, for people; not compared.
        shape: Shape of the stored tensor.
        dtype: Stored element type.
        rows: Rows of one matrix.
        columns: Columns of one matrix.
        matrices: Number of matrices.
        frobenius_norm: Root of the sum of squares.
        spectral_norm: Largest singular value, from below.
        residual: A singular value lies within this distance of ``spectral_norm``.
        stable_rank: (Frobenius norm / spectral norm)^2; 0 for a zero matrix.
        seconds: Wall time that this matrix took; not compared.
    """

    name: str
    kind: str = field(compare=False)
    shape: tuple[int, ...]
    dtype: str
    rows: int
    columns: int
    matrices: int
    frobenius_norm: float
    spectral_norm: float
    residual: float
    stable_rank: float
    seconds: float = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormAnalysis:
    """The norms of all matrices of one model.

    Attributes:
        source: What was read.
        layers: One record for each matrix, in natural order.
        failed: Matrices that are broken, such as by NaN.
        skipped: Every other tensor.
        provenance: Versions and settings.
    """

    source: str
    layers: tuple[LayerNorms, ...]
    failed: tuple[Failed, ...]
    skipped: tuple[Skipped, ...]
    provenance: records.Provenance

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each matrix, under the names that ``Analysis.to_frame`` uses."""
        import pandas

        return pandas.DataFrame({"source": self.source, **one} for one in map(_row, self.layers))


def norms(
    source: Source | Weights,
    *,
    view: View | None = None,
    engine: Engine | None = None,
    label: str | None = None,
    watch: Watch | None = None,
) -> NormAnalysis:
    """Norms and stable rank of every weight matrix, many times faster than ``analyze``.

    Args:
        source: What ``read`` takes, or what it gives.
        view: How tensors become matrices; ``Standard()`` by default. One that gives complex
            matrices is refused.
        engine: Where the work runs; ``Local()`` by default.
        label: Name for the report; what ``read`` calls the source by default.
        watch: Called after each tensor with its name, how many are done, and how many there are.

    Raises:
        SourceError: The source cannot be read.
        NonFinite: Not one matrix could be measured; the message names the first.
        UsageError: The view gives complex matrices.
    """
    weights = source if isinstance(source, Weights) else read(source)
    chosen = Standard() if view is None else view
    layers = weights.layers
    found: dict[int, tuple[LayerNorms | Failed, ...]] = {}
    costs = [float(math.prod(layer.shape)) for layer in layers]
    for index, rows in (engine or Local()).map(partial(_measure, chosen), layers, costs):
        found[index] = rows
        if watch is not None:
            watch(layers[index].name, len(found), len(layers))
    every = [one for index in range(len(layers)) for one in found[index]]
    failed = tuple(one for one in every if isinstance(one, Failed))
    if len(failed) == len(every):
        raise NonFinite(f"{failed[0].name}: {failed[0].reason}")
    return NormAnalysis(
        source=weights.source if label is None else label,
        layers=tuple(one for one in every if isinstance(one, LayerNorms)),
        failed=failed,
        skipped=tuple(map(Skipped.of, weights.others)),
        provenance=records.Provenance.now(None, view=chosen),
    )


def _measure(view: View, layer: Layer) -> tuple[LayerNorms | Failed, ...]:
    return tuple(_norms(layer, *one) for one in parts_of(layer, view))


def _norms(layer: Layer, part: Part, rows: int, columns: int) -> LayerNorms | Failed:
    began = time.perf_counter()
    name = layer.name + part.label
    if part.stack.is_complex():
        raise UsageError(f"{name}: the view gives complex matrices; use analyze, or another view")
    try:
        frobenius = math.hypot(*map(frobenius_norm, part.stack))
        spectral = max(map(spectral_norm, part.stack), key=lambda one: one.value)
    except NonFinite as error:
        reason = why_broken(part.stack, error)
        return Failed(name=name, shape=layer.shape, dtype=layer.dtype, reason=reason)
    return LayerNorms(
        name=name,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        rows=rows,
        columns=columns,
        matrices=part.stack.shape[0],
        frobenius_norm=frobenius,
        spectral_norm=spectral.value,
        residual=spectral.residual,
        stable_rank=(frobenius / spectral.value) ** 2 if spectral.value > 0 else 0.0,
        seconds=time.perf_counter() - began,
    )


def _row(one: LayerNorms) -> dict[str, float | int | str | None]:
    """WeightWatcher's ``norm`` and ``spectral_norm`` are squares."""
    logs = [None if x == 0 else 2 * math.log10(x) for x in (one.frobenius_norm, one.spectral_norm)]
    return {
        "layer": one.name,
        "layer_type": one.kind,
        "shape": "x".join(map(str, one.shape)),
        "dtype": one.dtype,
        "N": max(one.rows, one.columns),
        "M": min(one.rows, one.columns),
        "Q": max(one.rows, one.columns) / min(one.rows, one.columns),
        "rf": one.matrices,
        "norm": one.frobenius_norm**2,
        "log_norm": logs[0],
        "spectral_norm": one.spectral_norm**2,
        "log_spectral_norm": logs[1],
        "sv_max": one.spectral_norm,
        "sv_max_residual": one.residual,
        "stable_rank": one.stable_rank,
        "seconds": one.seconds,
    }
