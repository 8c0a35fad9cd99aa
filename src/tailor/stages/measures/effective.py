"""The number of parameters that the compression of Arora et al. (2018) would need."""

import math
from dataclasses import dataclass

from tailor.stages.measures.explanatory import Explanatory


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What goes into the count.

    Attributes:
        n: Examples m.
        gamma: Margin.
        largest_output: max ||f(x)||.
        delta: Failure probability.
        weights: Actual number of entries of the matrices and kernels.
        widest: Largest width h.
        convolutions: Whether a layer is one.
        contraction: c; None if infinite.
        cushions: mu of each layer.
        minimal: Minimal interlayer cushion of each layer.
        factors: beta^2 x ceil(side / stride) of each side of each layer's kernel.
        names: Of the layers.
    """

    n: int
    gamma: float
    largest_output: float
    delta: float
    weights: int
    widest: int
    convolutions: bool
    contraction: float | None
    cushions: tuple[float | None, ...]
    minimal: tuple[float, ...]
    factors: tuple[float, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveParameters(Explanatory):
    """Effective parameters, with and without constants and logarithms.

    A bound of this form says something only where the count is well below the number of
    examples, and compresses only where it is below the number of weights.

    Attributes:
        with_constants: Lemma 3 with Lemma 10: 72 c^2 d^2 ln(m d h / delta) / eps^2 times the sum of
            1 / (mu^2 minimal^2), eps^2 = gamma^2 / (2 max ||f||^2). None for convolutions, whose
            theorem 5.1 leaves a constant open.
        without: The same with 72, 2, d^2 and the logarithm left out, as the paper's own figures
            are; for convolutions with beta^2 ceil(side / stride)^2 in each summand.
        weights: Actual number of weights.
        n: Number of examples.
        orders_above_weights: log10 of the count (with constants where there is one) over the
            weights.
        orders_above_examples: The same over the examples: by so many orders of magnitude the
            bound is vacuous.
        reason: Why a count is missing; empty if none is.
    """

    with_constants: float | None
    without: float | None
    weights: int
    n: int
    orders_above_weights: float | None
    orders_above_examples: float | None
    reason: str
    why_not: str = (
        "It counts the parameters of a compressed network that nobody has written down, without "
        "the bits that each would cost."
    )


def effective(given: Ingredients) -> EffectiveParameters:
    """Count the parameters."""
    reason = _missing(given)
    without = None if reason else _without(given)
    constants = None
    if without is not None and not given.convolutions:
        d = len(given.names)
        logarithm = math.log(given.n * d * given.widest / given.delta)
        constants = 72 * 2 * d**2 * logarithm * without
    elif without is not None:
        reason = "theorem 5.1, on convolutions, leaves a constant open"
    count = without if constants is None else constants
    return EffectiveParameters(
        with_constants=constants,
        without=without,
        weights=given.weights,
        n=given.n,
        orders_above_weights=None if count is None else math.log10(count / given.weights),
        orders_above_examples=None if count is None else math.log10(count / given.n),
        reason=reason,
    )


def _missing(given: Ingredients) -> str:
    """Why there is no count at all; empty if there is one."""
    if given.contraction is None:
        return "for some example all activations of a layer are zero: the contraction is infinite"
    for name, cushion, minimal in zip(given.names, given.cushions, given.minimal, strict=True):
        if cushion is None:
            return f"all inputs of {name} are zero"
        if cushion == 0 or minimal == 0:
            return f"a cushion of {name} is zero"
    return ""


def _without(given: Ingredients) -> float:
    """c^2 max ||f||^2 / gamma^2 times the sum over the layers."""
    assert given.contraction is not None
    total = sum(
        factor / ((mu or math.nan) * minimal) ** 2
        for mu, minimal, factor in zip(given.cushions, given.minimal, given.factors, strict=True)
    )
    return float((given.contraction * given.largest_output / given.gamma) ** 2 * total)
