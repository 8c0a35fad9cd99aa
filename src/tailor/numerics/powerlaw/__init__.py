"""Power laws fitted to the upper tail of positive numbers, one method a file."""

from tailor.numerics.powerlaw.clauset import Clauset, RobustClauset
from tailor.numerics.powerlaw.discrete import DiscreteClauset
from tailor.numerics.powerlaw.farms import FARMS, MatrixFit
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit, TailFit
from tailor.numerics.powerlaw.goodness import GoodnessOfFit, p_value
from tailor.numerics.powerlaw.hill import Hill, HillMid
from tailor.numerics.powerlaw.moments import DekkersEinmahlDeHaan, Pickands
from tailor.numerics.powerlaw.peak import XminPeak
from tailor.numerics.powerlaw.search import distance_curve
from tailor.numerics.powerlaw.weightwatcher import WeightWatcherCompat

__all__ = [
    "TailFit",
    "MatrixFit",
    "PowerLawFit",
    "NoFit",
    "Clauset",
    "RobustClauset",
    "DiscreteClauset",
    "Hill",
    "HillMid",
    "XminPeak",
    "FARMS",
    "DekkersEinmahlDeHaan",
    "Pickands",
    "WeightWatcherCompat",
    "GoodnessOfFit",
    "p_value",
    "distance_curve",
]
