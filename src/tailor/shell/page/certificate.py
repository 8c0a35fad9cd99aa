"""The section Certify: the claim, how loose it is, its assumptions and how to check it."""

import shlex
from dataclasses import fields

from tailor.shell import figures
from tailor.shell.figures.certificate import other_forms
from tailor.shell.figures.labels import percent
from tailor.shell.page.blocks import figure, reading
from tailor.shell.page.tables import bound, count, number, share, table
from tailor.shell.page.text import escape
from tailor.stages.certify import (
    Certificate,
    CodeBits,
    HeldOutErrors,
    OccamEvidence,
    Proof,
    TextEvidence,
)
from tailor.verifier import UNCHECKED


def section(certificate: Certificate) -> str:
    """Body of the section."""
    assumptions = "".join(f"<li>{escape(one)}</li>" for one in certificate.assumptions)
    command = f"tailor verify certificate.json model.tailor --task {shlex.quote(certificate.task)}"
    return (
        f"<p>{FROM.get(certificate.kind, '')} Held-out errors are shown for comparison; the "
        "bound does not use them.</p>"
        f'<blockquote class="claim">{escape(certificate.claim)}</blockquote>'
        + reading([_verdict(certificate), *_slack(certificate), *map(escape, certificate.warnings)])
        + _picture(certificate)
        + f"<h3>Assumptions</h3><ul>{assumptions}</ul>"
        + _declared(certificate)
        + "<h3>What it does not say</h3>"
        "<p>It speaks of examples drawn like these, and of nothing else: not of another year, "
        "place or kind of data, not of single cases, and not of any other network than the one "
        "in this file. A recount cannot tell:</p>"
        + f"<ul>{''.join(f'<li>{escape(one)}.</li>' for one in UNCHECKED)}</ul>"
        + f"<h3>Check it yourself</h3><pre><code>{escape(command)}</code></pre>"
        "<p>This decodes the file, counts its errors again and compares every number, by code "
        "that the certificate was not made with. One flipped byte makes it fail.</p>"
        + _everything(certificate)
    )


def _picture(certificate: Certificate) -> str:
    if isinstance(certificate.evidence, TextEvidence):  # bits, not shares
        return ""
    return figure(
        "certified",
        figures.certified(certificate),
        "<strong>Where the true error can lie.</strong> Bars of bounds reach from zero to "
        "the bound, rounded up. " + _interval(certificate),
        "Bounds and errors on one scale",
    )


FROM = {
    "occam": "The certificate is computed from the bytes of the file and the errors of the "
    "network that they decode to, among the examples that it may have been trained with.",
    "held-out": "The certificate is computed from the errors of the network in the file, among "
    "examples that it was made without.",
    "pac-bayes": "The certificate is computed from how far the law of networks in the file is "
    "from a law that was fixed before the data, and from the errors of networks drawn from it.",
    "pick-to-learn": "The certificate is computed from how few of the examples determine the "
    "network in the file, and from its errors among the others.",
    "bits-per-character": "The certificate is computed from the bytes of the file and from how "
    "well the network that they decode to predicts the documents.",
}


def _declared(certificate: Certificate) -> str:
    """Parts of the network that no file holds."""
    parts = certificate.network.parts
    if not parts:
        return ""
    rows = [
        [
            escape(part.name),
            escape(part.statement),
            "yes" if part.domain else "no",
            _digest(part.sha256),
        ]
        for part in parts
    ]
    head = ["part", "why it does not depend on the data", "knows this kind of data", "SHA-256"]
    return table("Declared parts of the network, which nobody paid for", head, rows)


def _verdict(certificate: Certificate) -> str:
    if isinstance(certificate.evidence, TextEvidence):
        beats = "beats" if certificate.non_vacuous else "does not beat"
        return f"The bound {beats} the best prediction without context, {guess_bits(certificate)}."
    guess = f"always naming the commonest class ({percent(certificate.majority_error)} errors)."
    if certificate.non_vacuous:
        return f"The bound is not vacuous: it beats {guess}"
    return f"The bound is vacuous: it does not beat {guess}"


def guess_bits(certificate: Certificate) -> str:
    """What knowing only how often each token occurs needs."""
    assert isinstance(certificate.evidence, TextEvidence)
    return f"{certificate.majority_error:.3f} bits per {certificate.evidence.unit}"


def _slack(certificate: Certificate) -> list[str]:
    """How far the bound is from what is seen on held-out examples."""
    held = certificate.held_out
    if held is None:
        return []
    loose = f", {certificate.risk_bound / held.error:.1f} times smaller" if held.error else ""
    return [
        f"It is loose: on {held.n:,} held-out examples the network errs on "
        f"{percent(held.error)}{loose}. A bound holds with its confidence; it is not an estimate."
    ]


def _interval(certificate: Certificate) -> str:
    if certificate.held_out is None:
        return ""
    return (
        f"The bar of the held-out error is its {percent(1 - certificate.delta, 0)} "
        "Clopper-Pearson interval."
    )


# ---- the whole certificate ----------------------------------------------------------------


def _everything(certificate: Certificate) -> str:
    held = certificate.held_out
    rows = [*_bounds(certificate), *_held_out(held)]
    if isinstance(certificate.evidence, OccamEvidence):
        rows += _bits(certificate.evidence.code)
    else:
        rows += _numbers(certificate.evidence)
    rows += [
        ["registered before the fit", _registered(certificate)],
        ["choices outside the file", count(certificate.choices)],
        ["repeated examples, declared independent", count(certificate.repeated)],
        ["weights of the network", count(certificate.network.values)],
        ["SHA-256 of the file", _digest(certificate.model_sha256)],
        ["SHA-256 of the network", _digest(certificate.network.sha256)],
        ["SHA-256 of the data", _digest(certificate.data_sha256)],
        ["SHA-256 of its examples in any order", _digest(certificate.records_sha256)],
    ]
    if held is not None:
        rows.append(["SHA-256 of the held-out data", _digest(held.data_sha256)])
    rows.append(["seal (SHA-256 of all other fields)", _digest(certificate.sha256)])
    return table("The whole certificate", ["what", "value"], rows)


def _registered(certificate: Certificate) -> str:
    registration = certificate.registration
    if registration is None:
        return "no: this is exploratory"
    networks = len(registration.networks)
    return escape(
        f"{registration.created}, {networks} network{'s' if networks > 1 else ''}, "
        f"{registration.earlier} looked at earlier"
    )


def _bounds(certificate: Certificate) -> list[list[str]]:
    forms = [[f"{name} bound", bound(value)] for name, value in other_forms(certificate.evidence)]
    return [
        ["task", escape(certificate.task)],
        ["method", escape(certificate.method)],
        ["confidence parameter δ", number(certificate.delta)],
        ["examples n", count(certificate.n)],
        ["errors among them", count(certificate.errors)],
        *_share_of_errors(certificate),
        ["certified bound", _in_bits(certificate) or bound(certificate.risk_bound)],
        *forms,
        ["error of the best constant guess", _guess(certificate)],
        ["beats it", "yes" if certificate.non_vacuous else "no"],
    ]


def _in_bits(certificate: Certificate) -> str:
    if not isinstance(certificate.evidence, TextEvidence):
        return ""
    return number(certificate.risk_bound)


def _guess(certificate: Certificate) -> str:
    if isinstance(certificate.evidence, TextEvidence):
        return number(certificate.majority_error)
    return share(certificate.majority_error)


def _share_of_errors(certificate: Certificate) -> list[list[str]]:
    if isinstance(certificate.evidence, TextEvidence):
        return []
    return [["their share", share(certificate.errors / certificate.n)]]


def _numbers(evidence: Proof) -> list[list[str]]:
    """The numbers of other evidence, by the names of their fields."""
    rows = []
    for field in fields(evidence):
        value = getattr(evidence, field.name)
        if field.name not in ("n", "errors", "risk_bound") and isinstance(value, int | float | str):
            text = str(value) if isinstance(value, int | str) else f"{value:.6g}"
            rows.append([escape(field.name.replace("_", " ")), escape(text)])
    return rows


def _held_out(held: HeldOutErrors | None) -> list[list[str]]:
    if held is None:
        return []
    return [
        ["held-out examples", count(held.n)],
        ["errors among them", count(held.errors)],
        ["held-out error", share(held.error)],
        ["interval, lower end (rounded down)", share(held.low, down=True)],
        ["interval, upper end (rounded up)", bound(held.high)],
        ["what they alone would certify", bound(held.upper)],
    ]


def _bits(code: CodeBits) -> list[list[str]]:
    return [
        *([f"bits of {escape(name)}", number(bits)] for name, bits in code.parts.items()),
        ["bits of rounding to whole bytes", number(code.rounding)],
        ["bits of the stream (8 × its bytes)", count(code.stream)],
        [f"bits that are charged ({escape(code.pays)})", number(code.charged)],
        ["bits for choices outside the file", number(code.choices)],
        ["bits in all", number(code.total)],
    ]


def _digest(sha256: str) -> str:
    return f"<code>{escape(sha256)}</code>"
