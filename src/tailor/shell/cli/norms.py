"""``tailor norms``."""

import argparse
import json
import sys

from rich.console import Console
from rich.markup import escape

from tailor import records
from tailor.engine import Local
from tailor.shell.cli.analyze import say_what_is_not_there, weights_of
from tailor.shell.cli.screen import DONE, console, progress, table
from tailor.stages.analyze import NormAnalysis, norms


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = command.add_argument
    add("source", nargs="+", help="weights, as for tailor analyze")
    add("--layers", action="append", metavar="GLOB", help="only names like this; may be repeated")
    add("--skip", action="append", default=[], metavar="GLOB", help="no names like this")
    add("--workers", type=int, default=1, help="processes on this machine (default 1)")
    printed = command.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print the record, not a table")
    printed.add_argument("--csv", action="store_true", help="print all columns as CSV")


def run(parsed: argparse.Namespace) -> int:
    """Norms of one model."""
    weights = weights_of(parsed.source, parsed)
    label = " ".join(parsed.source)
    with progress("norms") as watch:
        found = norms(weights, engine=Local(workers=parsed.workers), label=label, watch=watch)
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
    elif parsed.csv:
        sys.stdout.write(found.to_frame().to_csv(index=False))
    else:
        _print(console(), found)
    return DONE


def _print(screen: Console, found: NormAnalysis) -> None:
    columns = ("Frobenius norm", "spectral norm", "stable rank")
    made = table(escape(found.source), ("layer", "shape"), columns)
    for one in found.layers:
        numbers = (one.frobenius_norm, one.spectral_norm, one.stable_rank)
        shape = "x".join(map(str, one.shape))
        made.add_row(escape(one.name), shape, *(f"{number:.4g}" for number in numbers))
    screen.print(made)
    say_what_is_not_there(screen, found.skipped, found.failed)
