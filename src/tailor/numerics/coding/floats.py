"""Floating-point numbers as a symbol (zero, or exponent and sign) and the bits of the fraction.

Exponents of weights take few values and are worth coding; fractions are all but random
(Lindstrom & Isenburg 2006, section 3), so their bits are stored, except those at the end that are
zero in all numbers, as in float32 tensors that were once float16. Nothing is rounded: signs of
zeros, infinities and the payloads of NaNs are kept.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt, UInt64
from numpy import ndarray

from tailor.errors import PayloadError

# type: bits of the exponent, bits of the fraction
FIELDS = {"float64": (11, 52), "float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which bits of a tensor's numbers are coded how.

    Attributes:
        exponent: Bits of the exponent.
        fraction: Bits of the fraction.
        lowest: Smallest exponent of a number other than +0.
        dropped: Bits at the end of the fraction that are zero everywhere.
    """

    exponent: int
    fraction: int
    lowest: int
    dropped: int

    @classmethod
    def of(cls, words: UInt[ndarray, "n"], dtype: str) -> "Fields":
        """The fields of these numbers, given as their bits."""
        exponent, fraction = FIELDS[dtype]
        live = words[words != 0]
        union = int(np.bitwise_or.reduce(live)) & ((1 << fraction) - 1)
        exponents = (live >> live.dtype.type(fraction)) & live.dtype.type((1 << exponent) - 1)
        return cls(
            exponent=exponent,
            fraction=fraction,
            lowest=int(exponents.min()) if len(live) else 0,
            dropped=(union & -union).bit_length() - 1 if union else fraction,
        )

    @property
    def kept(self) -> int:
        """Bits stored for each number but +0."""
        return self.fraction - self.dropped

    def symbols(self, words: UInt[ndarray, "n"]) -> Int64[ndarray, "n"]:
        """0 for +0, otherwise 1 + 2 (exponent - lowest) + sign."""
        number = words.dtype.type
        exponents = (words >> number(self.fraction)) & number((1 << self.exponent) - 1)
        signs = words >> number(self.exponent + self.fraction)
        symbols = 2 * (exponents.astype(np.int64) - self.lowest) + signs.astype(np.int64) + 1
        return np.where(words == 0, 0, symbols)

    def rests(self, words: UInt[ndarray, "n"]) -> UInt[ndarray, "live"]:
        """The stored bits of each number but +0."""
        number = words.dtype.type
        fractions = words[words != 0] & number((1 << self.fraction) - 1)
        rests: ndarray = fractions >> number(self.dropped)
        return rests

    def words(
        self, symbols: Int64[ndarray, "n"], rests: UInt64[ndarray, "live"]
    ) -> UInt64[ndarray, "n"]:
        """Invert ``symbols`` and ``rests``.

        Raises:
            PayloadError: An exponent is out of range.
        """
        exponents = (symbols - 1 >> 1) + self.lowest
        if bool((symbols < 0).any()) or int(exponents.max(initial=0)) >> self.exponent:
            raise PayloadError("the stream is damaged: an exponent is out of range")
        words = (exponents << self.fraction).astype(np.uint64)
        words |= ((symbols - 1) & 1).astype(np.uint64) << np.uint64(self.exponent + self.fraction)
        live = symbols != 0
        words *= live
        words[live] |= rests << np.uint64(self.dropped)
        return words
