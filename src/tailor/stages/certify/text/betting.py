"""An upper bound on a mean in [0, 1] that uses how little the observations vary.

A bettor who believes that the mean of X is below m stakes the share s of a fortune on it, again
for each observation: the fortune is multiplied by 1 + s (m - x) / (1 - m), which is never
negative, and whose expectation is 1 if m is the mean. So a fortune of 1 / delta has probability
at most delta (Markov), and every m at which the fortune has grown that large is refused. The
stakes are mixed, which is a bettor as well (Waudby-Smith & Ramdas 2024, Estimating means of
bounded random variables by betting; Orabona & Jun 2024, Tight concentrations and confidence
sequences from the regret of universal portfolio).

The best stake for losses of 0 and 1 alone gives the relative entropy's bound, so that at worst
this is that bound at ln(number of stakes) nats more, and no price is paid for the variance.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.bounds import kl_upper
from tailor.numerics.bounds.rounding import EPS, up

# Even in the log-odds, for the stakes of small deviations are proportional to them; and all.
STAKES = np.array([1 / (1 + math.exp(-i / 10)) for i in range(-63, 64)] + [1.0])
COARSE = 14  # halvings that tell which settings are worth more
FINE = 44
CELLS = 1 << 13  # factors that are computed at a time
LEVELS = 4096  # means that are tried for a part of a sample
TINY = 1e-12
NEGLIGIBLE = 40.0  # nats below the best stake, from which on a stake adds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanBound:
    """Bounds on one mean, each valid by itself at the same confidence.

    Attributes:
        empirical: Mean of the observations.
        betting: From the mixture of stakes; the one that is claimed.
        kl: Inverse of the relative entropy.
        hoeffding: Mean plus a square root.
    """

    empirical: float
    betting: float
    kl: float
    hoeffding: float

    def scaled(self, low: float, high: float) -> "MeanBound":
        """The same for a loss between ``low`` and ``high``, rounded up."""
        values = (self.empirical, self.betting, self.kl, self.hoeffding)
        empirical, *bounds = [low + (high - low) * value for value in values]
        betting, kl, hoeffding = (min(high, up(value)) for value in bounds)
        return MeanBound(empirical=empirical, betting=betting, kl=kl, hoeffding=hoeffding)


def mean_upper(
    losses: Float64[ndarray, "m"],
    nats: float,
    *,
    n: int | None = None,
    sample_nats: float = 0.0,
) -> MeanBound:
    """All forms side by side.

    Args:
        losses: Independent losses in [0, 1]; with ``n``, those of ``m`` examples drawn from the
            sample without replacement.
        nats: ln(1 / probability of failure), code length included.
        n: Size of the sample, if ``losses`` are of a part of it.
        sample_nats: ln(1 / probability that the part misleads).
    """
    m = len(losses)
    mean = min(1.0, up(float(losses.mean())))
    whole, root = mean, mean
    if n is not None:
        whole = kl_upper(mean, up(sample_nats / m))
        root = up(mean + math.sqrt(sample_nats / (2 * m)))
        betting = betting_upper_subsampled(losses, n, nats, sample_nats)
    else:
        betting = betting_upper(losses, nats)
    size = m if n is None else n
    return MeanBound(
        empirical=float(losses.mean()),
        betting=betting,
        kl=kl_upper(whole, up(nats / size)),
        hoeffding=min(1.0, up(root + up(math.sqrt(up(nats / (2 * size)))))),
    )


def betting_upper(losses: Float64[ndarray, "n"], nats: float, *, coarse: bool = False) -> float:
    """Upper bound on the mean of independent losses in [0, 1], rounded up.

    The largest mean at which the fortune, mixed over ``STAKES``, is below e^nats.

    Args:
        losses: One for each example; a number above the loss is safe.
        nats: ln(1 / probability of failure), code length included.
        coarse: Stop early, at a larger bound: to compare settings.

    Raises:
        UsageError: No losses, a loss outside [0, 1], or negative nats.
    """
    _check(losses, nats)
    stakes = STAKES[::4] if coarse else STAKES
    low, high = float(losses.mean()), 1.0
    needed = nats + math.log(len(STAKES))
    for step in range(COARSE if coarse else FINE):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        logs = _fortunes(losses, middle, stakes)
        if _log_sum(logs) >= needed:
            high = middle
        else:
            low = middle
        if step >= COARSE:  # a stake that is left out makes the fortune smaller: safe
            stakes = stakes[logs >= logs.max() - NEGLIGIBLE]
    return high


def _fortunes(
    losses: Float64[ndarray, "n"], mean: float, stakes: Float64[ndarray, "k"]
) -> Float64[ndarray, "k"]:
    """Logarithm of the fortune of each stake, rounded down."""
    gain = (mean - losses) / (1 - mean)
    many = max(1, CELLS // len(losses))
    parts = np.array_split(stakes, -(-len(stakes) // many))
    return np.concatenate([_some_fortunes(gain, part[:, None]) for part in parts])


def _some_fortunes(
    gain: Float64[ndarray, "n"], stakes: Float64[ndarray, "k 1"]
) -> Float64[ndarray, "k"]:
    factors = 1 + stakes * gain
    least = factors.min(axis=1)
    lost = least <= 0
    factors[lost], least[lost] = 1.0, 1.0
    sums = np.log(factors).sum(axis=1)
    # An error of a few EPS in each factor, and that of the logarithm and of the sum.
    most = (
        np.maximum(np.log(factors.max(axis=1)), -np.log(least)) + (2 + np.abs(gain).max()) / least
    )
    return np.where(lost, -math.inf, sums - 8 * EPS * len(gain) * most)


def _log_sum(logs: Float64[ndarray, "k"]) -> float:
    top = float(logs.max())
    if top == -math.inf:
        return top
    return top + math.log(float(np.exp(logs - top).sum())) - 8 * EPS * (abs(top) + len(logs))


def betting_upper_subsampled(
    losses: Float64[ndarray, "m"], n: int, nats: float, sample_nats: float
) -> float:
    """The same for a sample of n of which only m, drawn without replacement, were evaluated.

    The logarithm of the fortune of a stake s is a sum over the sample of numbers between
    ln(1 - s) and ln(1 + s m / (1 - m)). That its mean over the sample is large enough is shown by
    a second bettor, who sees the part; factors that are not negative multiply to no more, on
    average, when they are drawn without replacement (Maclaurin's inequality). The stakes are
    paid for in both steps, the means that are tried in the second.

    Args:
        losses: Of the examples that were drawn, after the network was fixed.
        n: Size of the sample.
        nats: ln(1 / probability that the sample misleads), code length included.
        sample_nats: ln(1 / probability that the part misleads).

    Raises:
        UsageError: A part that is larger than the sample, or as for ``betting_upper``.
    """
    _check(losses, min(nats, sample_nats))
    if len(losses) > n:
        raise UsageError(f"a part of {len(losses)} examples cannot come from a sample of {n}")
    needed = up((nats + math.log(len(STAKES))) / n)
    paid = up(sample_nats + 2 * math.log(len(STAKES)) + math.log(LEVELS))
    best, least = LEVELS, math.ceil(float(losses.mean()) * LEVELS)
    for stake in STAKES[:-1:2].tolist():
        low, high = least, best
        # Most stakes cannot better what another has reached: one look tells.
        if low >= high or not _refused(losses, (high - 1) / LEVELS, stake, needed, paid):
            continue
        best = high - 1
        while low < best:
            middle = (low + best) // 2
            if _refused(losses, middle / LEVELS, stake, needed, paid):
                best = middle
            else:
                low = middle + 1
    return best / LEVELS


def _refused(
    losses: Float64[ndarray, "m"], mean: float, stake: float, needed: float, paid: float
) -> bool:
    """Whether a part shows that a stake's fortune grows by ``needed`` nats an example."""
    if not 0 < mean < 1:
        return False
    bottom, top = math.log1p(-stake), math.log1p(stake * mean / (1 - mean))
    grown = np.log1p(stake * (mean - losses) / (1 - mean))
    shares = np.clip((top - grown) / (top - bottom) + TINY, 0.0, 1.0)
    aim = (top - needed) / (top - bottom) - TINY
    if aim <= float(shares.mean()):
        return False
    return _log_sum(_fortunes(shares, aim, STAKES[::4])) >= paid


def _check(losses: Float64[ndarray, "n"], nats: float) -> None:
    if len(losses) == 0:
        raise UsageError("a bound needs at least one loss, but there is none")
    if not (float(losses.min()) >= 0 and float(losses.max()) <= 1):
        raise UsageError(
            f"losses must lie in [0, 1], but are {losses.min():g} to {losses.max():g}; rescale them"
        )
    if not 0 <= nats < math.inf:
        raise UsageError(f"ln(1 / delta) must be finite and at least 0, but is {nats}")
