"""``tailor analyze``."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tailor import records
from tailor.engine import Engine, Local, Ray
from tailor.errors import UsageError
from tailor.numerics.powerlaw import NoFit, PowerLawFit, WeightWatcherCompat
from tailor.shell.cli import gates
from tailor.shell.cli.methods import MEASURES, SPECTRA, TAILS, VIEWS, method, named
from tailor.shell.cli.screen import DONE, ERR, NO, console, must_be_writable, progress, table
from tailor.shell.output import save_analyses, to_csv, to_markdown
from tailor.shell.page import render
from tailor.stages.analyze import Analyses, Analysis, Exact, Failed, Skipped, analyze
from tailor.stages.compress import CompressedModel
from tailor.weights.layer import Weights
from tailor.weights.source import difference, read, select
from tailor.weights.views import Taps

SPECTRUM = "clauset:bootstrap=100"  # by default
VIEW = "standard"
JOURNAL = "analysis.partial.jsonl"
NAMED = 3  # matrices or tensors that are named for one reason
WORST = 5  # matrices that are named below the table
MEASURED_IN_FULL = ("bulk", "shuffled:replicates=10", "p-value", "rivals", "compressible")


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command takes."""
    what_to_read(command)
    command.add_argument(
        "source", nargs="+", help="weights: a file, an index with shards, a folder, files, a URL"
    )
    command.add_argument("--out", type=Path, help="folder for records, tables and report.html")
    printed = command.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print the record, not a table")
    printed.add_argument("--csv", action="store_true", help="print all columns as CSV")
    printed.add_argument("--markdown", action="store_true", help="print a Markdown table")
    command.add_argument("--base", metavar="SOURCE", help="analyze the difference against this")
    command.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with 1 where this holds, such as 'alpha>6' or 'median(alpha)>6'",
    )


def what_to_read(command: argparse.ArgumentParser) -> None:
    """Options that ``analyze`` and ``compare`` share."""
    add = command.add_argument
    add("--layers", action="append", metavar="GLOB", help="only names like this; may be repeated")
    add("--skip", action="append", default=[], metavar="GLOB", help="no names like this")
    add("--spectrum", default=SPECTRUM, metavar="METHOD", help=named(SPECTRA))
    add("--entries", metavar="METHOD", help="also fit the weights themselves: " + named(TAILS))
    add("--view", default=VIEW, metavar="METHOD", help=named(VIEWS))
    measures = named(MEASURES) + "; may be repeated"
    add("--with", dest="measures", action="append", default=[], metavar="MEASURE", help=measures)
    add("--full", action="store_true", help="measure all of " + ", ".join(MEASURED_IN_FULL))
    add("--compat", choices=["weightwatcher"], help="its estimator and its view of convolutions")
    add("--float32", action="store_true", help="twice as fast; small eigenvalues cannot be told")
    add("--device", default="cpu", help="where eigenvalues are computed, such as cuda")
    add("--engine", choices=["local", "ray"], default="local", help="where the work runs")
    add("--address", help="of a Ray cluster; none starts one here")
    add("--workers", type=int, default=1, help="processes on this machine (default 1)")


def run(parsed: argparse.Namespace) -> int:
    """Analyze one model."""
    conditions = [gates.parse(text) for text in parsed.fail_on]
    options = settings(parsed)
    if parsed.out is not None:
        must_be_writable(parsed.out)
    weights = weights_of(parsed.source, parsed)
    label = " ".join(parsed.source)
    if parsed.base is not None:
        weights = difference(weights, weights_of([parsed.base], parsed))
        label += f" minus {parsed.base}"
    journal = None if parsed.out is None else parsed.out / JOURNAL
    found = watched(weights, label, journal, parsed.out is not None, options)
    if parsed.out is not None:
        save_analyses(Analyses(analyses=(found,)), parsed.out)
        journal_path = parsed.out / JOURNAL
        journal_path.unlink(missing_ok=True)
        render(parsed.out)
    _print(parsed, found)
    frame = found.to_frame()
    tripped = [line for one in conditions for line in one.offenders(frame)]
    for line in tripped:
        ERR.print(f"fails: {line}", markup=False, soft_wrap=True)
    return NO if tripped else DONE


def settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of ``analyze``."""
    compat = parsed.compat is not None
    if compat and (parsed.spectrum != SPECTRUM or parsed.view != VIEW):
        raise UsageError(
            "--compat weightwatcher is an estimator and a view; leave out --spectrum and --view"
        )
    asked = [*MEASURED_IN_FULL, *parsed.measures] if parsed.full else parsed.measures
    names = [text.partition(":")[0].replace("_", "-") for text in asked]
    by_name = dict(zip(names, asked, strict=True))  # the last one counts
    return {
        "spectrum": WeightWatcherCompat()
        if compat
        else method(parsed.spectrum, SPECTRA, "--spectrum"),
        "view": Taps(scale=0.5**0.5) if compat else method(parsed.view, VIEWS, "--view"),
        "entries": None if parsed.entries is None else method(parsed.entries, TAILS, "--entries"),
        "measures": tuple(method(text, MEASURES, "--with") for text in by_name.values()),
        "solver": Exact(precision="float32" if parsed.float32 else "float64", device=parsed.device),
        "engine": _engine(parsed),
    }


def _engine(parsed: argparse.Namespace) -> Engine:
    if parsed.engine == "ray":
        return Ray(address=parsed.address)
    return Local(workers=parsed.workers)


def weights_of(sources: list[str], parsed: argparse.Namespace) -> Weights:
    """The chosen layers of one model; a compressed one is decoded first."""
    if len(sources) == 1 and sources[0].endswith(".tailor"):
        weights = read(CompressedModel.load(sources[0]).state_dict())
    else:
        weights = read(sources[0] if len(sources) == 1 else sources)
    return select(weights, include=tuple(parsed.layers or ("*",)), exclude=tuple(parsed.skip))


def watched(
    weights: Weights,
    label: str,
    journal: Path | None,
    drawings: bool,
    options: dict[str, Any],
) -> Analysis:
    """Analyze with a progress bar."""
    with progress("analyze") as watch:
        return analyze(
            weights, **options, drawings=drawings, journal=journal, label=label, watch=watch
        )


# What is printed


def _print(parsed: argparse.Namespace, found: Analysis) -> None:
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
    elif parsed.csv:
        sys.stdout.write(to_csv([found]))
    elif parsed.markdown:
        sys.stdout.write(to_markdown([found]))
    else:
        print_analysis(console(), found)


def print_analysis(screen: Console, analysis: Analysis) -> None:
    """The table, what stands below it, and every tensor that is not in it."""
    columns = ["alpha [95 %]", "verdict", "xmin", "D", "tail", "stable rank", "norm"]
    weights_too = any(layer.entries is not None for layer in analysis.layers)
    if weights_too:
        columns.append("weights' alpha")
    made = table(escape(analysis.source), ("layer", "shape"), columns)
    refused: dict[str, list[str]] = {}
    for layer in analysis.layers:
        fit = layer.spectrum
        numbers = ["", "", ""]
        if isinstance(fit, PowerLawFit):
            numbers = [f"{fit.xmin:.3g}", f"{fit.D:.3f}", f"{fit.n_tail} of {fit.n}"]
        cells = [_exponent(fit), layer.verdict, *numbers]
        cells += [f"{layer.stable_rank:.2f}", f"{layer.spectral_norm:.3g}"]
        if weights_too:
            cells.append(_exponent(layer.entries))
        made.add_row(escape(layer.name), "x".join(map(str, layer.shape)), *cells)
        for what, tail in (("spectrum", fit), ("weights", layer.entries)):
            if isinstance(tail, NoFit):
                refused.setdefault(f"no fit of the {what}: {tail.reason}", []).append(layer.name)
    screen.print(made)
    for line in [*_in_short(analysis), *_by_reason(refused, "")]:
        screen.print(line, markup=False, soft_wrap=True)
    say_what_is_not_there(screen, analysis.skipped, analysis.failed)


def say_what_is_not_there(
    screen: Console, skipped: Sequence[Skipped], failed: Sequence[Failed]
) -> None:
    """Every tensor that is not in the table, and why."""
    reasons: dict[str, list[str]] = {}
    for one in skipped:
        shape = "x".join(map(str, one.shape)) or "1"
        reasons.setdefault(one.reason, []).append(f"{one.name} ({shape})")
    for line in _by_reason(reasons, "not analyzed: "):
        screen.print(line, markup=False, soft_wrap=True)
    for broken in failed:
        screen.print(f"FAILED {broken.name}: {broken.reason}", markup=False, soft_wrap=True)


def _by_reason(names: Mapping[str, list[str]], before: str) -> list[str]:
    """One line for each name, or of very many with one reason the first few."""
    said = []
    for reason, those in names.items():
        if len(those) <= NAMED:
            said += [f"{before}{name}: {reason}" for name in those]
        else:
            more = f"and {len(those) - NAMED} more: {reason} (--json or --out lists all)"
            said.append(f"{before}{', '.join(those[:NAMED])} {more}")
    return said


def _exponent(fit: PowerLawFit | NoFit | None) -> str:
    if not isinstance(fit, PowerLawFit):
        return "-"
    return escape(f"{fit.alpha:.2f} [{fit.low:.1f}, {fit.high:.1f}]")


def _in_short(analysis: Analysis) -> list[str]:
    """Medians, verdicts and the matrices with the lightest tails, if there are many."""
    fits = [layer for layer in analysis.layers if isinstance(layer.spectrum, PowerLawFit)]
    if len(fits) < 2:
        return []
    said = []
    with suppress(KeyError):
        alpha = analysis.summary().loc["alpha"]
        said.append(
            f"alpha: median {alpha['median']:.2f}, mean {alpha['mean']:.2f}, weighted by the size "
            f"of the tail {alpha['tail_weighted_mean']:.2f} ({len(fits)} matrices)"
        )
    verdicts = [layer.verdict for layer in fits]
    counts = [f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)]
    said.append(f"verdicts: {', '.join(counts)}")
    if len(fits) > 2 * WORST:
        fits.sort(key=lambda layer: -_alpha(layer.spectrum))
        named = [f"{layer.name} ({_alpha(layer.spectrum):.1f})" for layer in fits[:WORST]]
        said.append(f"largest alpha: {', '.join(named)}")
    return said


def _alpha(fit: PowerLawFit | NoFit) -> float:
    return fit.alpha if isinstance(fit, PowerLawFit) else 0.0
