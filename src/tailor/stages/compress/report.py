"""What a compression did, tensor by tensor and on the whole."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tailor.records import Provenance

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorReport:
    """What became of one tensor.

    Attributes:
        name: Its name in the state dict.
        shape: Its shape, as stored.
        target: Share of its entries that were to go; None where nothing was pruned.
        zeros: Share of its entries that are zero now.
        metric: What the allocation looked at, such as the density exponent alpha; None if nothing.
        norm: ||W||, the Frobenius norm, as it came; None where there was no tensor of this shape.
        error: ||W - W'|| / ||W||, W' being what the file holds; None where norm is.
        output_error: The same for its outputs on the calibration data; None without data.
        dense_bytes: Bytes as it came.
        packed_bytes: Bytes of its code.
        parts: What these bytes are for, by part of the code: symbols, tables of their
            frequencies, classes of rows and columns, what is stored as it is, and so on.
        limit_bytes: Order-0 entropy of its symbols in bytes.
        mode: How it is stored, such as "grid".
        levels: Different values that it takes; None for a tensor without symbols.
        tail_index: Tail index (not density exponent) of a Student t law fitted to its entries;
            None where the fit was refused.
        predicted_bits: Bits for each weight that a law of this tail index needs at this error;
            None where it cannot be told.
    """

    name: str
    shape: tuple[int, ...]
    target: float | None
    zeros: float
    metric: float | None
    norm: float | None
    error: float | None
    output_error: float | None
    dense_bytes: int
    packed_bytes: float
    parts: dict[str, float]
    limit_bytes: float
    mode: str
    levels: int | None
    tail_index: float | None
    predicted_bits: float | None

    @property
    def bits(self) -> float:
        """Measured bits for each weight."""
        return 8 * self.packed_bytes / self.elements if self.elements else 0.0

    @property
    def elements(self) -> int:
        """Number of its entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The same recipe with a uniform allocation, for comparison.

    Attributes:
        sparsity: Share of zeros.
        error: ||W - W'|| / ||W|| over all matrices together; None where shapes changed.
        quality: What ``evaluate`` gave; None without it.
        file_bytes: Bytes of the file.
    """

    sparsity: float
    error: float | None
    quality: float | None
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One size and what is left of the quality.

    Attributes:
        allocation: As text; ``UniformAllocation()`` is the one to compare with.
        sparsity: Share of zeros.
        file_bytes: Bytes of the file.
        quality: What ``evaluate`` gave.
    """

    allocation: str
    sparsity: float
    file_bytes: int
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds of one forward pass, median of alternating runs in one process.

    Attributes:
        before: Of the network that came.
        after: Of the network that is left.
        batch: Shape of the example.
        threads: Of the linear algebra.
        runs: Repetitions of each.
    """

    before: float
    after: float
    batch: tuple[int, ...]
    threads: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionReport:
    """What a compression did.

    Attributes:
        source: What was compressed.
        recipe: The steps, as text.
        tensors: Every tensor of the file, in its order.
        sparsity: Share of zeros among the entries of all matrices.
        error: ||W - W'|| / ||W|| over all matrices together; None where shapes changed.
        parameters: Number of stored elements, before and after.
        dense_bytes: Bytes of all tensors as they came.
        file_bytes: Bytes of the file, header and all.
        stream_bytes: Bytes of its stream: all that a decoder has to be told about the weights.
        limit_bytes: Order-0 entropy of all symbols, in bytes.
        quality_name: What ``evaluate`` measures; empty without it.
        quality_before: Its value for the network that came.
        quality_after: Its value for the network that the file holds.
        uniform: The same with a uniform allocation, where another one was asked for.
        frontier: Several sizes, where they were asked for.
        latency: Where an example was given.
        left_alone: (name, reason) of what was to be changed and was not.
        notes: What a user has to know, a sentence each.
        provenance: Versions, seed and settings.
    """

    source: str
    recipe: str
    tensors: tuple[TensorReport, ...]
    sparsity: float
    error: float | None
    parameters: tuple[int, int]
    dense_bytes: int
    file_bytes: int
    stream_bytes: int
    limit_bytes: float
    quality_name: str
    quality_before: float | None
    quality_after: float | None
    uniform: Beside | None
    frontier: tuple[FrontierPoint, ...]
    latency: Latency | None
    left_alone: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    provenance: Provenance

    @property
    def times_smaller(self) -> float:
        """Dense bytes for each byte of the file."""
        return self.dense_bytes / self.file_bytes

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each tensor."""
        import pandas

        names = [name for name in TensorReport.__slots__ if name not in ("shape", "parts")]
        rows = [
            {
                "name": one.name,
                "shape": "x".join(map(str, one.shape)),
                **{name: getattr(one, name) for name in names if name != "name"},
                "bits": one.bits,
            }
            for one in self.tensors
        ]
        return pandas.DataFrame(rows)
