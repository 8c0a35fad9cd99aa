"""The ``tailor`` command: arguments in, tables and files out.

Exit codes: 0 done, 1 the answer is no, 2 misuse (one clear sentence; ``--debug`` shows where).
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from tailor.errors import TailorError
from tailor.shell.cli import analyze, certify, compare, compress, loop, norms, train
from tailor.shell.cli.screen import DONE, ERR, MISUSE
from tailor.version import __version__

Command: TypeAlias = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except TailorError as error:
        return _refuse(str(error), parsed.debug)
    except KeyboardInterrupt as stop:
        said = str(stop) or "stopped by the keyboard; nothing half-written was left"
        return _refuse(said, parsed.debug)
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

    def verb(name: str, run: Command, summary: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=summary, description=summary)
        command.add_argument("--debug", action="store_true", help="show where an error arose")
        command.set_defaults(run=run)
        return command

    show = verb("demo", loop.run_demo, "the whole loop on handwritten digits, in about a minute")
    show.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the results")
    show.add_argument("--seed", type=int, default=0, help="of weights, batches and search")

    analyze.arguments(verb("analyze", analyze.run, "spectra and tails of every weight matrix"))
    norms.arguments(verb("norms", norms.run, "norms and stable ranks only: much faster"))
    compare.arguments(verb("compare", compare.run, "two or many checkpoints, layer by layer"))
    train.arguments(verb("train", train.run, "train a task's network, heavy-tailed on purpose"))

    press = verb("compress", compress.run, "prune and quantise a checkpoint into one small file")
    compress.arguments(press)

    note = verb("register", certify.run_register, "write down a certificate's terms before the fit")
    certify.register_arguments(note)
    prove = verb("certify", certify.run, "bound the true error of a file, or search for the best")
    certify.arguments(prove)

    check = verb("verify", loop.run_verify, "recount a certificate from the bytes and the data")
    check.add_argument("certificate", type=Path, help="certificate.json")
    check.add_argument("model", type=Path, help="model.tailor")
    check.add_argument("--task", required=True, help="digits, or module:name for your own")
    check.add_argument("--json", action="store_true", help="print the record instead of a table")

    page = verb("report", loop.run_report, "write report.html again from the records in a folder")
    page.add_argument("folder", type=Path, help="what --out named")
    return parser
