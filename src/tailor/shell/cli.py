"""The ``tailor`` command: arguments in, tables and files out.

Exit codes: 0 done, 1 the answer is no, 2 misuse (one clear sentence; ``--debug`` shows where).
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tailor import records
from tailor.engine import Local
from tailor.errors import OutputError, RecordError, TailorError
from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell import demo
from tailor.shell.page import render
from tailor.stages.analyze import Analyses, Analysis, analyze
from tailor.stages.certify import Certificate, Verification, verify
from tailor.stages.compress import CompressedModel, read_bytes
from tailor.tasks import find
from tailor.version import __version__
from tailor.weights.source import Source

DONE, NO, MISUSE = 0, 1, 2


class Screen(Console):
    """A console that shows names as they are, and lets ``main`` know that its reader has gone."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1, which means "the answer is no"."""
        raise BrokenPipeError


ERR = Screen(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except TailorError as error:
        return _refuse(str(error), parsed.debug)
    except KeyboardInterrupt:
        return _refuse("stopped by the keyboard; nothing half-written was left", parsed.debug)
    except BrokenPipeError:  # the reader of our output has gone, which is no failure
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        hint = "this is a defect of tailor; run again with --debug and report what it shows"
        return _refuse(f"{type(error).__name__}: {error} ({hint})", parsed.debug)
    return code


def _refuse(sentence: str, debug: bool) -> int:
    if debug:
        ERR.print_exception()
    ERR.print(f"tailor: {sentence}", markup=False, soft_wrap=True)
    return MISUSE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tailor", description="Analyze, train, compress and certify heavy-tailed networks."
    )
    parser.add_argument("--version", action="version", version=f"tailor {__version__}")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def verb(name: str, run: object, summary: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=summary, description=summary)
        command.add_argument("--debug", action="store_true", help="show where an error arose")
        command.set_defaults(run=run)
        return command

    show = verb("demo", _demo, "the whole loop on handwritten digits, in about a minute")
    show.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the results")
    show.add_argument("--seed", type=int, default=0, help="of weights, batches and search")

    measure = verb("analyze", _analyze, "spectra and tails of every weight matrix")
    measure.add_argument("source", help="weights: a file, an index with shards, or a folder")
    measure.add_argument("--out", type=Path, help="folder for analysis.json, .csv and the report")
    measure.add_argument("--json", action="store_true", help="print the record instead of a table")
    measure.add_argument("--workers", type=int, default=1, help="processes to use (default 1)")

    check = verb("verify", _verify, "recount a certificate from the bytes and the data")
    check.add_argument("certificate", type=Path, help="certificate.json")
    check.add_argument("model", type=Path, help="model.tailor")
    check.add_argument("--task", required=True, help="digits, or module:name for your own")
    check.add_argument("--json", action="store_true", help="print the record instead of a table")

    page = verb("report", _report, "write report.html again from the records in a folder")
    page.add_argument("folder", type=Path, help="what --out named")
    return parser


# Commands


def _demo(parsed: argparse.Namespace) -> int:
    _must_be_writable(parsed.out)
    console = _console()
    outcome = demo.run(parsed.seed, console)
    demo.save(outcome, parsed.out)
    page = render(parsed.out)
    for analysis in outcome.analyses.analyses:
        _print_analysis(console, analysis)
    console.print(_stage_table(outcome.compression))
    console.print(_certificate_table(outcome.certificate))
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return DONE


def _analyze(parsed: argparse.Namespace) -> int:
    if parsed.out is not None:
        _must_be_writable(parsed.out)
    with Progress(console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        task = bar.add_task("analyze", total=None)
        found = analyze(
            _source(parsed.source),
            engine=Local(workers=parsed.workers),
            label=parsed.source,
            watch=lambda name, k, n: bar.update(
                task, description=escape(name), completed=k, total=n
            ),
        )
    if parsed.out is not None:
        demo.save_analyses(Analyses(analyses=(found,)), parsed.out)
        render(parsed.out)
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
        return DONE
    _print_analysis(_console(), found)
    return DONE


def _verify(parsed: argparse.Namespace) -> int:
    task = find(parsed.task)
    for path in (parsed.certificate, parsed.model):
        if not path.is_file():
            raise RecordError(f"there is no file {path}")
    console = _console()
    try:
        certificate = records.load(Certificate, parsed.certificate)
    except RecordError as error:
        sentence = f"does not hold: the certificate is unreadable: {error}"
        console.print(sentence, markup=False, soft_wrap=True)
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
            _print_verification(console, certificate, outcome)
    except BrokenPipeError:
        if outcome.holds:
            raise
    return DONE if outcome.holds else NO


def _report(parsed: argparse.Namespace) -> int:
    print(render(parsed.folder))
    return DONE


def _source(name: str) -> Source:
    """A path; a compressed model is decoded first."""
    if name.endswith(".tailor"):
        return CompressedModel.load(name).state_dict()
    return name


def _must_be_writable(folder: Path) -> None:
    """Find out before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tailor-can-write"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


# Tables


def _console() -> Console:
    """As wide as the terminal; wide enough for long names when the output goes to a file."""
    return Screen(width=None if sys.stdout.isatty() else 160)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _print_analysis(console: Console, analysis: Analysis) -> None:
    columns = ("alpha [95 %]", "xmin", "D", "tail", "stable rank", "norm", "weights' alpha")
    table = _table(escape(analysis.source), ("layer", "shape"), columns)
    refused = []
    for layer in analysis.layers:
        fit = layer.spectrum
        numbers = ["", "", ""]
        if isinstance(fit, PowerLawFit):
            numbers = [f"{fit.xmin:.3g}", f"{fit.D:.3f}", str(fit.n_tail)]
        table.add_row(
            escape(layer.name),
            "x".join(map(str, layer.shape)),
            _exponent(fit),
            *numbers,
            f"{layer.stable_rank:.2f}",
            f"{layer.spectral_norm:.3g}",
            _exponent(layer.entries),
        )
        for what, tail in (("spectrum", fit), ("weights", layer.entries)):
            if isinstance(tail, NoFit):
                refused.append(f"{layer.name}: no fit of the {what}: {tail.reason}")
    console.print(table)
    for line in refused:
        console.print(line, markup=False)
    for skipped in analysis.skipped:
        shape = "x".join(map(str, skipped.shape)) or "1"
        console.print(f"not analyzed: {skipped.name} ({shape}): {skipped.reason}", markup=False)


def _exponent(fit: PowerLawFit | NoFit) -> str:
    if isinstance(fit, NoFit):
        return "-"
    return escape(f"{fit.alpha:.2f} [{fit.low:.1f}, {fit.high:.1f}]")


def _stage_table(compression: demo.Compression) -> Table:
    columns = ("bytes", "non-zeros", "train error", "test error")
    table = _table("size against error", ("network", "stage"), columns)
    for stage in compression.stages:
        table.add_row(
            stage.network,
            stage.stage,
            f"{stage.bytes:,}",
            f"{stage.nonzeros:,}",
            f"{stage.train_error:.2%}",
            f"{stage.test_error:.2%}",
        )
    return table


def _certificate_table(certificate: Certificate) -> Table:
    bounds, held_out = certificate.bounds, certificate.held_out
    rows = [
        ("risk bound (binomial)", round_up(certificate.risk_bound)),
        ("kl and Hoeffding forms", f"{round_up(bounds.kl)}, {round_up(bounds.hoeffding)}"),
        ("holds with probability", f"{1 - certificate.delta:g}"),
        ("errors in training data", f"{certificate.errors} of {certificate.n}"),
        ("code length", f"{math.ceil(certificate.code.total - 1e-6):,} bits"),
        ("error of the majority guess", f"{certificate.majority_error:.4f}"),
        ("better than guessing", "yes" if certificate.non_vacuous else "no"),
    ]
    if held_out is not None:
        interval = f"{held_out.low:.4f} - {round_up(held_out.high)}"
        rows.append(("held-out error (for information)", f"{held_out.error:.4f} ({interval})"))
    table = _table("certificate", ("", ""), ())
    table.show_header = False
    for row in rows:
        table.add_row(*row)
    return table


def _print_verification(console: Console, certificate: Certificate, outcome: Verification) -> None:
    for check in outcome.checks:
        console.print(f"{'same  ' if check.ok else 'DIFFERS'} {check.name}", markup=False)
        if not check.ok:
            console.print(f"        {check.detail}", markup=False, soft_wrap=True)
    verdict = "holds" if outcome.holds else "does not hold"
    console.print(f"{verdict}: {certificate.claim}", markup=False, soft_wrap=True)


def round_up(share: float) -> str:
    """Four decimals, never below the exact number."""
    return f"{math.ceil(share * 10_000 - 1e-9) / 10_000:.4f}"
