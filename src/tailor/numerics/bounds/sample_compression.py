"""Bounds for predictors that a few of the training examples determine."""

import math
from functools import partial

from tailor.errors import UsageError
from tailor.numerics.bounds.binomial import binomial_upper
from tailor.numerics.bounds.occam import price
from tailor.numerics.bounds.rounding import (
    EPS,
    check_counts,
    check_delta,
    check_length,
    first_beyond,
    up,
)
from tailor.numerics.bounds.tails import TINY, log_binomial_point, log_binomial_sf, log_choose

WINDOW_SHARE = 0.9  # of delta, on the sizes m in a declared window; the rest is spread evenly


def sample_compression(errors: int, n: int, size: int, message_bits: float, delta: float) -> float:
    """Bound the risk of a predictor rebuilt from ``size`` of n examples and a message.

    The binomial tail at level delta 2^-message_bits / ((n + 1) C(n, size)) on the n - size examples
    outside the set (Littlestone & Warmuth 1986; Langford 2005, section 5).

    Args:
        errors: Number of 0-1 errors on the examples outside the set.
        n: Sample size.
        size: Number of examples in the compression set, whose order the rebuilding ignores.
        message_bits: Length of the message in a prefix-free code fixed before the data.
        delta: Probability with which the bound may fail.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(size, n)
    check_delta(delta)
    check_length(message_bits)
    if not 0 <= errors <= n - size:
        raise UsageError(f"errors must lie between 0 and n - size = {n - size}, but is {errors}")
    if size == n:
        return 1.0
    subsets, slack = log_choose(n, size)
    nats = up(price(message_bits, delta) + up(math.log(n + 1) + up(subsets + slack)))
    return binomial_upper(errors, n - size, -nats)


def pick_to_learn(k: int, n: int, delta: float, window: tuple[int, int] | None = None) -> float:
    """eps(k, delta): risk of a predictor whose preferent compression set has k of n examples.

    The root, rounded up, of (delta/n) sum_{m=k}^{n-1} [C(m,k) / C(n,k)] (1-eps)^(m-n) = 1 in (0, 1)
    (Garatti & Campi 2022; Campi & Garatti 2023; Paccagnan, Campi & Garatti 2023), found from its
    closed form n eps P(Bin(n, eps) = k) = delta P(Bin(n, eps) > k). It is 1 if k = n.

    What it needs, all of it:

    1. The n examples are i.i.d.; any distribution will do, also one with atoms.
    2. c maps a multiset of examples to a part of it, and sees neither their order nor n. Ties are
       broken by content, and a repeated example counts as often as it occurs.
    3. c is preferent: whenever c(U) lies in V and V in U, c(V) = c(U).
    4. The predictor h is a function of c(U). Whatever z it gets wrong changes the compression:
       c(c(U) + z) differs from c(U).

    Picking the worst example outside T, learning from T alone, until none outside is wrong
    has these properties with c = T. So has stopping at a size |T| fixed in advance, with c = T and
    the examples outside that h gets wrong. A stop picked from M declared ones takes delta / M.

    The proof, for it is short: let a_m be the law of v = P(c(T + z) != T) on the event that T, the
    first k of m examples, is c of all m. By 3, a_n(dv) <= (1-v)^(n-m) a_m(dv). So if S_k is the
    mass of a_n beyond eps(k), that of a_m is at least (1-eps)^(m-n) S_k, and by the equation
    C(n,k) S_k is at most (delta/n) sum_{m=k}^{n-1} C(m,k) a_m([0,1]). Sum over k: for each of the n
    values of m, C(m,k) a_m([0,1]) adds up to 1; and C(n,k) S_k adds up to the chance of failing.
    Equal examples are told apart by random marks, of which c takes the smallest.

    The proof serves any weights of the m that add up to delta, in place of delta / n for each. Give
    a ``window`` to put 0.9 delta on its m and 0.1 delta on all: the bound is then tighter for
    the k that were expected (7.0 for 7.3 % at k = 80 of n = 1,500) and hardly looser for others.

    Args:
        k: Size of the compression set.
        n: Sample size.
        delta: Probability with which the bound may fail.
        window: First and last m of the window, declared before the sample: `likely_window`.

    Raises:
        UsageError: A number is outside its range.
    """
    check_counts(k, n)
    check_delta(delta)
    first, last = window if window is not None else (0, n - 1)
    if not 0 <= first <= last < n:
        raise UsageError(f"a window lies within 0 to n - 1 = {n - 1}, but is {first} to {last}")
    if k == n:
        return 1.0

    return first_beyond(partial(_beyond, k, n, delta, (first, last)), k / n, 1.0)


def _beyond(k: int, n: int, delta: float, window: tuple[int, int], eps: float) -> bool:
    """Whether eps lies above the root for certain.

    The sum over a window telescopes: its terms are the chances that success number k + 1 comes at
    trial m + 1.
    """
    first, last = window
    point, slack = log_binomial_point(k, n, eps, 1 - eps)
    evenly = _passed(k, n, eps)[0] / n
    within = (_passed(k, last + 1, eps)[0] - _passed(k, first, eps)[1]) / (last + 1 - first)
    right = delta * ((1 - WINDOW_SHARE) * evenly + WINDOW_SHARE * max(0.0, within))
    left = math.log(eps) + point
    room = slack + EPS * (32 + 2 * abs(left))
    return right > TINY and left + room < math.log(right)


def likely_window(expected: int, n: int, delta: float) -> tuple[int, int]:
    """The window of `pick_to_learn` for a compression set of about ``expected`` of n examples.

    The terms of its equation are shaped like the number of trials until success number k + 1: this
    is their mean and 1.5 standard deviations to both sides. Half or double the size expected still
    gains.
    """
    eps = pick_to_learn(expected, n, delta)
    mean, deviation = (expected + 1) / eps, math.sqrt((expected + 1) * (1 - eps)) / eps
    first, last = math.floor(mean - 1.5 * deviation), math.ceil(mean + 1.5 * deviation)
    return min(max(0, first), n - 1), min(last, n - 1)


def _passed(k: int, trials: int, eps: float) -> tuple[float, float]:
    """P(Bin(trials, eps) > k), rounded down and up."""
    if k >= trials:
        return 0.0, 0.0
    tail = log_binomial_sf(k, trials, eps)
    return math.exp(tail.log - tail.slack) * (1 - 4 * EPS), min(
        1.0, math.exp(tail.log + tail.slack) * (1 + 4 * EPS)
    )
