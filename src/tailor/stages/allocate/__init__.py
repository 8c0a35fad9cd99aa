"""How many entries each matrix loses; which ones is decided by ``tailor.stages.scores``."""

from tailor.stages.allocate.allocation import Allocated, Allocation

__all__ = ["Allocated", "Allocation"]
