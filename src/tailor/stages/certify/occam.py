"""The Occam bound of a file: what its bits cost."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from tailor.errors import PayloadError
from tailor.numerics.bounds import OccamBound, occam
from tailor.numerics.coding import Codebook, contextual_bits
from tailor.stages.certify.method import Case, Method
from tailor.stages.compress import CompressedModel, Contextual
from tailor.stages.symmetry import counted_units, prior_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A hidden layer whose units may change places.

    Attributes:
        incoming: Name of the tensor whose rows are the units.
        bias: Of its bias, or "".
        outgoing: Of the tensor whose columns are the units.
    """

    incoming: str
    bias: str
    outgoing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBits:
    """What the description of the network costs.

    Attributes:
        version: Of the stream's code.
        parts: Ideal bits of each tensor's parts, by "tensor: part".
        rounding: Bits that termination and padding to whole bytes add.
        stream: 8 x the bytes of the stream, measured; the sum of the above.
        pays: What is charged: "bytes", "bits" or "prior".
        charged: The bits of that.
        units: With "prior", the hidden layers whose units may change places.
        choices: log2 of the number of alternatives among which something outside the file was
            chosen with the data in view.
        total: What the bound pays for.
    """

    version: int
    parts: dict[str, float]
    rounding: float
    stream: int
    pays: str
    charged: float
    units: tuple[Exchange, ...]
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
    section 4, for the binomial form). L(h) is the charge of the file plus log2 of the declared
    number of choices.

    Attributes:
        pays: What the file is charged. "bytes": 8 x the bytes of its stream. "bits": the bits
            of the stream before its last byte is filled, which is still prefix-free. "prior":
            for files of ``Contextual``, -log2 of the probability of all codewords of the same
            network together, over the options of the code and the orders of hidden units.
    """

    pays: Literal["bytes", "bits", "prior"] = "bytes"

    kind: ClassVar[str] = "occam"

    def prove(self, case: Case) -> OccamEvidence:
        """See ``Method.prove``.

        Raises:
            PayloadError: The file was written by a coder for speed, or states sizes of layers.
        """
        code = code_bits(case.small, case.choices, self.pays, case.model)
        errors = int(case.error(case.model, case.data).sum())
        bounds = occam(errors, len(case.data), code.total, case.delta)
        return OccamEvidence(
            n=len(case.data),
            errors=errors,
            risk_bound=bounds.binomial,
            bounds=bounds,
            code=code,
        )


def code_bits(
    small: CompressedModel, choices: int, pays: str = "bytes", model: nn.Module | None = None
) -> CodeBits:
    """What a file costs, part by part.

    Args:
        small: The file.
        choices: Number of alternatives outside it.
        pays: As for ``Occam``.
        model: The network, for its structure; needed for "prior".

    Raises:
        PayloadError: The file was written by a coder for speed, states sizes of layers, or has
            no such charge.
    """
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
    if pays != "bytes" and not isinstance(small.coder, Contextual):
        raise PayloadError(
            f"only files of Contextual can be charged by their {pays}; write this one again with "
            "small.recoded(Contextual())"
        )
    parts = {
        f"{name}: {part}": bits
        for name, tensor in small.code_length().items()
        for part, bits in tensor.items()
    }
    stream, paid = 8 * len(small.stream), math.log2(choices)
    charged, units = _charged(small, pays, model)
    return CodeBits(
        version=small.coder.version,
        parts=parts,
        rounding=stream - sum(parts.values()),
        stream=stream,
        pays=pays,
        charged=charged,
        units=units,
        choices=paid,
        total=math.nextafter(charged + paid, math.inf) if paid else charged,
    )


def _charged(
    small: CompressedModel, pays: str, model: nn.Module | None
) -> tuple[float, tuple[Exchange, ...]]:
    if pays == "bytes":
        return float(8 * len(small.stream)), ()
    coded = small.coded()
    if pays == "bits":
        plain = [tensor for tensor in coded.values() if not isinstance(tensor, Codebook)]
        return float(contextual_bits(plain)), ()
    assert model is not None
    units = tuple(
        Exchange(incoming=one.weight, bias=one.bias or "", outgoing=one.outgoing)
        for one in counted_units(model, coded)
    )
    return prior_bits(model, coded), units
