"""``tailor train``."""

import argparse
import json
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tailor import records
from tailor.errors import TailorError, UsageError
from tailor.shell.cli import settings as configuration
from tailor.shell.cli.methods import (
    BALANCES,
    NOISES,
    OPTIMIZERS,
    PENALTIES,
    SCHEDULES,
    STOPS,
    named,
)
from tailor.shell.cli.screen import DONE, console, must_be_writable, progress, table
from tailor.shell.cli.settings import Settings
from tailor.shell.page import render
from tailor.shell.training import stored as checkpoint
from tailor.shell.training.plan import Plan
from tailor.shell.training.record import LayerPath, Training
from tailor.shell.training.run import Run

OUT = Path("runs/train")
MADE = ("training.json", "model.pt", "report.html")  # when a run is finished
YES_OR_NO = argparse.BooleanOptionalAction


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command takes; without defaults, so that those of ``--config`` can be told."""
    add = command.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML with these options as keys")
    add("--task", help="digits, or module:name for your own")
    add("--out", type=Path, help=f"folder for the results (default {OUT})")
    add("--epochs", type=int, help="times that every example is seen (default 60)")
    add("--batch", type=int, metavar="N", help="examples in a batch (default 128)")
    add("--lr", type=float, help="learning rate (default 5e-3)")
    add("--optimizer", metavar="METHOD", help=named(OPTIMIZERS) + " (default adam)")
    add("--schedule", metavar="METHOD", help="of the learning rate: " + named(SCHEDULES))
    add("--penalty", action="append", metavar="METHOD", help=named(PENALTIES) + "; repeatable")
    add("--decoupled", action=YES_OR_NO, help="penalties act apart from the loss")
    add("--noise", metavar="METHOD", help="on the weights, after each step: " + named(NOISES))
    add("--balance", metavar="METHOD", help="a learning rate for each layer: " + named(BALANCES))
    add("--seed", type=int, help="of weights, batches, dropout and noise (default 0)")
    add("--precision", choices=["float32", "bfloat16", "float16"], help="of the forward pass")
    add("--accumulate", type=int, metavar="N", help="batches that make one step (default 1)")
    add("--clip-norm", type=float, metavar="NORM", help="longest gradient")
    add("--compile", action=YES_OR_NO, help="use torch.compile")
    add("--device", help="where the network is trained, such as cuda (default cpu)")
    add("--checkpoint-every", type=int, metavar="STEPS", help="store the run, to go on from")
    add("--monitor-every", type=int, metavar="STEPS", help="look at the layers (default an epoch)")
    add("--stop", action="append", metavar="METHOD", help=named(STOPS) + "; repeatable")
    add("--again", action="store_true", help="begin anew where the folder holds a run")
    add("--json", action="store_true", help="print the record, not a table")


def run(parsed: argparse.Namespace) -> int:
    """Train, or go on, or say what a finished run came to."""
    settings, folder = configuration.given(parsed)
    out = OUT if folder is None else folder
    plan = configuration.plan(settings)
    found = None if parsed.again else _finished(out, settings, plan)
    if found is None:
        work = Run(plan)
        must_be_writable(out)
        _forget(out, everything=parsed.again)
        _keep(settings, out / "train.toml")
        found = _watched(work, out)
    if not (out / "report.html").is_file():  # also after a run that was killed at its very end
        render(out)
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
    else:
        _print(console(), found, out)
    return DONE


def _keep(settings: Settings, path: Path) -> None:
    """Write the settings, unless they stand there already, perhaps in the user's own words."""
    with suppress(UsageError, TypeError):
        if Settings(**configuration.read_toml(path)) == settings:
            return
    records.write(path, settings.to_toml().encode())


def _watched(work: Run, out: Path) -> Training:
    try:
        with progress("train") as watch:
            return work.go(out, watch)
    except KeyboardInterrupt:
        kept = checkpoint.settle(out).step
        then = f"goes on after step {kept}" if kept else "begins anew"
        raise KeyboardInterrupt(
            f"stopped by the keyboard after step {work.step}; the same command {then}"
        ) from None


# What the folder holds already


def _forget(out: Path, *, everything: bool) -> None:
    """Remove what a finished run leaves, and with ``everything`` the checkpoint of another."""
    if everything:
        checkpoint.forget(out)
    for name in MADE:
        (out / name).unlink(missing_ok=True)


def _finished(out: Path, settings: Settings, plan: Plan) -> Training | None:
    """The record of this very run if it is finished; None where there is something to do.

    Raises:
        UsageError: The folder holds another run, or a network that is not of a run.
    """
    finished = (out / "training.json").is_file()
    if not finished and not checkpoint.exists(out):
        if (out / "model.pt").exists():
            raise UsageError(
                f"{out} holds a model.pt that is not of a finished run; give another --out, or "
                "--again to replace it"
            )
        return None  # nothing there, or cut short without a checkpoint
    _compare(out, settings, plan)
    return records.load(Training, out / "training.json") if finished else None


def _compare(out: Path, settings: Settings, plan: Plan) -> None:
    try:
        old = configuration.read_toml(out / "train.toml")
        apart = configuration.differences(old, settings, plan)
    except TailorError as error:
        raise UsageError(
            f"{out} holds a run whose settings cannot be read ({error}); give another --out, or "
            "--again to replace it"
        ) from error
    if not apart:
        return
    name = {"penalties": "penalty"}.get(apart[0], apart[0])
    was, now = old.get(name, "by default"), getattr(settings, name)
    raise UsageError(
        f"{out} holds a run with {name} = {_shown(was)}, but now it is {_shown(now)}; give "
        "another --out, or --again to replace it"
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "; ".join(value) or "none"
    return "none" if value is None else str(value)


# What is printed


def _print(screen: Console, found: Training, out: Path) -> None:
    title = f"{escape(found.task)}: {len(found.history)} epochs, {found.steps} steps"
    kinds = ("alpha", "stable rank", "norm")
    columns = [f"{kind} {when}" for kind in kinds for when in ("before", "after")]
    made = table(title, ("layer",), columns)
    for one in found.layers:
        cells = [_cell(x) for path in _paths(one) for x in (path[0], path[-1])]
        made.add_row(escape(one.name), *cells)
    screen.print(made)
    if found.stopped is not None:
        screen.print(f"stopped early: {found.stopped}", markup=False, soft_wrap=True)
    held_out = "" if found.test_error is None else f", {found.test_error:.2%} of the held-out ones"
    screen.print(f"errors: {found.train_error:.2%} of the training examples{held_out}")
    screen.print(f"network: {out / 'model.pt'}", markup=False, soft_wrap=True)
    screen.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)


def _paths(one: LayerPath) -> tuple[tuple[float | None, ...], ...]:
    return one.alpha, one.stable_rank, one.spectral_norm


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
