"""From a certified predictor to another one that mostly agrees with it."""

from tailor.numerics.bounds.binomial import held_out_upper
from tailor.numerics.bounds.rounding import check_share, up


def disagreement_upper(risk: float, disagreements: int, m: int, delta: float) -> float:
    """Bound the risk of f by that of g: R(f) <= R(g) + P(f != g), rounded up.

    Args:
        risk: Upper bound on the risk of g.
        disagreements: Number of fresh points at which f and g answer differently; no labels needed.
        m: Number of fresh points, i.i.d. from the inputs' distribution and independent of both.
        delta: Probability with which the second term may fail, to be added to the first's.

    Raises:
        UsageError: A number is outside its range.
    """
    check_share("a risk", risk)
    return min(1.0, up(risk + held_out_upper(disagreements, m, delta)))
