"""Which entries of one matrix go; how many is decided by ``tailor.stages.allocate``.

::

    score                                   what a rule gets and gives; n:m patterns
    smallest                                exactly so many of the smallest scores
    magnitude, wanda, sparsegpt, scored     the rules
"""

from tailor.stages.scores.magnitude import Magnitude
from tailor.stages.scores.score import Drop, Needs, NofM, Score, Trimmed
from tailor.stages.scores.scored import Scored
from tailor.stages.scores.smallest import smallest_dropped
from tailor.stages.scores.sparsegpt import SparseGPT
from tailor.stages.scores.wanda import Wanda

__all__ = [
    "Drop",
    "Magnitude",
    "Needs",
    "NofM",
    "Score",
    "Scored",
    "SparseGPT",
    "Trimmed",
    "Wanda",
    "smallest_dropped",
]
