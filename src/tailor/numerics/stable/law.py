"""Density and distribution function of the standard symmetric stable law, fast and to seven digits.

The law of index a has characteristic function exp(-|t|^a): the normal law of variance 2 at
a = 2, the Cauchy law at a = 1.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.polynomial.polynomial import polyval

from tailor.errors import UsageError

LEAST_INDEX = 0.5  # below it the integrals need more nodes than are used here
_NODES = 256  # Gauss-Legendre nodes of the inversion integrals
_GRID = 320  # points at which the integrals are taken; cubic interpolation between
_DECAY = 30.0  # the integrals stop where exp(-t^a) is exp(-30)
_REACH = 12.0  # the series takes over beyond this many scales (less below index 1)
_TERMS = 60  # most terms of the series


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SymmetricStable:
    """The standard symmetric stable law of one index, tabulated; see ``tabulate``.

    Attributes:
        index: Tail index, in (0, 2].
        reach: Beyond this many scales the tail series is used instead of the table.
        x: Table positions, from 0 to ``reach``.
        log_density: Logarithm of the density there.
        slope: Its derivative.
        above: P(X > x) there.
        density: The density there.
        series: Coefficients of the tail series, see ``_series``.
    """

    index: float
    reach: float
    x: Float[ndarray, "grid"]
    log_density: Float[ndarray, "grid"]
    slope: Float[ndarray, "grid"]
    above: Float[ndarray, "grid"]
    density: Float[ndarray, "grid"]
    series: Float[ndarray, "terms"]

    def log_pdf(self, values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Logarithm of the density."""
        size = np.abs(values)
        if self.index == 2:
            normal: ndarray = -(size**2) / 4 - math.log(2 * math.sqrt(math.pi))
            return normal
        inside = size <= self.reach
        out: ndarray = np.empty_like(size)
        out[inside] = self._cubic(size[inside], self.log_density, self.slope)
        far = size[~inside]
        out[~inside] = np.log(polyval(far**-self.index, self.series) / far)
        return out

    def cdf(self, values: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """P(X <= x)."""
        size = np.abs(values)
        inside = size <= self.reach
        above = np.empty_like(size)
        above[inside] = self._cubic(size[inside], self.above, -self.density)
        order = self.index * np.maximum(1, np.arange(len(self.series)))
        above[~inside] = polyval(size[~inside] ** -self.index, self.series / order)
        below: ndarray = np.where(values > 0, 1 - above, above)
        return below

    def quantile(self, level: float) -> float:
        """The x with P(X <= x) = ``level``, by bisection; 0 < ``level`` < 1."""
        if level == 0.5:
            return 0.0
        target = min(level, 1 - level)
        low, high = 0.0, 1.0
        while self.cdf(np.array([-high]))[0] > target:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            if self.cdf(np.array([-middle]))[0] > target:
                low = middle
            else:
                high = middle
        return high if level > 0.5 else -high

    def _cubic(
        self,
        size: Float[ndarray, "n"],
        value: Float[ndarray, "grid"],
        slope: Float[ndarray, "grid"],
    ) -> Float[ndarray, "n"]:
        """Hermite interpolation in the table, whose positions are quadratic in their number."""
        last = len(self.x) - 2
        left = np.minimum((np.sqrt(size / self.reach) * (last + 1)).astype(np.intp), last)
        width = self.x[left + 1] - self.x[left]
        s = (size - self.x[left]) / width
        start, end = value[left], value[left + 1]
        rise, fall = width * slope[left], width * slope[left + 1]
        turn = 2 * (start - end) + rise + fall
        cubic: ndarray = start + s * (rise + s * (end - start - rise - turn + s * turn))
        return cubic


def tabulate(index: float) -> SymmetricStable:
    """The standard symmetric stable law of an index in [0.5, 2].

    Near the centre the characteristic function is inverted by Gauss-Legendre quadrature; in the
    tails Bergstroem's series is used (Feller 1971, section XVII.6), which converges
    below index 1 and is asymptotic above.

    Raises:
        UsageError: The index lies outside [0.5, 2].
    """
    if not LEAST_INDEX <= index <= 2:
        raise UsageError(f"the index must lie in [{LEAST_INDEX}, 2], but is {index}")
    index = 2.0 if 2 - index < 1e-9 else index  # no double tells these densities apart
    end = _DECAY ** (1 / index)
    reach = _REACH * min(1.0, _DECAY / end)
    x = reach * np.linspace(0, 1, _GRID) ** 2
    t, weight = _nodes(index, end)
    decay = weight * np.exp(-(t**index)) / math.pi
    angle = np.outer(x, t)
    cosine, sine = np.cos(angle), np.sin(angle)
    density = cosine @ decay
    if index == 2:  # the integral loses the far tail of the normal density to rounding
        density = np.exp(-(x**2) / 4) / (2 * math.sqrt(math.pi))
    return SymmetricStable(
        index=index,
        reach=reach,
        x=x,
        log_density=np.log(density),
        slope=-(sine @ (decay * t)) / density,
        above=0.5 - sine @ (decay / t),
        density=density,
        series=_series(index, reach),
    )


def _nodes(index: float, end: float) -> tuple[Float[ndarray, "nodes"], Float[ndarray, "nodes"]]:
    """Nodes and weights on (0, end) for functions that are smooth in t^index and in t.

    With t = end v^p, and p at least 3 / index, the kink of t^index at 0 becomes smooth in v.
    """
    v, weight = _unit_nodes()
    power = math.ceil(3 / index)
    return end * v**power, end * power * v ** (power - 1) * weight


@functools.cache
def _unit_nodes() -> tuple[Float[ndarray, "nodes"], Float[ndarray, "nodes"]]:
    """Gauss-Legendre nodes and weights on (0, 1)."""
    v, weight = np.polynomial.legendre.leggauss(_NODES)
    return (v + 1) / 2, weight / 2


def _series(index: float, reach: float) -> Float[ndarray, "terms"]:
    """Coefficients c of the density's tail series, sum of c[k] x^(-k index - 1) from k = 1.

    As many as are of use at ``reach``: until a term is negligible, or larger than the one before,
    from where on an asymptotic series gets worse. Further out all of them are smaller still.
    """
    found = [0.0]
    last = math.inf
    for k in range(1, _TERMS + 1):
        size = math.exp(math.lgamma(k * index + 1) - math.lgamma(k + 1)) / math.pi
        bound = size * reach ** (-k * index)
        if bound > last or bound < 1e-17:
            break
        last = bound
        found.append(-((-1) ** k) * math.sin(k * math.pi * index / 2) * size)
    return np.array(found)
