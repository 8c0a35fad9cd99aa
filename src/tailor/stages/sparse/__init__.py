"""Linear layers that store only what is not zero, where that is faster on this machine.

Zeros alone speed nothing up: a dense product multiplies by them as by any number. A product with
a matrix in compressed sparse rows (CSR) skips them, at a higher price for each other entry, so that
it pays from about 80 to 90 % zeros on, depending on the processor and the batch. So it is timed.
"""

from tailor.stages.sparse.linear import SparseLinear, densified
from tailor.stages.sparse.measure import Measure, alternately
from tailor.stages.sparse.pipeline import Sparse, Timed, speed_note, to_sparse_cpu

__all__ = [
    "Measure",
    "Sparse",
    "SparseLinear",
    "Timed",
    "alternately",
    "densified",
    "speed_note",
    "to_sparse_cpu",
]
