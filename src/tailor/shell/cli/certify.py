"""``tailor register`` and ``tailor certify``."""

import argparse
import json
from pathlib import Path

from tailor import records
from tailor.errors import RecordError, UsageError
from tailor.shell.cli.loop import certificate_table, round_up
from tailor.shell.cli.methods import BOUNDS, method, named
from tailor.shell.cli.screen import DONE, ERR, console, must_be_writable
from tailor.shell.page import render
from tailor.stages.certify import Method, Occam, Registration, Split, certify, must_agree, register
from tailor.stages.compress import Coder, CompressedModel, Contextual
from tailor.stages.search import search
from tailor.tasks import Data, Task, find

FILE, RECORD = "model.tailor", "certificate.json"


def register_arguments(command: argparse.ArgumentParser) -> None:
    """What ``tailor register`` takes."""
    add = command.add_argument
    add(
        "--task",
        action="append",
        required=True,
        metavar="TASK",
        help="digits, or module:name for your own; repeat it for alternatives, which are paid for",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="such as registration.json")
    add("--bound", default="occam", metavar="METHOD", help="the theorem: " + named(BOUNDS))
    add("--delta", type=float, default=0.05, help="probability with which the claim may be false")
    add(
        "--certificates",
        type=int,
        default=1,
        metavar="N",
        help="how many will be shown for these data; delta is divided among them",
    )
    add(
        "--earlier",
        type=int,
        default=1,
        metavar="N",
        help="alternatives per task that were looked at with these data before (paid for)",
    )
    add("--split", metavar="SHARE:SALT", help="cut off this share for a prior, such as 0.5:a")
    add("--seed", type=int, help="of the fit, for the record")


def run_register(parsed: argparse.Namespace) -> int:
    """Write down what a certificate will be about."""
    found = register(
        [find(name) for name in parsed.task],
        bound(parsed.bound),
        delta=parsed.delta,
        certificates=parsed.certificates,
        earlier=parsed.earlier,
        split=split(parsed.split),
        seed=parsed.seed,
    )
    path = records.save(found, parsed.out)
    said = f"{path}: {found.n:,} examples, delta {found.delta:g}, {found.choices} choices to pay"
    console().print(said, markup=False, soft_wrap=True)
    console().print(f"seal {found.sha256}: publish it before the fit", markup=False, soft_wrap=True)
    return DONE


def arguments(command: argparse.ArgumentParser) -> None:
    """What ``tailor certify`` takes."""
    add = command.add_argument
    add("--task", required=True, help="digits, or module:name for your own")
    add("--out", type=Path, required=True, help=f"folder for {FILE}, {RECORD} and report.html")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="FILE", help="the file to certify")
    what.add_argument(
        "--search",
        action="store_true",
        help="look for the file with the smallest bound; stopped, it goes on where it was",
    )
    add("--registration", type=Path, metavar="FILE", help="as tailor register wrote it")
    add("--bound", metavar="METHOD", help="the theorem, as registered: " + named(BOUNDS))
    add("--delta", type=float, help="0.05, or as registered")
    add("--choices", type=int, help="alternatives outside the file to pay for; 1, or as registered")
    add("--split", metavar="SHARE:SALT", help="as registered")
    add("--seconds", type=float, help="stop the search after this time; without it, when done")
    add("--seed", type=int, default=0, help="of the search")
    add("--json", action="store_true", help="print the certificate, not a table")


def run(parsed: argparse.Namespace) -> int:
    """Certify a file, or look for one."""
    task = find(parsed.task)
    registration = _registration(parsed.registration)
    theorem = bound(parsed.bound or "occam")
    cut = split(parsed.split)
    if registration is not None:
        must_agree(registration, theorem, parsed.delta, parsed.choices, cut, task.name)
    must_be_writable(parsed.out)
    data = task.train()
    choices = registration.choices if registration else parsed.choices or 1
    delta = registration.delta if registration else parsed.delta or 0.05
    if parsed.search:
        if not isinstance(theorem, Occam):
            raise UsageError(
                f"--search looks for the shortest code, but the bound is {theorem.kind}; search "
                "with --bound occam, or give a file with --model"
            )
        each = delta / (registration.certificates if registration else 1)
        coder = None if theorem.pays == "bytes" else Contextual()
        small = _search(task, data, parsed, each, choices, coder)
    else:
        small = CompressedModel.load(parsed.model)
    certificate = certify(
        small,
        build=task.build,
        data=data,
        method=theorem,
        registration=registration,
        delta=parsed.delta,
        choices=parsed.choices,
        split=cut,
        held_out=task.test(),
        error=task.error,
        task=task.name,
        seed=parsed.seed,
    )
    small.save(parsed.out / FILE)
    records.save(certificate, parsed.out / RECORD)
    page = render(parsed.out)
    if parsed.json:
        print(json.dumps(records.to_json(certificate), allow_nan=False))
        return DONE
    screen = console()
    screen.print(certificate_table(certificate))
    screen.print(certificate.claim, markup=False, soft_wrap=True)
    screen.print(f"report: {page}", markup=False, soft_wrap=True)
    return DONE


def bound(text: str) -> Method:
    """The theorem that a text names."""
    found: Method = method(text, BOUNDS, "--bound")
    return found


def split(text: str | None) -> Split | None:
    """A cut of the data: share and salt."""
    if text is None:
        return None
    share, colon, salt = text.partition(":")
    try:
        return Split(share=float(share), salt=salt) if colon else Split(share=float(share), salt="")
    except ValueError:
        raise UsageError(f"--split must be SHARE:SALT, such as 0.5:a, but is {text!r}") from None


def _registration(path: Path | None) -> Registration | None:
    if path is None:
        return None
    if not path.is_file():
        raise RecordError(f"there is no file {path}; make it with tailor register")
    return records.load(Registration, path)


def _search(
    task: Task,
    data: Data,
    parsed: argparse.Namespace,
    delta: float,
    choices: int,
    coder: Coder | None,
) -> CompressedModel:
    """Look for the file with the smallest bound; the folder keeps what was found so far."""
    best: CompressedModel | None = None
    for state in search(
        task.build,
        data,
        delta=delta,
        choices=choices,
        error=task.error,
        coder=coder,
        seed=parsed.seed,
        seconds=parsed.seconds,
        folder=parsed.out,
    ):
        best = state.best
        ERR.print(
            f"{state.job}: bound {round_up(state.bound)} with {state.bits:,.0f} bits and "
            f"{state.errors:,} errors",
            markup=False,
            soft_wrap=True,
        )
    if best is None:
        raise UsageError("the search found no file in this time; give it more --seconds")
    return best if coder is None else best.recoded(coder)
