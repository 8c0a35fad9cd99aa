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
    """Encodes given bits, or decodes when given None; both return the bit.

    Encoder and decoder narrow the same interval in the same way; they differ in who decides on
    a bit and in what is done when the interval is doubled.
    """

    def __init__(self) -> None:
        self.low, self.high = 0, TOP

    @abstractmethod
    def _decide(self, middle: int, value: int | None) -> int:
        """The bit: zero below ``middle``, one from there on."""

    @abstractmethod
    def _doubled(self, drop: int) -> None:
        """The interval was moved down by ``drop`` (0, a quarter or a half) and doubled."""

    def bit(self, coin: Coin, value: int | None = None) -> int:
        """One decision under an adaptive coin, which then learns it."""
        span = self.high - self.low + 1
        middle = self.low + span * coin.zeros // (coin.zeros + coin.ones)
        bit = self._decide(middle, value)
        if bit:
            self.low = middle
            coin.ones += 2
        else:
            self.high = middle - 1
            coin.zeros += 2
        self._widen()
        return bit

    def fair(self, value: int | None = None) -> int:
        """One decision under a fair coin."""
        return self.bit(Coin(), value)

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

    def _widen(self) -> None:
        """Double the interval until it is wider than a quarter of the register."""
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
            self._doubled(drop)


class Encoder(Coder):
    """Bits in, bytes out."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = 0
        self.bits: list[int] = []

    def finish(self) -> bytes:
        """Enough bits to name an interval inside the last one; any bits may follow."""
        if self.bits or self.pending or self.low > 0 or self.high < TOP:
            self.pending += 1
            self._emit(int(self.low >= QUARTER))
        return np.packbits(np.array(self.bits, dtype=np.uint8)).tobytes()

    def _decide(self, middle: int, value: int | None) -> int:
        assert value is not None
        return value

    def _doubled(self, drop: int) -> None:
        if drop == QUARTER:
            self.pending += 1
        else:
            self._emit(int(drop == HALF))

    def _emit(self, bit: int) -> None:
        self.bits.append(bit)
        self.bits.extend([1 - bit] * self.pending)
        self.pending = 0


class Decoder(Coder):
    """Bytes in, bits out; refuses a stream that ends too early."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()
        self.place = WORD
        first = (self.data + [0] * WORD)[:WORD]
        self.value = int("".join(map(str, first)), 2)

    def _decide(self, middle: int, value: int | None) -> int:
        return int(self.value >= middle)

    def _doubled(self, drop: int) -> None:
        if self.place >= len(self.data) + 2 * WORD:
            raise PayloadError("the stream ends too early")
        bit = self.data[self.place] if self.place < len(self.data) else 0
        self.place += 1
        self.value = 2 * (self.value - drop) + int(bit)
