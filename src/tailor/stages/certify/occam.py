"""A bound on the true error of the decoded bytes, and its check by a stranger."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from torch import nn

from tailor.errors import PayloadError, UsageError
from tailor.numerics.bounds import OccamBound, clopper_pearson, occam
from tailor.records import Provenance, digest, to_json
from tailor.stages.compress import Adaptive, CompressedModel
from tailor.tasks import Data, ErrorCount, zero_one

ASSUMPTIONS = (
    "The examples are independent draws from the distribution that the claim is about.",
    "The task (architecture, input scaling, split, way of counting errors) and the code were "
    "fixed before the data were seen, up to the number of choices that is paid for.",
    "The network is the decoded file and nothing else; all of its weights are in the file.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBits:
    """What the description of the network costs.

    Attributes:
        parts: Ideal bits of each tensor's parts, by "tensor: part".
        rounding: Bits that termination and padding to whole bytes add.
        stream: 8 x the bytes of the stream, measured; the sum of the above.
        choices: log2 of the number of alternatives among which something outside the file was
            chosen with the data in view.
        total: What the bound pays for.
    """

    parts: dict[str, float]
    rounding: float
    stream: int
    choices: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Errors on examples that played no part, for information.

    Attributes:
        n: Number of held-out examples.
        errors: Errors on them.
        error: Their share.
        low: Lower end of the Clopper-Pearson interval at confidence 1 - delta.
        high: Upper end.
        data_sha256: Hash of the held-out examples.
    """

    n: int
    errors: int
    error: float
    low: float
    high: float
    data_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A claim about the true 0-1 error of one file, with everything needed to check it.

    Attributes:
        claim: The statement in words.
        assumptions: What must be true of the data and of the way they were used.
        task: Name of the task.
        delta: Probability with which the claim may be false.
        n: Number of training examples on which errors were counted.
        errors: Errors among them; ties count as errors.
        risk_bound: The bound that is claimed: the binomial form.
        bounds: All forms side by side.
        code: What the description costs.
        majority_error: Error of the best constant guess on the same examples.
        non_vacuous: Whether the bound is below the majority error.
        held_out: Errors on held-out examples, or None.
        model_sha256: Hash of the whole file.
        data_sha256: Hash of the training examples.
        provenance: Versions, seed and settings.
        sha256: Hash of all other fields.
    """

    claim: str
    assumptions: tuple[str, ...]
    task: str
    delta: float
    n: int
    errors: int
    risk_bound: float
    bounds: OccamBound
    code: CodeBits
    majority_error: float
    non_vacuous: bool
    held_out: HeldOut | None
    model_sha256: str
    data_sha256: str
    provenance: Provenance
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a verifier recomputed.

    Attributes:
        name: What it is.
        ok: Whether it agrees.
        detail: What the certificate says and what was found, when they differ.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of a check.

    Attributes:
        holds: Whether every check agrees.
        checks: Each of them.
    """

    holds: bool
    checks: tuple[Check, ...]


def certify(
    small: CompressedModel,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    delta: float = 0.05,
    choices: int = 1,
    held_out: Data | None = None,
    error: ErrorCount = zero_one,
    task: str = "unnamed",
    seed: int | None = None,
) -> Certificate:
    """Bound the true error of a file's network from its bytes and the training data alone.

    The bound is Occam's: the stream is a word of a prefix-free code that was fixed before the
    data, so with probability 1 - delta it holds for all words at once, however this one was
    found.

    Args:
        small: The file. Its bytes are decoded, and the decoded network is what is certified.
        build: Makes the network; fixed before the data were seen.
        data: The examples that the claim is about; they may have been used for training.
        delta: Probability with which the claim may be false.
        choices: Among how many alternatives anything outside the file (architecture, code,
            preprocessing) was chosen after seeing the data; costs log2 of it.
        held_out: Further examples, only for comparison.
        error: Which examples count as errors.
        task: Name of the task, for the record.
        seed: Seed of the run that made the file, for the record.

    Raises:
        UsageError: No data, fewer than one choice, or delta outside (0, 1).
        PayloadError: The file is damaged, for another architecture, or not of ``Adaptive``.
        TaskError: The network cannot be run on the data.
    """
    if len(data) < 1 or (held_out is not None and len(held_out) < 1):
        raise UsageError("a certificate needs at least one example, but the data are empty")
    if choices < 1:
        raise UsageError(f"choices must be at least 1, but is {choices}")
    if not isinstance(small.coder, Adaptive):
        raise PayloadError(
            "the file was written by a coder for speed, and a certificate pays for the adaptive "
            "code only; write it again with small.recoded(Adaptive())"
        )
    if small.sizes:
        raise PayloadError(
            "the file says how large its layers are, which a certificate does not pay for; let "
            "build make a network of these sizes, fixed before the data were seen"
        )
    model = small.into(build)
    errors = int(error(model, data).sum())
    code = _code_bits(small, choices)
    bounds = occam(errors, len(data), code.total, delta)
    majority = data.majority_error()
    draft = Certificate(
        claim=_claim(bounds.binomial, delta),
        assumptions=ASSUMPTIONS,
        task=task,
        delta=delta,
        n=len(data),
        errors=errors,
        risk_bound=bounds.binomial,
        bounds=bounds,
        code=code,
        majority_error=majority,
        non_vacuous=bounds.binomial < majority,
        held_out=None if held_out is None else _held_out(model, held_out, error, delta),
        model_sha256=hashlib.sha256(small.payload).hexdigest(),
        data_sha256=data.digest(),
        provenance=Provenance.now(
            seed, error=getattr(error, "__qualname__", error), delta=delta, choices=choices
        ),
        sha256="",
    )
    return replace(draft, sha256=_seal(draft))


def verify(
    certificate: Certificate,
    small: CompressedModel | bytes,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    held_out: Data | None = None,
    error: ErrorCount = zero_one,
) -> Verification:
    """Recount everything that a certificate says from the bytes and the data.

    Args:
        certificate: What is claimed.
        small: The file, or its bytes as found (damaged bytes do not hold).
        build: As for ``certify``.
        data: As for ``certify``.
        held_out: The held-out examples, if the certificate speaks of any.
        error: As for ``certify``.

    Returns:
        Whether everything agrees, and each comparison. Numbers are compared exactly, bounds to
        one part in 10^9 (the logarithms of other machines may differ in the last digit); the
        seal covers every digit.
    """
    checks = [
        Check(
            name="seal of the certificate",
            ok=certificate.sha256 == _seal(certificate),
            detail="the certificate was changed after it was made",
        )
    ]
    try:
        small = CompressedModel(payload=small) if isinstance(small, bytes) else small
        found = certify(
            small,
            build=build,
            data=data,
            delta=certificate.delta,
            choices=_count_choices(certificate.code.choices),
            held_out=held_out if certificate.held_out is not None else None,
            error=error,
            task=certificate.task,
        )
    except PayloadError as refusal:
        checks.append(Check(name="decoding of the model", ok=False, detail=str(refusal)))
    except UsageError as refusal:
        checks.append(Check(name="numbers of the certificate", ok=False, detail=str(refusal)))
    else:
        checks += _compare(certificate, found)
    return Verification(holds=all(check.ok for check in checks), checks=tuple(checks))


def _compare(claimed: Certificate, found: Certificate) -> list[Check]:
    """One check for each field that can be recomputed."""
    checks = []
    for field in fields(Certificate):
        if field.name in ("sha256", "provenance", "task"):
            continue
        said, seen = getattr(claimed, field.name), getattr(found, field.name)
        same = _same(to_json(said), to_json(seen))
        detail = "" if same else f"the certificate says {said}, but it is {seen}"
        checks.append(Check(name=field.name.replace("_", " "), ok=same, detail=detail[:400]))
    return checks


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b


def _seal(certificate: Certificate) -> str:
    """SHA-256 of all fields but the seal itself."""
    return digest(to_json(replace(certificate, sha256="")))


def _claim(bound: float, delta: float) -> str:
    shown = math.ceil(bound * 10_000) / 10_000  # rounded up
    return (
        f"With probability at least {1 - delta:g} over the draw of the training examples, the "
        f"network in this file errs on at most {shown:.4f} of all further examples drawn alike."
    )


def _code_bits(small: CompressedModel, choices: int) -> CodeBits:
    parts = {
        f"{name}: {part}": bits
        for name, tensor in small.code_length().items()
        for part, bits in tensor.items()
    }
    stream = 8 * len(small.stream)
    paid = math.log2(choices)
    return CodeBits(
        parts=parts,
        rounding=stream - sum(parts.values()),
        stream=stream,
        choices=paid,
        total=math.nextafter(stream + paid, math.inf) if paid else float(stream),
    )


def _count_choices(bits: float) -> int:
    if not 0 <= bits <= 64:
        raise UsageError(f"{bits} bits cannot be the price of a number of choices")
    return round(2**bits)


def _held_out(model: nn.Module, data: Data, error: ErrorCount, delta: float) -> HeldOut:
    errors = int(error(model, data).sum())
    low, high = clopper_pearson(errors, len(data), delta)
    return HeldOut(
        n=len(data),
        errors=errors,
        error=errors / len(data),
        low=low,
        high=high,
        data_sha256=data.digest(),
    )
