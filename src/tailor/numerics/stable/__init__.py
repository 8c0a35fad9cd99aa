"""Alpha-stable laws: their sampler, and estimators of their tail index, one method a file."""

from tailor.numerics.stable.draw import sample_positive_stable, sample_stable
from tailor.numerics.stable.fit import StableEstimator, StableFit
from tailor.numerics.stable.koutrouvelis import Koutrouvelis
from tailor.numerics.stable.law import SymmetricStable, tabulate
from tailor.numerics.stable.likelihood import StableMLE
from tailor.numerics.stable.log_moment import LogMoment, log_moment_rows
from tailor.numerics.stable.mcculloch import McCulloch
from tailor.numerics.stable.two_point import TwoPoint

__all__ = [
    "Koutrouvelis",
    "LogMoment",
    "McCulloch",
    "StableEstimator",
    "StableFit",
    "StableMLE",
    "SymmetricStable",
    "TwoPoint",
    "log_moment_rows",
    "sample_positive_stable",
    "sample_stable",
    "tabulate",
]
