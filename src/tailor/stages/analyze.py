"""Spectra and tails of every weight matrix: how heavy-tailed is a network, without data?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tailor import records
from tailor.engine import Engine, Local
from tailor.errors import NonFinite
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit, TailFit
from tailor.numerics.spectrum import eigenvalues, singular_values, stable_rank
from tailor.weights.layer import Layer
from tailor.weights.views import Flattened, View
from tailor.weights.source import Source, read

if TYPE_CHECKING:
    import pandas

BINS = 81  # of the histogram of weights
TAIL_POINTS = 120  # of the survival function of |weights|


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of weights between equally spaced edges.

    Attributes:
        low: First edge.
        high: Last edge.
        counts: One for each bin.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """Share of values at or above x, for the drawing of a tail.

    Attributes:
        x: Values, rising.
        share: Share of all values that are at least x.
    """

    x: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAnalysis:
    """What one weight matrix looks like.

    Attributes:
        name: Canonical name of the layer.
        shape: Shape of the stored tensor.
        dtype: Stored element type.
        aliases: Other names of the same tensor.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        zeros: Share of weights that are exactly zero.
        singular_values: All of them, largest first.
        frobenius_norm: Root of the sum of squares.
        spectral_norm: Largest singular value.
        stable_rank: (Frobenius norm / spectral norm)^2.
        spectrum: Power law of the eigenvalues (squared singular values, see
            ``numerics.spectrum.eigenvalues``), or why not.
        entries: Power law of the sizes of the weights, or why not.
        histogram: Of the weights.
        survival: Of the sizes of the weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...]
    rows: int
    columns: int
    zeros: float
    singular_values: tuple[float, ...]
    frobenius_norm: float
    spectral_norm: float
    stable_rank: float
    spectrum: PowerLawFit | NoFit
    entries: PowerLawFit | NoFit
    histogram: Histogram
    survival: Survival


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A tensor that was not analyzed, and why.

    Attributes:
        name: Canonical name.
        shape: Its shape.
        dtype: Its element type.
        reason: Why not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All matrices of one model.

    Attributes:
        source: What was analyzed.
        layers: One record for each matrix, in natural order.
        skipped: Every other tensor.
        provenance: Versions and settings.
    """

    source: str
    layers: tuple[LayerAnalysis, ...]
    skipped: tuple[Skipped, ...]
    provenance: records.Provenance

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each matrix; a fit that was refused leaves its numbers empty."""
        import pandas

        return pandas.DataFrame([self._row(layer) for layer in self.layers])

    def _row(self, layer: LayerAnalysis) -> dict[str, Any]:
        row: dict[str, Any] = {
            "source": self.source,
            "layer": layer.name,
            "shape": "x".join(map(str, layer.shape)),
            "dtype": layer.dtype,
            "rows": layer.rows,
            "columns": layer.columns,
            "zeros": layer.zeros,
            "frobenius_norm": layer.frobenius_norm,
            "spectral_norm": layer.spectral_norm,
            "stable_rank": layer.stable_rank,
        }
        for prefix, fit in (("", layer.spectrum), ("entries_", layer.entries)):
            found = asdict(fit) if isinstance(fit, PowerLawFit) else {}
            for key in ("alpha", "sigma", "low", "high", "xmin", "D", "n_tail"):
                row[prefix + key] = found.get(key)
            row[f"{prefix}reason"] = "" if isinstance(fit, PowerLawFit) else fit.reason
        return row | self.provenance.stamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyses:
    """Several models side by side; what ``analysis.json`` holds.

    Attributes:
        analyses: One for each model.
    """

    analyses: tuple[Analysis, ...]


Watch = Callable[[str, int, int], None]


def analyze(
    source: Source,
    *,
    spectrum: TailFit | None = None,
    entries: TailFit | None = None,
    view: View | None = None,
    engine: Engine | None = None,
    label: str | None = None,
    seed: int | None = None,
    watch: Watch | None = None,
) -> Analysis:
    """Measure every weight matrix of a model; at most one is in memory at a time.

    Args:
        source: A module, a state dict, a file or a folder; see ``read``.
        spectrum: Fit of the eigenvalues' tail; ``Clauset()`` by default.
        entries: Fit of the weights' tail; ``Clauset(largest=10_000)`` by default.
        view: How tensors become matrices; ``Flattened()`` by default.
        engine: Where the work runs; ``Local()`` by default.
        label: Name for the report; what ``read`` calls the source by default.
        seed: Seed of the run that made the model, for the record.
        watch: Called after each layer with its name, its number and how many there are.

    Returns:
        One record for each matrix, and every tensor that is none.

    Raises:
        SourceError: The source cannot be read.
        NonFinite: A weight is NaN or infinite; the message names the layer.
    """
    spectrum = Clauset() if spectrum is None else spectrum
    entries = Clauset(largest=10_000) if entries is None else entries
    view = Flattened() if view is None else view
    weights = read(source)
    tasks = [
        _Measurement(layer=layer, spectrum=spectrum, entries=entries, view=view)
        for layer in weights.layers
    ]
    done = []
    for found in (Local() if engine is None else engine).map(
        _measure, tasks, [_cost(layer) for layer in weights.layers]
    ):
        done.append(found)
        if watch is not None:
            watch(found.name, len(done), len(tasks))
    return Analysis(
        source=weights.source if label is None else label,
        layers=tuple(done),
        skipped=tuple(
            Skipped(name=o.name, shape=o.shape, dtype=o.dtype, reason=o.reason)
            for o in weights.others
        ),
        provenance=records.Provenance.now(seed, spectrum=spectrum, entries=entries, view=view),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measurement:
    layer: Layer
    spectrum: TailFit
    entries: TailFit
    view: View


def _measure(task: _Measurement) -> LayerAnalysis:
    layer = task.layer
    tensor = layer.load().detach()
    bad = int((~torch.isfinite(tensor.to(torch.float32))).sum())
    if bad:
        raise NonFinite(
            f"{layer.name} holds {bad} NaN or infinite values of {tensor.numel()}; "
            "the checkpoint is broken there, use an earlier one"
        )
    matrix = task.view.split(layer.name, tensor)[0].stack[0]
    values = singular_values(matrix)
    sizes = _flat(matrix.abs())
    return LayerAnalysis(
        name=layer.name,
        shape=layer.shape,
        dtype=layer.dtype,
        aliases=layer.aliases,
        rows=matrix.shape[0],
        columns=matrix.shape[1],
        zeros=float((sizes == 0).mean()),
        singular_values=tuple(values.tolist()),
        frobenius_norm=float(torch.linalg.vector_norm(values)),
        spectral_norm=float(values[0]),
        stable_rank=stable_rank(values),
        spectrum=task.spectrum.fit(eigenvalues(values, *matrix.shape).numpy()),
        entries=task.entries.fit(sizes),
        histogram=_histogram(_flat(matrix)),
        survival=_survival(sizes),
    )


def _cost(layer: Layer) -> float:
    rows, columns = layer.shape[0], int(np.prod(layer.shape[1:]))
    return float(rows) * columns * min(rows, columns)


def _flat(matrix: Tensor) -> Float[ndarray, "n"]:
    array: ndarray = matrix.flatten().to(device="cpu", dtype=torch.float64).numpy()
    return array


def _histogram(weights: Float[ndarray, "n"]) -> Histogram:
    top = float(np.abs(weights).max()) or 1.0
    counts, _ = np.histogram(weights, bins=BINS, range=(-top, top))
    return Histogram(low=-top, high=top, counts=tuple(counts.tolist()))


def _survival(sizes: Float[ndarray, "n"]) -> Survival:
    """At up to ``TAIL_POINTS`` ranks, evenly spread over the logarithm of the share."""
    falling = np.sort(sizes[sizes > 0])[::-1]
    if len(falling) == 0:
        return Survival(x=(), share=())
    ranks = np.unique(np.geomspace(1, len(falling), TAIL_POINTS).round().astype(int))[::-1]
    return Survival(
        x=tuple(falling[ranks - 1].tolist()), share=tuple((ranks / len(sizes)).tolist())
    )
