"""A claim about the true error of one file, with everything needed to check it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import clopper_pearson, held_out_upper
from tailor.records import Provenance, digest, to_json
from tailor.stages.certify.gibbs import PACBayesEvidence
from tailor.stages.certify.held_out import HeldOutEvidence
from tailor.stages.certify.method import Case, Method
from tailor.stages.certify.occam import Occam, OccamEvidence
from tailor.stages.certify.picks import PickedEvidence
from tailor.stages.certify.refusals import count_errors, must_be_sample
from tailor.stages.certify.registration import Network, Registration, Split, network_of
from tailor.stages.certify.text import BitsPerCharacter, TextEvidence
from tailor.stages.compress import CompressedModel
from tailor.tasks import Data, ErrorCount, zero_one
from tailor.verifier import ASSUMPTIONS, SCHEMA, claim

Proof: TypeAlias = (
    OccamEvidence | PACBayesEvidence | PickedEvidence | TextEvidence | HeldOutEvidence
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutErrors:
    """Errors on examples that played no part, for comparison.

    Attributes:
        n: Number of held-out examples.
        errors: Errors on them.
        error: Their share.
        low: Lower end of the Clopper-Pearson interval at confidence 1 - delta.
        high: Upper end.
        upper: One-sided Clopper-Pearson bound at confidence 1 - delta: what these examples
            alone would certify.
        data_sha256: Hash of the held-out examples.
    """

    n: int
    errors: int
    error: float
    low: float
    high: float
    upper: float
    data_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """The part of the data that something was fitted to before the bound's part was used.

    Attributes:
        split: How the data were cut.
        n: Number of examples in the part.
        data_sha256: Hash of them.
    """

    split: Split
    n: int
    data_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A claim about the true error of one file, with everything needed to check it.

    Attributes:
        schema: Version of this record.
        kind: Which bound.
        method: The bound with its settings, as text.
        registered: Whether a registration was made before the fit. Without one the statement
            is exploratory.
        claim: The statement in words.
        assumptions: What must be true of the data and of the way they were used.
        task: Name of the task.
        delta: Probability with which the claim may be false.
        n: Number of examples that the bound counts.
        errors: Errors among them; ties count as errors.
        risk_bound: The bound that is claimed.
        evidence: Every number that it was computed from.
        choices: Among how many alternatives anything outside the file was chosen.
        repeated: Repeated examples, declared to be independent draws.
        majority_error: Error of the best constant guess on the same examples.
        non_vacuous: Whether the bound is below it.
        held_out: Errors on held-out examples, or None.
        prior: The part of the data that was used before, or None.
        network: What the file is decoded into, with its declared parts.
        model_sha256: Hash of the whole file.
        data_sha256: Hash of the examples that the bound counts.
        records_sha256: Hash of their sorted hashes: the same in any order.
        registration: What was fixed beforehand, or None.
        warnings: What a reader should know.
        provenance: Versions, seed and settings.
        sha256: Hash of all other fields.
    """

    schema: int
    kind: str
    method: str
    registered: bool
    claim: str
    assumptions: tuple[str, ...]
    task: str
    delta: float
    n: int
    errors: int
    risk_bound: float
    evidence: Proof
    choices: int
    repeated: int
    majority_error: float
    non_vacuous: bool
    held_out: HeldOutErrors | None
    prior: Prior | None
    network: Network
    model_sha256: str
    data_sha256: str
    records_sha256: str
    registration: Registration | None
    warnings: tuple[str, ...]
    provenance: Provenance
    sha256: str

    def seal(self) -> str:
        """SHA-256 of all fields but the seal itself."""
        return digest(to_json(replace(self, sha256="")))


def certify(
    small: CompressedModel,
    *,
    build: Callable[[], nn.Module],
    data: Data,
    method: Method | None = None,
    registration: Registration | None = None,
    delta: float | None = None,
    choices: int | None = None,
    split: Split | None = None,
    held_out: Data | None = None,
    error: ErrorCount = zero_one,
    task: str = "unnamed",
    seed: int | None = None,
) -> Certificate:
    """Bound the true error of a file's network.

    Args:
        small: The file. Its bytes are decoded, and the decoded network is what is certified.
        build: Makes the network; fixed before the data were seen.
        data: The examples; with a split, all of them.
        method: The bound; ``Occam()`` by default, or the registration's.
        registration: What was fixed before the fit. Without it the statement is exploratory.
        delta: Probability with which the claim may be false; 0.05 by default, or the
            registration's.
        choices: Among how many alternatives anything outside the file (architecture, code,
            preprocessing) was chosen after seeing the data; 1 by default, or the
            registration's.
        split: How the data are cut, where something was fitted to a part of them beforehand.
        held_out: Further examples, only for comparison.
        error: Which examples count as errors.
        task: Name of the task, as in the registration.
        seed: Seed of the run that made the file, for the record.

    Raises:
        UsageError: No data, repeated examples, fewer than one choice, delta outside (0, 1),
            tensors that nobody pays for, or anything other than what was registered.
        PayloadError: The file is damaged, for another architecture, or not of a code that
            certificates take.
        TaskError: The network cannot be run on the data, or not with the same answer twice.
    """
    terms = _terms(method, registration, delta, choices, split, task)
    network = network_of(build, task)
    prior, counted = _cut(data, terms.split)
    records = counted.records()
    repeated = must_be_sample(counted, records)
    seen = records if prior is None else data.records()
    if held_out is not None and isinstance(terms.method, BitsPerCharacter):
        raise UsageError("held_out counts errors of classification; certify those documents apart")
    if held_out is not None and len(held_out) < 1:
        raise UsageError("the held-out data are empty; leave them out instead")
    if registration is not None:
        _must_be_registered(registration, network, data)
    model = small.into(build).eval()
    case = Case(
        small=small,
        model=model.double(),
        build=build,
        data=counted,
        error=lambda net, part: count_errors(net, part, error),
        delta=terms.delta / terms.certificates,
        choices=terms.choices,
    )
    evidence: Any = terms.method.prove(case)  # one of Proof, which no method can know
    said: Any = to_json(evidence)
    guess = terms.method.guess(case)
    draft = Certificate(
        schema=SCHEMA,
        kind=terms.method.kind,
        method=repr(terms.method),
        registered=registration is not None,
        claim=claim(terms.method.kind, said, terms.delta, registration is not None),
        assumptions=(*ASSUMPTIONS["all"], *ASSUMPTIONS[terms.method.kind]),
        task=task,
        delta=terms.delta,
        n=evidence.n,
        errors=evidence.errors,
        risk_bound=evidence.risk_bound,
        evidence=evidence,
        choices=terms.choices,
        repeated=repeated,
        majority_error=guess,
        non_vacuous=evidence.risk_bound < guess,
        held_out=None if held_out is None else _held_out(model, held_out, error, terms.delta),
        prior=prior,
        network=network,
        model_sha256=hashlib.sha256(small.payload).hexdigest(),
        data_sha256=counted.digest(),
        records_sha256=digest(sorted(records)),
        registration=registration,
        warnings=_warnings(seen, held_out, registration),
        provenance=Provenance.now(seed, error=getattr(error, "__qualname__", error)),
        sha256="",
    )
    return replace(draft, sha256=draft.seal())


# ---- what was agreed on -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    method: Method
    delta: float
    choices: int
    split: Split | None
    certificates: int


def _terms(
    method: Method | None,
    registration: Registration | None,
    delta: float | None,
    choices: int | None,
    split: Split | None,
    task: str,
) -> _Terms:
    method = Occam() if method is None else method
    if registration is None:
        delta = 0.05 if delta is None else delta
        choices = 1 if choices is None else choices
        certificates = 1
    else:
        must_agree(registration, method, delta, choices, split, task)
        delta, choices = registration.delta, registration.choices
        split, certificates = registration.split, registration.certificates
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie strictly between 0 and 1, but is {delta}")
    if choices < 1:
        raise UsageError(f"choices must be at least 1, but is {choices}")
    return _Terms(
        method=method, delta=delta, choices=choices, split=split, certificates=certificates
    )


def must_agree(
    registration: Registration,
    method: Method,
    delta: float | None,
    choices: int | None,
    split: Split | None,
    task: str,
) -> None:
    """Refuse anything that was chosen after the registration.

    Raises:
        UsageError: Something is other than it was registered.
    """
    if registration.sha256 != registration.seal():
        raise UsageError("the registration was changed after it was made; register again")
    registered = [network.task for network in registration.networks]
    said = {
        "method": (repr(method), registration.method),
        "delta": (delta, registration.delta),
        "number of choices": (choices, registration.choices),
        "split": (split, registration.split),
    }
    for name, (now, before) in said.items():
        if now is not None and now != before:
            raise UsageError(
                f"the {name} is {now}, but {before} was registered; a certificate holds only for "
                "what was fixed before the fit"
            )
    if task not in registered:
        raise UsageError(f"the task is {task}, but {', '.join(registered)} was registered")


def _must_be_registered(registration: Registration, network: Network, data: Data) -> None:
    before = next(one for one in registration.networks if one.task == network.task)
    if before != network:
        raise UsageError(
            f"the task {network.task} builds another network than the registered one; register "
            "again, and count what was tried before among the earlier alternatives"
        )
    if data.digest() != registration.data_sha256:
        raise UsageError(
            f"these are not the {registration.n:,} examples that were registered; their hash "
            "is another"
        )


def _cut(data: Data, split: Split | None) -> tuple[Prior | None, Data]:
    if split is None:
        return None, data
    before, counted = split.parts(data)
    return Prior(split=split, n=len(before), data_sha256=before.digest()), counted


# ---- words --------------------------------------------------------------------------------


def _warnings(
    seen: list[str], held_out: Data | None, registration: Registration | None
) -> tuple[str, ...]:
    found = []
    if registration is None:
        found.append(
            "Nothing was registered before the fit, so nobody can tell what was chosen afterwards."
        )
    if held_out is not None:
        shared = len(set(seen) & set(held_out.records()))
        if shared:
            found.append(f"{shared} held-out examples are also among the data.")
    return tuple(found)


def _held_out(model: nn.Module, data: Data, error: ErrorCount, delta: float) -> HeldOutErrors:
    errors = int(error(model, data).sum())
    low, high = clopper_pearson(errors, len(data), delta)
    return HeldOutErrors(
        n=len(data),
        errors=errors,
        error=errors / len(data),
        low=low,
        high=high,
        upper=held_out_upper(errors, len(data), delta),
        data_sha256=data.digest(),
    )
