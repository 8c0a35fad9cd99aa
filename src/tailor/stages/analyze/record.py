"""What an analysis is: one record for each matrix, a table of them, and their summary."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tailor import records
from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.weights.layer import Other

if TYPE_CHECKING:
    import pandas

Value: TypeAlias = float | int | str | None


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
    """What one weight matrix, or one pool of matrices, looks like.

    Attributes:
        name: Canonical name of the tensor, and which part of it.
        tensor: Canonical name of the tensor.
        kind: Kind of layer, for people; no number depends on it; not compared.
        shape: Shape of the stored tensor.
        dtype: Stored element type.
        aliases: Other names of the same tensor.
        rows: Rows of one matrix.
        columns: Columns of one matrix.
        matrices: Number of matrices whose eigenvalues are pooled.
        zeros: Share of weights that are exactly zero.
        singular_values: All of them, largest first.
        frobenius_norm: Root of the sum of squares.
        spectral_norm: Largest singular value.
        stable_rank: (Frobenius norm / spectral norm)^2.
        entropy: Of the normalised eigenvalues, 0 to 1; None where the rank is unknown or 1.
        matrix_rank: Singular values above rounding error; None where they cannot be told.
        sv_min: Least singular value; None where it cannot be told.
        spectrum: Power law of the eigenvalues (squared singular values), or why not.
        verdict: ``under-trained``, ``well-trained``, ``over-trained`` or ``undecided``.
        log_alpha_norm: log10 of the sum of eigenvalues^alpha; None without a fit.
        detX_num: Number of top eigenvalues when their product, scaled to mean 1, first
            falls below 1.
        entries: Power law of the sizes of the weights, or why not; None where not asked for.
        measures: Columns of the measures that were asked for.
        histogram: Of the weights; None where not asked for.
        survival: Of the sizes of the weights; None where not asked for.
        seconds: Wall time that this matrix took; not compared.
    """

    name: str
    tensor: str
    kind: str = field(compare=False)
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...]
    rows: int
    columns: int
    matrices: int
    zeros: float
    singular_values: tuple[float, ...]
    frobenius_norm: float
    spectral_norm: float
    stable_rank: float
    entropy: float | None
    matrix_rank: int | None
    sv_min: float | None
    spectrum: PowerLawFit | NoFit
    verdict: str
    log_alpha_norm: float | None
    detX_num: int | None  # noqa: N815 (the name by which it is known)
    entries: PowerLawFit | NoFit | None
    measures: dict[str, Value]
    histogram: Histogram | None
    survival: Survival | None
    seconds: float = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A matrix that should have been analyzed and could not be.

    Attributes:
        name: Canonical name of the tensor, and which part of it.
        shape: Its shape.
        dtype: Its element type.
        reason: What is wrong with it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A tensor that is no matrix to analyze, and why.

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

    @classmethod
    def of(cls, other: Other) -> "Skipped":
        """The record of a tensor that ``read`` found to be no layer."""
        return cls(name=other.name, shape=other.shape, dtype=other.dtype, reason=other.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All matrices of one model.

    Attributes:
        source: What was analyzed.
        layers: One record for each matrix, in natural order.
        failed: Matrices that are broken, such as by NaN; the others are not touched by that.
        skipped: Every other tensor.
        provenance: Versions and settings.
    """

    source: str
    layers: tuple[LayerAnalysis, ...]
    failed: tuple[Failed, ...]
    skipped: tuple[Skipped, ...]
    provenance: records.Provenance

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each matrix; a number that could not be told is empty.

        Columns carry WeightWatcher's names where they mean the same; see the manual.
        """
        import pandas

        from tailor.stages.analyze.table import failed_row, row

        rows = [row(layer) for layer in self.layers] + [failed_row(one) for one in self.failed]
        names = dict.fromkeys(name for one in rows for name in one)  # by columns: half the time
        columns = {name: [one.get(name) for one in rows] for name in names}
        return pandas.DataFrame({"source": self.source} | columns | self.provenance.stamp())

    def summary(self) -> "pandas.DataFrame":
        """Mean, median and tail-weighted mean over the matrices that have the number."""
        from tailor.stages.analyze.table import summarize

        return summarize(self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyses:
    """Several models side by side; what ``analysis.json`` holds.

    Attributes:
        analyses: One for each model.
    """

    analyses: tuple[Analysis, ...]
