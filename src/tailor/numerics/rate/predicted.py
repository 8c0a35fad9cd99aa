"""From the weights of a layer to the bits that they will take."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor.numerics.powerlaw.fit import NoFit
from tailor.numerics.rate.curves import check_error
from tailor.numerics.rate.laws import Gaussian, Student
from tailor.numerics.rate.quantised import rate_at

LEAST_VALUES, SAMPLE = 100, 10_000  # tuned by us: values needed for a fit; most that are used
LEAST_INDEX, LARGEST_INDEX = 0.2, 60.0  # of a fit; beyond, the Gaussian law fits as well
GOLDEN = (math.sqrt(5) - 1) / 2
MOST_ZEROS = 0.01  # share of exact zeros with which a law without an atom can still be fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Bits a weight that the fitted law predicts.

    Attributes:
        tail_index: Index of Student's t law with the largest likelihood, about the median. It
            follows the body of the sample as much as its tail. None where the Gaussian law,
            the limit of large indices, fits as well.
        scale: Scale of that law, in the units of the weights.
        bits: Order-0 entropy of the law on the step that loses what is allowed.
        n: Number of weights.
    """

    tail_index: float | None
    scale: float
    bits: float
    n: int


def predicted_bits(
    values: Float[ndarray, "n"], error: float, *, seed: int = 0
) -> Predicted | NoFit:
    """Predict the bits a weight of an entropy-coded uniform quantiser from a law of two numbers.

    Index and scale are fitted by maximum likelihood (to at most 10,000 of the weights, drawn
    with replacement); what may be lost is ``error`` times the mean square of the weights
    themselves. So the prediction also holds where the law has no variance.

    Args:
        values: The weights, finite.
        error: Relative squared error, in (0, 1).
        seed: Of the draw, where there are more weights than are used.

    Raises:
        UsageError: The error lies outside (0, 1).
    """
    n, lost = len(values), check_error(error)
    if n < LEAST_VALUES:
        return NoFit(reason=f"{n} weights, needs {LEAST_VALUES}", n=n)
    chosen = np.random.default_rng(seed).integers(0, n, SAMPLE) if n > SAMPLE else slice(None)
    sample = values[chosen].astype(np.float64)
    zeros = float(np.mean(sample == 0))
    if zeros > MOST_ZEROS:
        return NoFit(reason=f"{100 * zeros:.0f} % of the weights are zero", n=n)
    distinct = len(np.unique(sample))
    if distinct < LEAST_VALUES:
        return NoFit(reason=f"only {distinct} different weights, as if quantised before", n=n)
    square = float(np.mean(np.square(values, dtype=np.float64)))
    law = _fitted(sample - np.median(sample))
    return Predicted(
        tail_index=law.index if isinstance(law, Student) else None,
        scale=law.scale,
        bits=rate_at(law, lost * square),
        n=n,
    )


def _fitted(x: Float[ndarray, "n"]) -> Student | Gaussian:
    """The likeliest of Student's laws about 0, over the index by golden section."""
    unit = math.sqrt(float(np.mean(np.square(x))))
    squares = np.square(x / unit)
    start = float(np.median(squares)) or 1e-12
    low, high = math.log(LEAST_INDEX), math.log(2 * LARGEST_INDEX)
    places = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    scores = [_profile(squares, math.exp(place), start)[0] for place in places]
    while high - low > 3e-3:
        if scores[0] > scores[1]:
            high, places[1], scores[1] = places[1], places[0], scores[0]
            places[0] = high - GOLDEN * (high - low)
            scores[0], start = _profile(squares, math.exp(places[0]), start)
        else:
            low, places[0], scores[0] = places[0], places[1], scores[1]
            places[1] = low + GOLDEN * (high - low)
            scores[1], start = _profile(squares, math.exp(places[1]), start)
    index = math.exp((low + high) / 2)
    if index > LARGEST_INDEX:
        return Gaussian(scale=unit)
    return Student(index=index, scale=unit * math.sqrt(_profile(squares, index, start)[1]))


def _profile(squares: Float[ndarray, "n"], index: float, start: float) -> tuple[float, float]:
    """Mean log likelihood at the best scale, and the square of that scale.

    The scale by the expectation-maximisation of Kent, Tyler & Vardi (1994).
    """
    scale = start
    for _ in range(200):
        weights = 1 / (index + squares / scale)
        new = float(np.dot(weights, squares) / weights.sum())
        done = abs(new - scale) < 1e-6 * scale
        scale = new
        if done:
            break
    constant = math.lgamma((index + 1) / 2) - math.lgamma(index / 2) - 0.5 * math.log(index * scale)
    spread = float(np.log1p(squares / (index * scale)).mean())
    return constant - (index + 1) / 2 * spread, scale
