"""``python -m benchmarks.analyze``: arguments in, a table and a JSON file out."""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.analyze import fits, machine, models, shortcuts
from benchmarks.analyze.case import Case, Row, compete, trial
from benchmarks.analyze.data import SEED
from tailor.records import Provenance

RESULT = Path(__file__).parents[1] / "results" / "analyze.json"
PACKAGES = ("weightwatcher", "powerlaw", "scipy", "pandas", "matplotlib")
RESNETS = (
    "folder with resnet20-*.th, resnet32-*.th, resnet44-*.th and resnet56-*.th from "
    "pretrained_models/ of https://github.com/akamaster/pytorch_resnet_cifar10; "
    "without it, random weights of the same shapes are used"
)


def main() -> None:
    """Run the cases that were asked for; a complete run rewrites the result."""
    parsed = _parser().parse_args()
    if parsed.show:
        print(as_markdown(json.loads(RESULT.read_text(encoding="utf-8"))["cases"]))
        return
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    chosen = [
        case for case in cases(parsed.resnets) if fnmatch(case.name.lower(), parsed.only.lower())
    ]
    rows = []
    for row in _run(chosen, parsed):
        print(_line(row, with_goal=not parsed.quick), flush=True)
        rows.append(row)
    if parsed.only == "*" and not parsed.quick and parsed.repeats is None:
        RESULT.write_text(
            json.dumps(_result(rows, parsed, load), indent=1) + "\n", encoding="utf-8"
        )
        print(f"written to {RESULT}")


def cases(resnets: Path | None = None) -> list[Case]:
    """All cases, the quick ones first."""
    return [*fits.cases(), *shortcuts.cases(), *models.cases(resnets), *machine.cases()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analyze", description="tailor.analyze against its alternatives"
    )
    parser.add_argument("--only", default="*", help="cases whose name matches this pattern")
    parser.add_argument("--resnets", type=Path, metavar="DIR", help=RESNETS)
    parser.add_argument("--repeats", type=int, help="rounds of each case (default: its own)")
    parser.add_argument("--quick", action="store_true", help="tiny data: does everything run?")
    parser.add_argument("--show", action="store_true", help="print what is recorded, as Markdown")
    return parser


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The recorded cases as a table."""
    lines = ["| | other | tailor | times | found equal to |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        theirs = "" if row["theirs"] is None else f"{row['theirs']:.3g} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        numbers = {name: value for name, value in row["differences"].items() if name != "layers"}
        equal = f"{max(numbers.values()):.0e}" if numbers else ""
        lines.append(
            f"| {row['name']} | {theirs} | {row['ours']:.3g} {row['unit']} | {ratio} | {equal} |"
        )
    return "\n".join(lines)


def _run(chosen: list[Case], parsed: argparse.Namespace) -> Iterator[Row]:
    for case in chosen:
        if not can_run(case):
            print(f"{case.name}: left out, {case.against} is not installed")
            continue
        yield from trial(case) if parsed.quick else compete(case, parsed.repeats)


def can_run(case: Case) -> bool:
    """Whether the package that it needs is there."""
    return case.against not in PACKAGES or find_spec(case.against) is not None


def _line(row: Row, *, with_goal: bool) -> str:
    theirs = "" if row.theirs is None else f"{row.theirs:9.4g}"
    ratio = "" if row.ratio is None else f"{row.ratio:7.4g} x"
    line = f"{row.name:50} {row.ours:9.4g} {theirs:9} {row.unit:5} {ratio:9}"
    if with_goal:
        line += f" goal {row.goal:14} {'reached' if row.reached else 'MISSED':7}"
    if row.differences:
        worst = max(row.differences, key=row.differences.__getitem__)
        equal = "equal" if row.agree else "DIFFER"
        line += f" {equal} ({row.differences[worst]:.0e} in {worst})"
    return line


def _result(rows: list[Row], parsed: argparse.Namespace, load: float) -> dict[str, object]:
    about = Provenance.now(SEED)
    versions = {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")}
    versions |= {name: version(name) for name in PACKAGES if find_spec(name) is not None}
    return {
        "versions": versions,
        "machine": f"{about.machine}, {os.cpu_count()} processors, one thread used",
        "load_before_and_after": [load, os.getloadavg()[0]],  # of other programs, before
        "seed": SEED,
        "resnets": "random weights" if parsed.resnets is None else "pretrained weights",
        "missed": [row.name for row in rows if not row.reached],
        "cases": [dataclasses.asdict(row) for row in rows],
    }
