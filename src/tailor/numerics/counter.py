"""Random bits as a function of a key and a place, for noise that anyone can draw again.

The generator is SplitMix64 (Steele, Lea & Flood 2014, Fast splittable pseudorandom number
generators): word i is a mixture of start + i step, so that any stretch of words can be had without
those before it, in any order, on any device, with the same integers. Each key has a start and a
step of its own, as the generators of that paper have, so streams do not overlap.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, made odd: the step of java.util's class
# Stafford's 13th variant of the finaliser of MurmurHash3: shifts, each with a factor after it.
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
LEAST_CHANGES = 24  # between neighbouring bits of a step (Steele, Lea & Flood 2014, figure 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A sequence of 64-bit words.

    Attributes:
        start: What word 0 would be mixed from; unsigned.
        step: What is added from word to word; odd, unsigned.
    """

    start: int
    step: int = GOLDEN

    def words(
        self, first: int, count: int, device: str | torch.device = "cpu"
    ) -> Int64[Tensor, "count"]:
        """Words ``first`` to ``first + count - 1``, counted from 0, as signed integers."""
        offset = _signed(self.start + (first + 1) * self.step)
        z = torch.arange(count, dtype=torch.int64, device=device)
        z.mul_(_signed(self.step)).add_(offset)
        for shift, factor in MIX:
            # The shift copies the sign into the upper bits, which a logical one would clear.
            z.bitwise_xor_((z >> shift).bitwise_and_((1 << 64 - shift) - 1))
            if factor != 1:
                z.mul_(_signed(factor))
        return z


def stream(*key: int | str) -> Stream:
    """The stream of a key, such as (seed, name, step)."""
    text = "\0".join(str(part) for part in key).encode()
    digest = hashlib.blake2b(text, digest_size=16).digest()
    start, step = (int.from_bytes(part, "little") for part in (digest[:8], digest[8:]))
    step |= 1
    if (step ^ step >> 1).bit_count() < LEAST_CHANGES:
        step ^= 0xAAAAAAAAAAAAAAAA
    return Stream(start=start, step=step)


def _signed(value: int) -> int:
    """The value modulo 2^64, as the signed integer with the same bits."""
    return (value + 2**63) % 2**64 - 2**63
