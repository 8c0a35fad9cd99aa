"""From a network to a short file on coarse grids: rounded step by step, then searched.

Incremental quantisation after Zhou et al. (2017), for networks of which every layer is learned
and paid for.
"""

from tailor.stages.incremental.pipeline import incremental
from tailor.stages.incremental.rounds import ROUNDS
from tailor.stages.incremental.screened import screened

__all__ = ["ROUNDS", "incremental", "screened"]
