"""What can be measured besides norms and exponent; each is a value, each adds its columns."""

from tailor.stages.analyze.measures.entries import Compressible, RowsAndColumns, StableIndex
from tailor.stages.analyze.measures.goodness import PValue, Rivals
from tailor.stages.analyze.measures.measure import Exact, Matrix, Measure
from tailor.stages.analyze.measures.spectral import MarchenkoPastur, Shuffled

__all__ = [
    "Measure",
    "Matrix",
    "Exact",
    "MarchenkoPastur",
    "Shuffled",
    "PValue",
    "Rivals",
    "RowsAndColumns",
    "Compressible",
    "StableIndex",
]
