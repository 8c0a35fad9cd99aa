"""Sparse quantised tensors to self-delimiting bytes and back, in integer arithmetic only.

One binary arithmetic coder runs through all tensors. Every decision is coded either with a
fair coin or with an adaptive one (Krichevsky & Trofimov 1981: after c0 zeros and c1 ones, the
next is a one with probability (c1 + 1/2) / (c0 + c1 + 1)), so no table is transmitted. The
decoder knows the shapes and types of the tensors and nothing else. No codeword is the
beginning of another one, hence 2^-(8 x bytes) is a prior over all that can be encoded.

A quantised tensor is seen as a matrix (first axis by the rest) and sent as: step, which rows
and columns hold anything (optional), which entries of those are not zero, then for each such
entry its sign and its level. The encoder tries the options and keeps the shortest.

A second stream for certificates selects its coins by context (``contextual``).

Large networks have a stream of their own (``packed``): tables of frequencies, then symbols
through a vectorised coder; see there.
"""

from tailor.numerics.coding.changes import flip_lengths
from tailor.numerics.coding.context_choice import (
    best_options,
    contextual_length,
    contextual_lengths,
    contextual_prior,
)
from tailor.numerics.coding.contexts import Before, Options, Steady
from tailor.numerics.coding.contextual import (
    contextual_bits,
    contextual_options,
    decode_contextual,
    encode_contextual,
)
from tailor.numerics.coding.entropy import order0_bits
from tailor.numerics.coding.length import code_length
from tailor.numerics.coding.packed import (
    ELEMENTS_PER_BYTE,
    MAX_PACKED_ELEMENTS,
    Report,
    decode_packed,
    encode_packed,
    report,
)
from tailor.numerics.coding.stream import MAX_ELEMENTS, decode, encode
from tailor.numerics.coding.tensors import (
    DTYPES,
    MAX_LEVEL,
    Codebook,
    Coded,
    Grid,
    Plain,
    Raw,
    Spec,
    round_step,
)

__all__ = [
    "DTYPES",
    "ELEMENTS_PER_BYTE",
    "MAX_ELEMENTS",
    "MAX_LEVEL",
    "MAX_PACKED_ELEMENTS",
    "Before",
    "Codebook",
    "Coded",
    "Grid",
    "Options",
    "Plain",
    "Raw",
    "Report",
    "Spec",
    "Steady",
    "best_options",
    "code_length",
    "contextual_bits",
    "contextual_length",
    "contextual_lengths",
    "contextual_options",
    "contextual_prior",
    "decode",
    "decode_contextual",
    "decode_packed",
    "encode",
    "encode_contextual",
    "encode_packed",
    "flip_lengths",
    "order0_bits",
    "report",
    "round_step",
]
