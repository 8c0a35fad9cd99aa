"""A power law with an exponential cut-off: p(x) ~ x^-alpha exp(-rate x) above xmin.

In t = ln(x / xmin) and z = x / xmin - 1 the density of t is exp(-a t - m z) / I(a, m), with
a = alpha - 1, m = rate xmin and I(a, m) the integral of exp(-a t - m z) over t >= 0, which is
m^a e^m Gamma(-a, m). This is an exponential family in (a, m), so its log likelihood is concave,
has the means of t and z as sufficient statistics, and Newton's method needs only the means and
covariances of t and z under the model, whatever the number of values.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.alternatives.tail import Member, Tail, power_law, tail_above
from tailor.numerics.powerlaw.fit import NoFit

NODES = 200
DEPTH = 40.0  # the integrals stop where the integrand has fallen by exp(-40)
LEAST_CUTOFF = 1e-12  # in units of 1 / xmin; below, the law is a power law


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedPowerLaw:
    """A power law with an exponential cut-off.

    Attributes:
        alpha: Density exponent below the cut-off, at least 1.
        rate: 1 / cut-off, in 1 / units of the values; WeightWatcher's ``Lambda``. 0 if a pure
            power law is the best.
        xmin: Where the tail begins.
        loglik: Log likelihood of the tail.
        n_tail: Number of values in it.
    """

    alpha: float
    rate: float
    xmin: float
    loglik: float
    n_tail: int


def truncated_power_law(values: Float[ndarray, "n"], xmin: float) -> TruncatedPowerLaw | NoFit:
    """Maximum-likelihood fit to the values at or above xmin.

    Alpha is at least 1 and the rate not negative, as in the powerlaw package (and through it
    in WeightWatcher's ``fit="TPL"``); with alpha below 1 it would be a gamma law rather than
    a power law.

    Raises:
        UsageError: xmin is not positive, or a value is NaN or infinite.
    """
    tail = tail_above(values, xmin, 2)
    if isinstance(tail, NoFit):
        return tail
    member = cut_off(tail)
    n = len(tail.log)
    logs = n * math.log(xmin) + float(tail.log.sum())  # from densities of t to those of x
    return TruncatedPowerLaw(
        alpha=member.parameters["alpha"],
        rate=member.parameters["rate"],
        xmin=xmin,
        loglik=float(member.density.sum()) - logs,
        n_tail=n,
    )


def cut_off(tail: Tail) -> Member:
    """The member with the largest likelihood among alpha >= 1, rate >= 0."""
    means = np.array([tail.log.mean(), tail.excess.mean()])
    index = 1 / float(means[0])
    # The slope of the likelihood in m at the best power law; that is the maximum if it falls.
    if index > 1 and float(means[1]) >= 1 / (index - 1):
        return _pure(tail)
    a, m = _maximise(means, 0.0, 1 / float(means[1]), free=False)
    if moments(a, m)[1][0] > means[0]:  # the likelihood rises with a, at the border a = 0
        a, m = _maximise(means, a, m, free=True)
    if m <= LEAST_CUTOFF:
        return _pure(tail)
    density = -a * tail.log - m * tail.excess - moments(a, m)[0]
    return Member(parameters={"alpha": 1 + a, "rate": m / tail.xmin}, density=density)


def _pure(tail: Tail) -> Member:
    best = power_law(tail)
    return Member(parameters=best.parameters | {"rate": 0.0}, density=best.density, limit=True)


def _maximise(means: Float[ndarray, "2"], a: float, m: float, *, free: bool) -> tuple[float, float]:
    """Newton's method in (a, ln m), or in ln m alone, with steps halved until they climb."""
    value, expected, covariance = _loglik(means, a, m)
    for _ in range(100):
        scale = np.array([1.0, m])
        gradient = (expected - means) * scale
        curvature = covariance * scale[:, None] * scale
        if free:
            step = np.linalg.solve(curvature, gradient)
        else:
            step = np.array([0.0, gradient[1] / curvature[1, 1]])
        promised = float(gradient @ step)
        if promised < 1e-22 or m <= LEAST_CUTOFF:
            break
        size = min(1.0, 3 / abs(float(step[1]) or 1.0))
        for _ in range(40):
            trial = a + size * float(step[0]), m * math.exp(size * float(step[1]))
            if trial[0] >= 0:
                climbed = _loglik(means, *trial)
                if climbed[0] >= value + 1e-4 * size * promised - 1e-15 * abs(value):
                    break
            size /= 2
        else:
            break  # rounding hides any gain
        (a, m), (value, expected, covariance) = trial, climbed
    return a, m


def _loglik(
    means: Float[ndarray, "2"], a: float, m: float
) -> tuple[float, Float[ndarray, "2"], Float[ndarray, "2 2"]]:
    """(log likelihood of one value, model means, model covariances)."""
    log_integral, expected, covariance = moments(a, m)
    return -a * float(means[0]) - m * float(means[1]) - log_integral, expected, covariance


def moments(a: float, m: float) -> tuple[float, Float[ndarray, "2"], Float[ndarray, "2 2"]]:
    """(ln I, means, covariances) of t and z = expm1(t) under exp(-a t - m z), a >= 0, m > 0.

    Gauss-Legendre up to where even z^2 times the density has died out.
    """
    end = math.log1p((DEPTH + 2 * math.log1p(2 * DEPTH / m)) / m)
    if a > 2:
        end = min(end, DEPTH / (a - 2))
    nodes, weights = _rule()
    t = end * nodes
    z = np.expm1(t)
    mass = weights * np.exp(-a * t - m * z)
    whole = float(mass.sum())
    mass /= whole
    both = np.stack([t, z])
    expected = both @ mass
    both -= expected[:, None]
    return math.log(end * whole), expected, (both * mass) @ both.T


@lru_cache(maxsize=1)
def _rule() -> tuple[Float[ndarray, "nodes"], Float[ndarray, "nodes"]]:
    """Nodes and weights of Gauss-Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2
