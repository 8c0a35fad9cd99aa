"""Spectra and tails of every weight matrix: how heavy-tailed is a network, without data?"""

from tailor.stages.analyze.layer import SpectrumFit
from tailor.stages.analyze.measures import (
    Compressible,
    Exact,
    MarchenkoPastur,
    Matrix,
    Measure,
    PValue,
    Rivals,
    RowsAndColumns,
    Shuffled,
    StableIndex,
)
from tailor.stages.analyze.norms import LayerNorms, NormAnalysis, norms
from tailor.stages.analyze.pipeline import analyze
from tailor.stages.analyze.record import (
    Analyses,
    Analysis,
    Failed,
    Histogram,
    LayerAnalysis,
    Skipped,
    Survival,
)

__all__ = [
    "Analyses",
    "Analysis",
    "Compressible",
    "Exact",
    "Failed",
    "Histogram",
    "LayerAnalysis",
    "LayerNorms",
    "MarchenkoPastur",
    "Matrix",
    "Measure",
    "NormAnalysis",
    "RowsAndColumns",
    "PValue",
    "Rivals",
    "Shuffled",
    "Skipped",
    "SpectrumFit",
    "StableIndex",
    "Survival",
    "analyze",
    "norms",
]
