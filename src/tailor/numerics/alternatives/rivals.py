"""Laws that can look like a power law: exponential, lognormal and stretched exponential.

Each is the law above xmin, given that a value is at least xmin (Clauset, Shalizi & Newman 2009,
table 2.1). The lognormal and the stretched exponential have the power law as a limit. Both reach
their largest likelihood in that limit, rather than at a true member, if and only if the mean of
t^2 is at least twice the squared mean of t, where t = ln(x / xmin); then t varies as much as in
a power law, or more.
"""

import math

import numpy as np

from tailor.numerics.alternatives.tail import Member, Tail, falling_root, power_law

FAR = 1e4  # beyond, a law cannot be told from its limit in double precision
SCALED = 5.0  # from here on, the tail of the normal distribution by a continued fraction


def exponential(tail: Tail) -> Member:
    """p(x) ~ exp(-rate x)."""
    rate = 1 / float(tail.excess.mean())
    density = math.log(rate) - rate * tail.excess + tail.log
    return Member(parameters={"rate": rate / tail.xmin}, density=density)


def lognormal(tail: Tail) -> Member:
    """The logarithm of x is normal(mu, sigma); t is then a normal variable cut at zero.

    The ratio of the mean of t^2 to the squared mean of t depends on the cut alone, measured
    in sigmas, and grows with it from 1 to 2. So the likelihood equations (Cohen 1950) are
    one equation in one unknown.
    """
    mean = float(tail.log.mean())
    ratio = float(np.square(tail.log).mean()) / mean**2
    if ratio >= excess(FAR)[1]:
        return _in_the_limit(tail)
    cut = -FAR
    if ratio > excess(cut)[1]:
        cut = falling_root(lambda cut: ratio - excess(cut)[1], -FAR, FAR)
    sigma = mean / excess(cut)[0]
    scaled = tail.log / sigma
    density = log_hazard(cut) - math.log(sigma) - cut * scaled - scaled * scaled / 2
    parameters = {"mu": math.log(tail.xmin) - cut * sigma, "sigma": sigma}
    return Member(parameters=parameters, density=density)


def stretched_exponential(tail: Tail) -> Member:
    """P(X > x) ~ exp(-(rate x)^beta), a Weibull law cut at xmin.

    The rate is given by its logarithm, as it outgrows every number where beta is small.

    With the rate at its best for each beta, the log likelihood is concave in beta, since the
    mean of expm1(beta t) / beta is a mixture of exponentials in beta.
    """
    t = tail.log
    mean, top = float(t.mean()), float(t.max())

    def slope(beta: float) -> float:
        weights = np.exp(beta * (t - top))
        whole = float(weights.mean()) - math.exp(-beta * top)
        return mean + 1 / beta - float((t * weights).mean()) / whole

    low, high = 1 / (FAR * mean), 1 / mean
    if float(np.square(t).mean()) >= 2 * mean**2 or slope(low) <= 0:
        return _in_the_limit(tail)
    while slope(high) > 0:
        high *= 2
    beta = falling_root(slope, low, high)
    whole = float(np.exp(beta * (t - top)).mean()) - math.exp(-beta * top)
    growth = beta * top + math.log(whole)  # ln of the mean of expm1(beta t)
    strength = np.exp(beta * t - growth) - math.exp(-growth)  # (rate xmin)^beta expm1(beta t)
    density = math.log(beta) + beta * t - growth - strength
    log_rate = -growth / beta - math.log(tail.xmin)
    return Member(parameters={"log_rate": log_rate, "beta": beta}, density=density)


def _in_the_limit(tail: Tail) -> Member:
    return Member(parameters={}, density=power_law(tail).density, limit=True)


def excess(cut: float) -> tuple[float, float]:
    """(mean, mean square over squared mean) of how far a standard normal exceeds a cut.

    With h the hazard at the cut, the mean is d = h - cut and the mean square 1 - cut d. Far
    out both differences cancel; there d = 1 / (cut + w), with w = 2 / (cut + 3 / (cut + ...))
    from the continued fraction of the hazard, and the ratio is w (cut + w).
    """
    if cut < SCALED:
        mean = math.exp(log_hazard(cut)) - cut
        return mean, (1 - cut * mean) / mean**2
    w = _fraction(cut)
    return 1 / (cut + w), w * (cut + w)


def log_hazard(cut: float) -> float:
    """Logarithm of density over upper tail of the standard normal distribution."""
    if cut >= SCALED:
        return math.log(cut + 1 / (cut + _fraction(cut)))
    tail = math.erfc(cut / math.sqrt(2)) / 2
    return -cut * cut / 2 - math.log(2 * math.pi) / 2 - math.log(tail)


def _fraction(cut: float) -> float:
    """2 / (cut + 3 / (cut + 4 / (cut + ...))), for a cut of at least 5."""
    w = 0.0
    for k in range(60, 1, -1):
        w = k / (cut + w)
    return w
