"""The head of the page: the outcome in one line, versions and seed, links to the stages."""

from collections.abc import Iterator, Sequence

from tailor.records import Provenance
from tailor.shell.demo import Compression
from tailor.shell.figures.labels import percent, percent_up
from tailor.shell.page.results import Results
from tailor.shell.page.tables import table
from tailor.shell.page.text import escape, matrices
from tailor.shell.training.record import Training
from tailor.stages.certify import OccamEvidence, TextEvidence
from tailor.stages.compress import CompressionReport
from tailor.verifier import shown

MOST_NAMED = 2  # models; of more only the number fits in a line


def header(found: Results, sections: Sequence[tuple[str, str]]) -> str:
    """The head of the page; ``sections`` are anchors and titles."""
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in sections)
    nav = f'<nav aria-label="Stages"><ol>{links}</ol></nav>' if len(sections) > 1 else ""
    return f'<p class="lead">{_outcome(found)}</p>\n{_provenance(found)}\n{nav}'


def _outcome(found: Results) -> str:
    """The outcome in one line."""
    certificate = found.certificate
    if certificate is None:
        return _outcome_without_certificate(found)
    start = ""
    if isinstance(certificate.evidence, OccamEvidence):
        size = f"<b>{certificate.evidence.code.stream // 8:,} bytes</b>"
        dense = _dense(found.compression)
        start = (f"{dense:,} bytes → {size}" if dense else size) + "; "
    if isinstance(certificate.evidence, TextEvidence):
        unit, confidence = certificate.evidence.unit, percent(1 - certificate.delta, 0)
        bits = f"<b>{shown(certificate.risk_bound)} bits per {unit}</b>"
        return f"{start}at most {bits} ({confidence} confidence)"
    guess = percent(certificate.majority_error)
    certified = "certified" if certificate.registered else "exploratory"
    verdict = (
        f"{certified}: at most <b>{percent_up(certificate.risk_bound)} errors</b> "
        f"({percent(1 - certificate.delta, 0)} confidence)"
    )
    if not certificate.non_vacuous:
        verdict += ", which does not beat guessing"
    held = certificate.held_out
    tail = f", held-out {percent(held.error)}" if held is not None else ""
    return f"{start}{verdict}, majority guess {guess}{tail}"


def _outcome_without_certificate(found: Results) -> str:
    if found.training is not None and found.analyses is None:
        return _outcome_of_run(found.training)
    if found.packed is not None and found.analyses is None:
        return _outcome_of_file(found.packed)
    if found.analyses is None:
        return "Results without a certificate"
    models = found.analyses.analyses
    count = len({layer.name for one in models for layer in one.layers})
    names = " and ".join(escape(one.source) for one in models)
    if len(models) > MOST_NAMED:
        names = f"{len(models):,} models"
    broken = sum(len(one.failed) for one in models)
    said = f"; <b>{matrices(broken)} failed</b>" if broken else ""
    return f"{matrices(count)} of <b>{names}</b>{said}"


def _outcome_of_run(training: Training) -> str:
    held_out = training.test_error
    error = training.train_error if held_out is None else held_out
    where = "training" if held_out is None else "held-out"
    return (
        f"{escape(training.task)}, {training.history[-1].epoch:,} epochs: "
        f"<b>{percent(error)} {where} errors</b>"
    )


def _outcome_of_file(packed: CompressionReport) -> str:
    return (
        f"{escape(packed.source)}: {packed.dense_bytes:,} bytes → <b>{packed.file_bytes:,} bytes"
        f"</b>, {packed.times_smaller:.1f} times smaller"
    )


def _dense(compression: Compression | None) -> int | None:
    """Bytes of the network that was compressed, before anything was done to it."""
    if compression is None or not compression.stages:
        return None
    last = compression.stages[-1].network
    return next((s.bytes for s in compression.stages if s.network == last), None)


def _provenance(found: Results) -> str:
    """Versions, seed and settings: in short, and as a table that opens on a click."""
    about = list(_about(found))
    if not about:
        return ""
    rows = [
        [
            escape(name),
            _seed(one),
            *map(escape, (one.tailor, one.torch, one.numpy, one.python, one.machine)),
            ", ".join(f"{escape(k)} = {escape(v)}" for k, v in one.settings.items()) or "–",
        ]
        for name, one in about
    ]
    head = ["record", "seed", "tailor", "torch", "numpy", "python", "machine", "settings"]
    shown = table("Versions, seed and settings", head, rows, text=range(8), wrap=7)
    _, first = about[0]
    line = f"tailor {first.tailor}, torch {first.torch}, seed {_seed(first)}"
    return (
        f'<details><summary class="sub">{escape(line)}: versions, seed and settings</summary>'
        f"{shown}</details>"
    )


def _about(found: Results) -> Iterator[tuple[str, Provenance]]:
    """Each record and what made it."""
    if found.analyses is not None:
        for one in found.analyses.analyses:
            yield f"analysis of {one.source}", one.provenance
    if found.comparison is not None:
        yield "comparison", found.comparison.provenance
    if found.training is not None:
        yield "training", found.training.provenance
    if found.compression is not None:
        yield "compression", found.compression.provenance
    if found.packed is not None:
        yield "compressed file", found.packed.provenance
    if found.certificate is not None:
        yield "certificate", found.certificate.provenance


def _seed(one: Provenance) -> str:
    return "none" if one.seed is None else str(one.seed)
