"""The three prunings of Barsbey et al. (2021), with their median centring."""

from tailor.stages.schemes.reduce import Reduced, ReducedModel, reduce_model, reduce_weight
from tailor.stages.schemes.units import Entries, Kernels, Nodes, Scheme, SingularValues, Units

__all__ = [
    "Entries",
    "Kernels",
    "Nodes",
    "Reduced",
    "ReducedModel",
    "Scheme",
    "SingularValues",
    "Units",
    "reduce_model",
    "reduce_weight",
]
