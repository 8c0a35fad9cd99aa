"""Whole numbers under adaptive coins, which are found by what the number is about."""

from tailor.numerics.coding.arithmetic import Coder, Coin


class Coins:
    """A coder, and a coin for each kind of decision met so far."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.known: dict[tuple[int | str, ...], Coin] = {}

    def bit(self, kind: tuple[int | str, ...], value: int | None) -> int:
        """One decision, sent or (when it is None) received."""
        return self.coder.bit(self.known.setdefault(kind, Coin()), value)

    def number(self, kind: tuple[int | str, ...], value: int | None, width: int) -> int:
        """A whole number of ``width`` bits, highest first, with a coin for each beginning.

        A number that came before costs little; one that is new costs about ``width`` bits.
        """
        result = 1
        for place in reversed(range(width)):
            bit = None if value is None else value >> place & 1
            result = 2 * result + self.bit((*kind, result), bit)
        return result - (1 << width)
