"""Which entries of one matrix go; how many is decided by ``tailor.stages.allocate``."""

from tailor.stages.scores.magnitude import Magnitude
from tailor.stages.scores.score import Drop, Needs, Score, Trimmed

__all__ = ["Drop", "Magnitude", "Needs", "Score", "Trimmed"]
