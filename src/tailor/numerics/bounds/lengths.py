"""Lengths in bits of messages that must tell their own end."""

import math

from tailor.errors import UsageError
from tailor.numerics.bounds.rounding import up


def universal_bits(message_bits: int) -> float:
    """Length that a message of l bits gets under P = 6 / pi^2 / l^2 2^-l, rounded up.

    l + 2 log2 l + log2(pi^2 / 6): the universal prior of Lotfi et al. (2022) with its constant;
    without it the lengths break Kraft's inequality, for sum 1 / l^2 = pi^2 / 6 > 1.

    Args:
        message_bits: Length l of a message that does not mark its own end, at least 1.

    Raises:
        UsageError: The message is empty.
    """
    _check(message_bits, "a message")
    return up(message_bits + up(up(2 * math.log2(message_bits)) + up(math.log2(math.pi**2 / 6))))


def elias_delta_bits(number: int) -> int:
    """Length of Elias' delta code of a whole number (Elias 1975), at least 1.

    A message of l bits that marks its own end takes l + elias_delta_bits(l).

    Raises:
        UsageError: The number is below 1.
    """
    _check(number, "a number")
    digits = number.bit_length()
    return digits - 1 + 2 * (digits.bit_length() - 1) + 1


def _check(number: int, what: str) -> None:
    if number < 1:
        raise UsageError(f"{what} must count at least 1, but is {number}")
