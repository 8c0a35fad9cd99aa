"""A binary arithmetic coder with 32-bit registers (Witten, Neal & Cleary 1987)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from tailor.errors import PayloadError
from tailor.numerics.coding.tensors import MAX_LEVEL

WORD = 32  # bits of the registers
TOP, HALF, QUARTER = (1 << WORD) - 1, 1 << (WORD - 1), 1 << (WORD - 2)


@dataclass(slots=True)
class Coin:
    """An adaptive coin: one and a half counts in half units."""

    zeros: int = 1
    ones: int = 1


class Coder(ABC):
    """Encodes given bits, or decodes when given None; both return the bit."""

    @abstractmethod
    def bit(self, coin: Coin, value: int | None = None) -> int:
        """One decision under an adaptive coin, which then learns it."""

    @abstractmethod
    def fair(self, value: int | None = None) -> int:
        """One decision under a fair coin."""

    def number(self, value: int | None, width: int) -> int:
        """A whole number of ``width`` bits, highest first, under a fair coin."""
        result = 0
        for place in reversed(range(width)):
            result = 2 * result + self.fair(None if value is None else value >> place & 1)
        return result

    def gamma(self, value: int | None) -> int:
        """A whole number from 1 up, in the code of Elias (1975)."""
        width = 0
        while self.fair(None if value is None else int(value >> (width + 1) > 0)):
            width += 1
            if width > MAX_LEVEL.bit_length():
                raise PayloadError("the stream is damaged: a level is too large")
        return (1 << width) | self.number(value, width)


class Encoder(Coder):
    """Bits in, bytes out."""

    def __init__(self) -> None:
        self.low, self.high, self.pending = 0, TOP, 0
        self.bits: list[int] = []

    def bit(self, coin: Coin, value: int | None = None) -> int:
        """See ``Coder.bit``."""
        assert value is not None
        span = self.high - self.low + 1
        middle = self.low + span * coin.zeros // (coin.zeros + coin.ones)
        if value:
            self.low = middle
            coin.ones += 2
        else:
            self.high = middle - 1
            coin.zeros += 2
        self._shift()
        return value

    def fair(self, value: int | None = None) -> int:
        """See ``Coder.fair``."""
        return self.bit(Coin(), value)

    def _shift(self) -> None:
        while True:
            if self.high < HALF:
                self._emit(0)
            elif self.low >= HALF:
                self._emit(1)
                self.low -= HALF
                self.high -= HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                self.pending += 1
                self.low -= QUARTER
                self.high -= QUARTER
            else:
                return
            self.low, self.high = 2 * self.low, 2 * self.high + 1

    def _emit(self, bit: int) -> None:
        self.bits.append(bit)
        self.bits.extend([1 - bit] * self.pending)
        self.pending = 0

    def finish(self) -> bytes:
        """Enough bits to name an interval inside the last one; any bits may follow."""
        if self.bits or self.pending or self.low > 0 or self.high < TOP:
            self.pending += 1
            self._emit(int(self.low >= QUARTER))
        return np.packbits(np.array(self.bits, dtype=np.uint8)).tobytes()


class Decoder(Coder):
    """Bytes in, bits out; refuses a stream that ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()
        self.place = WORD
        self.low, self.high = 0, TOP
        first = (self.data + [0] * WORD)[:WORD]
        self.value = int("".join(map(str, first)), 2)

    def bit(self, coin: Coin, value: int | None = None) -> int:
        """See ``Coder.bit``."""
        span = self.high - self.low + 1
        middle = self.low + span * coin.zeros // (coin.zeros + coin.ones)
        bit = int(self.value >= middle)
        if bit:
            self.low = middle
            coin.ones += 2
        else:
            self.high = middle - 1
            coin.zeros += 2
        self._shift()
        return bit

    def fair(self, value: int | None = None) -> int:
        """See ``Coder.fair``."""
        return self.bit(Coin())

    def _shift(self) -> None:
        while True:
            if self.high < HALF:
                drop = 0
            elif self.low >= HALF:
                drop = HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                drop = QUARTER
            else:
                return
            self.low, self.high = 2 * (self.low - drop), 2 * (self.high - drop) + 1
            self.value = 2 * (self.value - drop) + self._next()

    def _next(self) -> int:
        if self.place >= len(self.data) + 2 * WORD:
            raise PayloadError("the stream ends too early")
        bit = self.data[self.place] if self.place < len(self.data) else 0
        self.place += 1
        return int(bit)
