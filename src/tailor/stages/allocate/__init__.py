"""How many entries each matrix loses; which ones is decided by ``tailor.stages.scores``."""

from tailor.stages.allocate.allocation import Allocated, Allocation
from tailor.stages.allocate.alpha import AlphaPruning
from tailor.stages.allocate.blocks import blocks
from tailor.stages.allocate.error import ByDeviation, ByError, ByTailIndex
from tailor.stages.allocate.neurons import LqPerNeuron
from tailor.stages.allocate.outliers import OWL
from tailor.stages.allocate.plain import ERK, FixedAllocation, Ramp, UniformAllocation
from tailor.stages.allocate.pq import PQIndex
from tailor.stages.allocate.sensitivity import Sensitivity
from tailor.stages.allocate.threshold import LAMP, GlobalMagnitude

__all__ = [
    "ERK",
    "LAMP",
    "OWL",
    "Allocated",
    "Allocation",
    "AlphaPruning",
    "ByDeviation",
    "ByError",
    "ByTailIndex",
    "FixedAllocation",
    "GlobalMagnitude",
    "LqPerNeuron",
    "PQIndex",
    "Ramp",
    "Sensitivity",
    "UniformAllocation",
    "blocks",
]
