"""The section Certify: the claim, how loose it is, its assumptions and how to check it."""

import shlex

from tailor.shell import figures
from tailor.shell.figures.labels import percent
from tailor.shell.page.blocks import figure, reading
from tailor.shell.page.tables import bound, count, number, share, table
from tailor.shell.page.text import escape
from tailor.stages.certify import Certificate, HeldOut


def section(certificate: Certificate) -> str:
    """Body of the section."""
    assumptions = "".join(f"<li>{escape(one)}</li>" for one in certificate.assumptions)
    command = f"tailor verify certificate.json model.tailor --task {shlex.quote(certificate.task)}"
    return (
        "<p>The certificate is computed from the bytes of the file and the errors of the "
        "network that they decode to. The held-out error is shown for comparison; the bound "
        "does not use it.</p>"
        f'<blockquote class="claim">{escape(certificate.claim)}</blockquote>'
        + reading([_verdict(certificate), *_slack(certificate)])
        + figure(
            "certified",
            figures.certified(certificate),
            "<strong>Where the true error can lie.</strong> Bars of bounds reach from zero to "
            "the bound, rounded up. The certified bound is the binomial form. "
            + _interval(certificate),
            "Bounds and errors on one scale",
        )
        + f"<h3>Assumptions</h3><ul>{assumptions}</ul>"
        + f"<h3>Check it yourself</h3><pre><code>{escape(command)}</code></pre>"
        "<p>This decodes the file, counts its errors again and compares every number. One "
        "flipped byte makes it fail.</p>" + _everything(certificate)
    )


def _verdict(certificate: Certificate) -> str:
    guess = f"always naming the commonest class ({percent(certificate.majority_error)} errors)."
    if certificate.non_vacuous:
        return f"The bound is not vacuous: it beats {guess}"
    return f"The bound is vacuous: it does not beat {guess}"


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
    rows = [*_bounds(certificate), *_held_out(held), *_bits(certificate)]
    rows += [
        ["SHA-256 of the file", _digest(certificate.model_sha256)],
        ["SHA-256 of the training data", _digest(certificate.data_sha256)],
    ]
    if held is not None:
        rows.append(["SHA-256 of the held-out data", _digest(held.data_sha256)])
    rows.append(["seal (SHA-256 of all other fields)", _digest(certificate.sha256)])
    return table("The whole certificate", ["what", "value"], rows)


def _bounds(certificate: Certificate) -> list[list[str]]:
    bounds = certificate.bounds
    return [
        ["task", escape(certificate.task)],
        ["confidence parameter δ", number(certificate.delta)],
        ["training examples n", count(certificate.n)],
        ["errors among them", count(certificate.errors)],
        ["training error", share(bounds.empirical)],
        ["certified bound", bound(certificate.risk_bound)],
        ["binomial bound", bound(bounds.binomial)],
        ["kl bound", bound(bounds.kl)],
        ["Hoeffding bound", bound(bounds.hoeffding)],
        ["error of the majority guess", share(certificate.majority_error)],
        ["beats the majority guess", "yes" if certificate.non_vacuous else "no"],
    ]


def _held_out(held: HeldOut | None) -> list[list[str]]:
    if held is None:
        return []
    return [
        ["held-out examples", count(held.n)],
        ["errors among them", count(held.errors)],
        ["held-out error", share(held.error)],
        ["interval, lower end (rounded down)", share(held.low, down=True)],
        ["interval, upper end (rounded up)", bound(held.high)],
    ]


def _bits(certificate: Certificate) -> list[list[str]]:
    code = certificate.code
    return [
        *([f"bits of {escape(name)}", number(bits)] for name, bits in code.parts.items()),
        ["bits of rounding to whole bytes", number(code.rounding)],
        ["bits of the stream (8 × its bytes)", count(code.stream)],
        ["bits for choices outside the file", number(code.choices)],
        ["bits in all", number(code.total)],
    ]


def _digest(sha256: str) -> str:
    return f"<code>{escape(sha256)}</code>"
