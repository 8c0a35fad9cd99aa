"""Recount a certificate from the bytes and the data, without the code that made it.

These modules stand on the standard library, NumPy and PyTorch alone: no other part of tailor is
imported, and nothing is trained. The certificate is read as plain JSON, the file is decoded by a
reader of its own, the network is evaluated, and the bound is computed by other formulas.
"""

from tailor.verifier.recount import Check, Verification, recount
from tailor.verifier.words import ASSUMPTIONS, SCHEMA, UNCHECKED, claim, shown

__all__ = [
    "ASSUMPTIONS",
    "SCHEMA",
    "UNCHECKED",
    "Check",
    "Verification",
    "claim",
    "recount",
    "shown",
]
