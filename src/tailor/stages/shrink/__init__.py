"""Take hidden units, channels and heads out of a network for good.

::

    chain       units, and every module that holds them
    kinds       which tensors of a module count units, and how to cut them
    call        what a module is called with
    trace       its graph, by torch.fx
    operations  which operations act on each unit alone
    walk        from each layer to all that reads its units
    heads       attention
    find        all chains of a model, and why other layers stay
    importance  which units matter
    seen        what readers get on data
    mend        silence units, make up for them
    choice      which units stay
    removal     shrink
    saved       files of smaller networks
"""

from tailor.stages.shrink.importance import (
    ActivationScore,
    ColumnNorm,
    Importance,
    PathScore,
    RowNorm,
    Units,
)
from tailor.stages.shrink.mend import Compensation
from tailor.stages.shrink.removal import Removed, Shrunk, shrink
from tailor.stages.shrink.saved import load_shrunk, resize, save_shrunk, sizes_of
from tailor.stages.shrink.scales import shrink_nodes

__all__ = [
    "ActivationScore",
    "ColumnNorm",
    "Compensation",
    "Importance",
    "PathScore",
    "Removed",
    "RowNorm",
    "Shrunk",
    "Units",
    "load_shrunk",
    "resize",
    "save_shrunk",
    "shrink",
    "shrink_nodes",
    "sizes_of",
]
