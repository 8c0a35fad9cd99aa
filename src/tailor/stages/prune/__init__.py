"""Zeros in the matrices of a network.

::

    plain, arguments    what can be pruned, and what is refused
    layers, error       one matrix after the other, with a row for the report
    network             all matrices of a network
    masks, hold         which entries stay, and zeros that last through training
    rounds              schedules, rewinding, pruning in rounds
"""

from tailor.stages.prune.hold import Hold, hold
from tailor.stages.prune.layers import PrunedLayer, PrunedMatrix, prune_layers
from tailor.stages.prune.masks import Masks
from tailor.stages.prune.network import Pruned, prune
from tailor.stages.prune.rounds import cubic, geometric, iterate, rewind

__all__ = [
    "Hold",
    "Masks",
    "Pruned",
    "PrunedLayer",
    "PrunedMatrix",
    "cubic",
    "geometric",
    "hold",
    "iterate",
    "prune",
    "prune_layers",
    "rewind",
]
