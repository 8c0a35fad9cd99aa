"""The Occam bound of a file: what its bits cost."""

import math
from dataclasses import dataclass
from typing import ClassVar

from tailor.errors import PayloadError
from tailor.numerics.bounds import OccamBound, occam
from tailor.stages.certify.method import Case, Method
from tailor.stages.compress import CompressedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBits:
    """What the description of the network costs.

    Attributes:
        version: Of the stream's code.
        parts: Ideal bits of each tensor's parts, by "tensor: part".
        rounding: Bits that termination and padding to whole bytes add.
        stream: 8 x the bytes of the stream, measured; the sum of the above.
        choices: log2 of the number of alternatives among which something outside the file was
            chosen with the data in view.
        total: What the bound pays for.
    """

    version: int
    parts: dict[str, float]
    rounding: float
    stream: int
    choices: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OccamEvidence:
    """What an Occam bound was computed from.

    Attributes:
        n: Number of examples.
        errors: Errors among them; ties count as errors.
        risk_bound: The binomial form.
        bounds: All forms side by side.
        code: What the description costs.
    """

    n: int
    errors: int
    risk_bound: float
    bounds: OccamBound
    code: CodeBits


@dataclass(frozen=True, slots=True, kw_only=True)
class Occam(Method):
    """Few bits mean a small error: the finite-hypothesis bound, for a deterministic network.

    Let a prefix-free code be fixed before n independent examples are drawn, and let the word of
    h have L(h) bits. With probability at least 1 - delta, for all h at once, the true error of h
    is at most the largest p with P(Bin(n, p) <= k) >= delta x 2^-L(h), where k counts the errors
    of h among the examples (Blumer, Ehrenfeucht, Haussler & Warmuth 1987; Langford 2005, JMLR 6,
    section 4, for the binomial form). L(h) is 8 x the bytes of the stream of the file plus log2
    of the declared number of choices.
    """

    kind: ClassVar[str] = "occam"

    def prove(self, case: Case) -> OccamEvidence:
        """See ``Method.prove``.

        Raises:
            PayloadError: The file was written by a coder for speed, or states sizes of layers.
        """
        code = code_bits(case.small, case.choices)
        errors = int(case.error(case.model, case.data).sum())
        bounds = occam(errors, len(case.data), code.total, case.delta)
        return OccamEvidence(
            n=len(case.data),
            errors=errors,
            risk_bound=bounds.binomial,
            bounds=bounds,
            code=code,
        )


def code_bits(small: CompressedModel, choices: int) -> CodeBits:
    """What a file costs, part by part."""
    if not small.coder.certified:
        raise PayloadError(
            "the file was written by a coder for speed, and a certificate pays for the adaptive "
            "code only; write it again with small.recoded(Adaptive())"
        )
    if small.sizes:
        raise PayloadError(
            "the file says how large its layers are, which a certificate does not pay for; let "
            "build make a network of these sizes, fixed before the data were seen"
        )
    parts = {
        f"{name}: {part}": bits
        for name, tensor in small.code_length().items()
        for part, bits in tensor.items()
    }
    stream = 8 * len(small.stream)
    paid = math.log2(choices)
    return CodeBits(
        version=small.coder.version,
        parts=parts,
        rounding=stream - sum(parts.values()),
        stream=stream,
        choices=paid,
        total=math.nextafter(stream + paid, math.inf) if paid else float(stream),
    )
