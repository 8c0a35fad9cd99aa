"""How few of many stable values carry their squared norm: asymptotic laws of the largest ones.

For n independent symmetric stable values of an index below 2. They guide, and no more: trained
weights are neither independent nor stable, and the largest values of one sample vary so much that
an error may well be twice or half of what is said here. What a sample really loses, its sorted
values tell (``tailor.numerics.compressibility``).
"""

import math

import torch

from tailor.errors import UsageError


def tail_constant(index: float) -> float:
    """Constant c of P(X > x) ~ c x^-index for the standard symmetric stable law (one tail of two).

    sin(pi index / 2) Gamma(index) / pi (Samorodnitsky & Taqqu 1994, property 1.2.15); 0 for
    index 2, the normal law.

    Raises:
        UsageError: The index lies outside (0, 2].
    """
    if not 0 < index <= 2:
        raise UsageError(f"a stable law has an index in (0, 2], but it is {index}")
    return math.sin(math.pi * index / 2) * math.gamma(index) / math.pi if index < 2 else 0.0


def expected_count(index: float, scale: float, threshold: float, n: int) -> float:
    """How many of n values are larger in size than a threshold, in the mean.

    n 2 c (scale / threshold)^index, at most n. Meant for thresholds of 20 scales or more: there it
    is right to a tenth, at 5 scales to a third. ``1 - tabulate(index).cdf`` is exact.

    Raises:
        UsageError: As for ``tail_constant``, or scale or threshold is not positive, or n < 0.
    """
    _check_positive(scale=scale, threshold=threshold)
    if n < 0:
        raise UsageError(f"the number of values must not be negative, but is {n}")
    return min(float(n), n * 2 * tail_constant(index) * math.pow(scale / threshold, index))


def removed_variance(index: float, scale: float, threshold: float) -> float:
    """E[X^2; |X| <= threshold]: the mean square of a value if the larger ones become 0.

    scale^2 2 c index / (2 - index) (threshold / scale)^(2 - index), which is too large by up to a
    fourth at 20 scales. Times ||v||^2 it is the mean square of what a matrix without its large
    entries says of a vector v that is independent of it.

    Raises:
        UsageError: As for ``expected_count``, or the index is 2.
    """
    _check_positive(scale=scale, threshold=threshold)
    _check_heavy(index)
    growth = math.pow(threshold / scale, 2 - index)
    return scale**2 * 2 * tail_constant(index) * index / (2 - index) * growth


def topk_relative_error(index: float, k: int) -> float:
    """Relative l2 error if only the k largest of very many values are kept; it depends on k alone.

    sqrt(index / (2 - index) k^(1 - 2 / index) / zeta(2 / index)), at most 1: the k-th largest of n
    is about (n / k)^(1 / index) in size, and the sum of squares about zeta(2 / index) times the
    square of the largest. Own derivation. Medians of simulations lie within a factor of two.

    Raises:
        UsageError: The index lies outside (0, 2), or k is below 1.
    """
    _check_heavy(index)
    if k < 1:
        raise UsageError(f"at least one value is kept, but k is {k}")
    return math.exp(min(0.0, _log_constant(index) + (1 - 2 / index) * math.log(k)) / 2)


def k_for_error(index: float, error: float, n: int) -> int:
    """How many of n values to keep for a relative l2 error; see ``topk_relative_error``.

    Sixty-one for an error of 0.1 at index 1, whatever n; half a million at index 1.5; near 2 all.

    Raises:
        UsageError: The index lies outside (0, 2): a finite variance asks for a fixed share of
            the values, not for a fixed number. Or the error is not in (0, 1), or n is below 1.
    """
    _check_heavy(index)
    if not 0 < error < 1 or n < 1:
        raise UsageError(
            f"an error in (0, 1) and a number of values from 1 are needed, but got {error} and {n}"
        )
    log_k = (_log_constant(index) - 2 * math.log(error)) * index / (2 - index)
    return n if log_k >= math.log(n) else max(1, math.ceil(math.exp(log_k)))


def _log_constant(index: float) -> float:
    """Log of index / ((2 - index) zeta(2 / index))."""
    order = torch.tensor(2 / index, dtype=torch.float64)
    zeta = float(torch.special.zeta(order, torch.ones_like(order)))
    return math.log(index / (2 - index) / zeta)


def _check_heavy(index: float) -> None:
    if not 0 < index < 2:
        raise UsageError(
            f"the index is {index}, but a few values carry the norm only for one in (0, 2); with a "
            "finite variance keep a fixed share, chosen by its error"
        )


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise UsageError(f"the {name} must be positive and finite, but is {value}")
