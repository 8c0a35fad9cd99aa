"""Power laws of whole numbers: counts, not weights or eigenvalues."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NORMAL_975, NoFit, PowerLawFit, TailFit, positive
from tailor.numerics.powerlaw.search import different

LARGEST_ALPHA = 100.0
UNDERFLOW = 690.0  # x^-alpha is no float beyond alpha log x of about 708
STEP = 1e-4  # of alpha, in differences of log zeta: costs alpha less than 1e-7
HALVINGS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteClauset(TailFit):
    """Maximum likelihood for whole numbers, above the xmin that minimises the KS distance.

    Clauset, Shalizi & Newman (2009), equations 3.4 and 3.9 and appendix B: P(X = x) is
    x^-alpha / zeta(alpha, xmin). The distance is taken over every whole number from xmin on, as
    in their published code. On whole numbers the continuous ``Clauset`` overstates alpha where
    xmin is small. The time grows with the square of the number of different values.

    Attributes:
        min_tail: Least number of values in the tail.
        min_fraction: Least share of the values in the tail.
    """

    min_tail: int = 10
    min_fraction: float = 0.02

    def __post_init__(self) -> None:
        if self.min_tail < 2:
            raise UsageError(f"min_tail must be at least 2, but is {self.min_tail}")
        if not 0 <= self.min_fraction <= 1:
            raise UsageError(f"min_fraction must be from 0 to 1, but is {self.min_fraction}")

    def fit(self, values: Float[ndarray, "n"]) -> PowerLawFit | NoFit:
        """See ``TailFit.fit``.

        Raises:
            UsageError: A value is NaN, infinite or no whole number.
        """
        x = positive(values)
        if (x != np.floor(x)).any():
            raise UsageError("a discrete fit needs whole numbers; for others use Clauset")
        found, times = different(x)
        size = np.cumsum(times[::-1])[::-1]
        least = max(self.min_tail, self.min_fraction * len(x))
        candidates = int(np.count_nonzero(size[:-1] >= least))  # two values at least
        if len(x) < 2 * self.min_tail or candidates == 0:
            reason = f"{len(x)} values, {len(found)} of them different, needs {2 * self.min_tail}"
            return NoFit(reason=f"{reason} and two different ones in a tail", n=len(x))
        alpha = _exponents(found, times, candidates)
        distances = [_distance(found, size, start, alpha[start]) for start in range(candidates)]
        start = int(np.argmin(distances))
        return _describe(found, size, start, float(alpha[start]), distances[start], len(x))


def _exponents(
    x: Float[ndarray, "k"], times: Int[ndarray, "k"], candidates: int
) -> Float[ndarray, "c"]:
    """Where the derivative of the log-likelihood vanishes, for every candidate at once."""
    size = np.cumsum(times[::-1])[::-1][:candidates]
    mean_log = np.cumsum((times * np.log(x))[::-1])[::-1][:candidates] / size
    low = np.full(candidates, 1.0 + 2 * STEP)
    high = np.minimum(LARGEST_ALPHA, UNDERFLOW / np.log(np.maximum(x[:candidates], 2)))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = _log_zeta(middle + STEP, x[:candidates]) - _log_zeta(middle - STEP, x[:candidates])
        rises = -slope / (2 * STEP) > mean_log  # the likelihood still rises with alpha
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    found: ndarray = (low + high) / 2
    return found


def _distance(x: Float[ndarray, "k"], size: Int[ndarray, "k"], start: int, alpha: float) -> float:
    """KS distance over every whole number from xmin on.

    Between two values of the sample its share is level and the model falls, so the largest
    difference lies at a value or just above one.
    """
    tail = x[start:]
    share = size[start:] / size[start]
    total = _log_zeta(np.array(alpha), tail[:1])
    at = np.exp(_log_zeta(np.array(alpha), tail) - total)
    above = np.exp(_log_zeta(np.array(alpha), tail + 1) - total)
    return float(max(np.abs(at - share).max(), np.abs(above - np.append(share[1:], 0)).max()))


def _describe(
    x: Float[ndarray, "k"], size: Int[ndarray, "k"], start: int, alpha: float, D: float, n: int
) -> PowerLawFit:
    logs = [
        float(_log_zeta(np.array(alpha + h), x[start : start + 1])[0]) for h in (-STEP, 0, STEP)
    ]
    curvature = (logs[0] - 2 * logs[1] + logs[2]) / STEP**2  # equation 3.6
    sigma = float((size[start] * curvature) ** -0.5)
    return PowerLawFit(
        alpha=alpha,
        sigma=sigma,
        low=max(alpha - NORMAL_975 * sigma, 1.0),
        high=alpha + NORMAL_975 * sigma,
        interval="asymptotic",
        xmin=float(x[start]),
        xmax=float(x[-1]),
        D=D,
        n_tail=int(size[start]),
        n=n,
    )


def _log_zeta(alpha: Float[ndarray, "*k"], x: Float[ndarray, "k"]) -> Float[ndarray, "k"]:
    """Log of Hurwitz's zeta(alpha, x), the sum of (x + n)^-alpha over n = 0, 1, ..."""
    exponents = np.broadcast_to(alpha, x.shape).copy()
    zeta = torch.special.zeta(torch.from_numpy(exponents), torch.from_numpy(x))
    found: ndarray = np.log(zeta.numpy())
    return found
