"""Tasks: how to build a network, which data it is for, and how its errors are counted.

A certificate speaks of a task, so everything here must be fixed before the data are looked at:
the architecture, the way inputs are scaled, and the split.
"""

from tailor.tasks.data import Data, ErrorCount, zero_one
from tailor.tasks.digits import DIGITS, DIGITS_TRAIN
from tailor.tasks.edges import OrientedEdges, Quadratic, RandomFeatures
from tailor.tasks.files import read_idx, read_table
from tailor.tasks.find import EMBEDDED, find
from tailor.tasks.frozen import Frozen
from tailor.tasks.task import Builder, Task

__all__ = [
    "DIGITS",
    "DIGITS_TRAIN",
    "EMBEDDED",
    "Builder",
    "Data",
    "ErrorCount",
    "Frozen",
    "OrientedEdges",
    "Quadratic",
    "RandomFeatures",
    "Task",
    "find",
    "read_idx",
    "read_table",
    "zero_one",
]
