"""The power law that begins near the peak of the spectrum, as AlphaPruning chooses it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit, TailFit, positive
from tailor.numerics.powerlaw.hill import LEAST_TAIL, tail_fit
from tailor.numerics.powerlaw.search import closest, different, tails

BINS = 100  # of log10 of the values, between the least and the largest; AlphaPruning


@dataclass(frozen=True, slots=True, kw_only=True)
class XminPeak(TailFit):
    """Least KS distance among thresholds near the peak of the density of log10 x.

    With x_p the left edge of the fullest of 100 bins of log10 x, the candidates for xmin are
    the values in [0.95, 1.5] x_p (Lu et al. 2024, AlphaPruning, ``xmin_peak``; the same rule in
    TempBalance and in WeightWatcher's ``fix_fingers="xmin_peak"``). Maximum likelihood and KS
    distance are those of Clauset, with fewer thresholds to choose from.

    The choice is unstable, since the fullest bin of a flat histogram is an accident: twelve
    Gaussian 512 x 512 matrices give 3.9 to 7.2. The standard error takes xmin as given.

    Attributes:
        compat: Use the lower end as those programs compute it, log10(0.95 x_p), a logarithm
            that is compared with the values themselves. It depends on the units (below x_p = 1
            it is negative and bounds nothing), and tails of any size count. Otherwise the
            fit is free of scale and a tail has at least ten values.
    """

    exponent_of_tail: ClassVar[bool] = False

    compat: bool = False

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``."""
        x = positive(values)
        least = 2 if self.compat else LEAST_TAIL
        if len(x) < least:
            return NoFit(reason=f"{len(x)} values, needs {least}", n=len(x))
        lowest, highest = self._window(x)
        near, times = different(x[x >= lowest])
        tried = tails(np.log(near), times, least)
        tried = replace(tried, rate=tried.rate[: int((near <= highest).sum())])
        if len(tried.rate) == 0:
            return NoFit(reason=f"no tail of {least} values begins near the peak", n=len(x))
        start, _ = closest(tried)
        tail, rate = int(tried.count[start]), float(tried.rate[start])
        return tail_fit(x, tail, xmin=float(near[start]), alpha=1 + rate, sigma=rate / tail**0.5)

    def _window(self, x: Float[ndarray, "n"]) -> tuple[float, float]:
        """Where xmin may lie."""
        counts, edges = np.histogram(np.log10(x / x[-1]), bins=BINS)  # of x / xmax: scale-free
        peak = float(x[-1] * 10 ** edges[np.argmax(counts)])
        return float(np.log10(0.95 * peak)) if self.compat else 0.95 * peak, 1.5 * peak
