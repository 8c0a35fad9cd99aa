"""``tailor demo``, ``tailor verify`` and ``tailor report``."""

import argparse
import json
import math

from rich.console import Console
from rich.table import Table

from tailor import records
from tailor.errors import RecordError
from tailor.shell import demo
from tailor.shell.cli.analyze import print_analysis
from tailor.shell.cli.screen import DONE, NO, console, must_be_writable, table
from tailor.shell.figures.certificate import other_forms
from tailor.shell.page import render
from tailor.stages.certify import Certificate, OccamEvidence, verify
from tailor.stages.compress import read_bytes
from tailor.tasks import find
from tailor.verifier import Verification


def run_demo(parsed: argparse.Namespace) -> int:
    """Run the whole loop and write its folder."""
    must_be_writable(parsed.out)
    screen = console()
    outcome = demo.run(parsed.seed, screen)
    demo.save(outcome, parsed.out)
    page = render(parsed.out)
    for analysis in outcome.analyses.analyses:
        print_analysis(screen, analysis)
    screen.print(_stage_table(outcome.compression))
    screen.print(certificate_table(outcome.certificate))
    screen.print(f"report: {page}", markup=False, soft_wrap=True)
    return DONE


def run_verify(parsed: argparse.Namespace) -> int:
    """Recount a certificate; the exit code is the answer."""
    task = find(parsed.task)
    for path in (parsed.certificate, parsed.model):
        if not path.is_file():
            raise RecordError(f"there is no file {path}")
    screen = console()
    try:
        certificate = records.load(Certificate, parsed.certificate)
    except RecordError as error:
        sentence = f"does not hold: the certificate is unreadable: {error}"
        screen.print(sentence, markup=False, soft_wrap=True)
        return NO
    outcome = verify(
        certificate,
        read_bytes(parsed.model),
        build=task.build,
        data=task.train(),
        held_out=task.test(),
        error=task.error,
    )
    try:
        if parsed.json:
            print(json.dumps(records.to_json(outcome)), flush=True)
        else:
            _print_verification(screen, certificate, outcome)
    except BrokenPipeError:
        if outcome.holds:
            raise
    return DONE if outcome.holds else NO


def run_report(parsed: argparse.Namespace) -> int:
    """Write the page again."""
    print(render(parsed.folder))
    return DONE


# Tables


def _stage_table(compression: demo.Compression) -> Table:
    columns = ("bytes", "non-zeros", "train error", "test error")
    made = table("size against error", ("network", "stage"), columns)
    for stage in compression.stages:
        made.add_row(
            stage.network,
            stage.stage,
            f"{stage.bytes:,}",
            f"{stage.nonzeros:,}",
            f"{stage.train_error:.2%}",
            f"{stage.test_error:.2%}",
        )
    return made


def certificate_table(certificate: Certificate) -> Table:
    """A certificate for the terminal."""
    held_out = certificate.held_out
    rows = [
        ("risk bound", round_up(certificate.risk_bound)),
        *((f"{name} form", round_up(form)) for name, form in other_forms(certificate.evidence)),
        ("holds with probability", f"{1 - certificate.delta:g}"),
        ("registered before the fit", "yes" if certificate.registered else "no: exploratory"),
        ("errors in the data", f"{certificate.errors:,} ({certificate.n:,} examples)"),
        ("error of the best constant guess", f"{certificate.majority_error:.4f}"),
        ("better than guessing", "yes" if certificate.non_vacuous else "no"),
    ]
    if isinstance(certificate.evidence, OccamEvidence):
        total = math.ceil(certificate.evidence.code.total - 1e-6)
        rows.insert(5, ("code length", f"{total:,} bits"))
    if held_out is not None:
        interval = f"{held_out.low:.4f} - {round_up(held_out.high)}"
        rows.append(("held-out error (for comparison)", f"{held_out.error:.4f} ({interval})"))
        rows.append(("what held-out data alone certify", round_up(held_out.upper)))
    made = table("certificate", ("", ""), ())
    made.show_header = False
    for row in rows:
        made.add_row(*row)
    return made


def _print_verification(screen: Console, certificate: Certificate, outcome: Verification) -> None:
    for check in outcome.checks:
        screen.print(f"{'same  ' if check.ok else 'DIFFERS'} {check.name}", markup=False)
        if not check.ok:
            screen.print(f"        {check.detail}", markup=False, soft_wrap=True)
    if outcome.holds:
        screen.print("no recount can tell:", markup=False)
        for one in outcome.unchecked:
            screen.print(f"        {one}", markup=False, soft_wrap=True)
    verdict = "holds" if outcome.holds else "does not hold"
    screen.print(f"{verdict}: {certificate.claim}", markup=False, soft_wrap=True)


def round_up(share: float) -> str:
    """Four decimals, never below the exact number."""
    return f"{math.ceil(share * 10_000 - 1e-9) / 10_000:.4f}"
