"""Power laws fitted to the upper tail of positive numbers, one method a file."""

from tailor.numerics.powerlaw.clauset import Clauset
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit, TailFit

__all__ = ["Clauset", "NoFit", "PowerLawFit", "TailFit"]
