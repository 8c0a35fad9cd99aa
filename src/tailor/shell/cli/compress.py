"""``tailor compress``."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from torch import Tensor

from tailor import records
from tailor.errors import SourceError, UsageError
from tailor.shell.cli.analyze import weights_of
from tailor.shell.cli.methods import ALLOCATIONS, QUANTIZERS, SCORES, method, named
from tailor.shell.cli.screen import DONE, console, must_be_writable, progress, table
from tailor.shell.page import render
from tailor.stages.allocate import Allocation, UniformAllocation
from tailor.stages.compress import (
    CompressedModel,
    CompressionReport,
    FrontierPoint,
    Prune,
    Quantize,
    Recipe,
    Shortest,
    Step,
    brief,
    compress_checkpoint,
)
from tailor.stages.export import export
from tailor.stages.scores import NofM
from tailor.tasks import Task, find
from tailor.weights.layer import Weights

FILE = "model.tailor"
RECORD = "compressed.json"
MOST_TENSORS = 30  # printed; all of them are in the files
EXPORTS = ("safetensors", "pt")


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = command.add_argument
    add("source", nargs="+", help="weights, as for tailor analyze")
    add("--out", type=Path, required=True, help=f"folder for {FILE}, records and report.html")
    add("--sparsity", type=float, metavar="SHARE", help="share of the weights that become zero")
    add("--score", default="magnitude", metavar="METHOD", help="which go: " + named(SCORES))
    add(
        "--allocation",
        default="uniform",
        metavar="METHOD",
        help="how many go in each matrix: " + named(ALLOCATIONS),
    )
    add("--pattern", metavar="N:M", help="such as 2:4, which keeps 2 of 4 inputs, not --sparsity")
    few = command.add_mutually_exclusive_group()
    few.add_argument("--bits", type=int, help="at most 2^BITS values for each matrix")
    few.add_argument(
        "--tolerance",
        type=float,
        metavar="ERROR",
        help="as few bits as keep the relative squared error of each matrix below this",
    )
    few.add_argument("--quantizer", metavar="METHOD", help=named(QUANTIZERS))
    add("--recipe", type=Path, metavar="FILE", help="steps as JSON, in place of all the above")
    add("--layers", action="append", metavar="GLOB", help="only names like this; may be repeated")
    add("--skip", action="append", default=[], metavar="GLOB", help="no names like this")
    add("--task", help="count errors on its held-out data: digits, or module:name for your own")
    add(
        "--frontier",
        metavar="SHARES",
        help="also try these sparsities, such as 0.5,0.7,0.9; needs --task",
    )
    add("--no-beside", action="store_true", help="do not do the same with a uniform allocation")
    add(
        "--export",
        action="append",
        default=[],
        choices=EXPORTS,
        help="also write the weights in full, for other programs; may be repeated",
    )
    add("--json", action="store_true", help="print the record, not a table")


def run(parsed: argparse.Namespace) -> int:
    """Compress one checkpoint."""
    recipe = _recipe(parsed)
    shares = _shares(parsed)
    task = None if parsed.task is None else find(parsed.task)
    must_be_writable(parsed.out)
    weights = weights_of(parsed.source, parsed)
    options = _options(task)
    with progress("compress") as watch:
        found = compress_checkpoint(
            weights,
            parsed.out / FILE,
            recipe,
            beside=not parsed.no_beside,
            label=" ".join(parsed.source),
            watch=watch,
            **options,
        )
    if shares:
        found = replace(found, frontier=_frontier(weights, recipe, shares, parsed.out, options))
    for kind in parsed.export:
        state = CompressedModel.load(parsed.out / FILE).state_dict()
        export(state, parsed.out / f"model.{kind}")
    records.save(found, parsed.out / RECORD)
    records.write(parsed.out / "compressed.csv", found.to_frame().to_csv(index=False).encode())
    render(parsed.out)
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
    else:
        print_report(console(), found)
    return DONE


# From options to a recipe


def _recipe(parsed: argparse.Namespace) -> Recipe:
    given = (parsed.sparsity, parsed.pattern, parsed.bits, parsed.tolerance, parsed.quantizer)
    if parsed.recipe is not None:
        if any(value is not None for value in given):
            raise UsageError(
                "--recipe has all the steps; leave out --sparsity, --bits and the like"
            )
        return _read(parsed.recipe)
    steps: list[Step] = []
    if parsed.sparsity is not None or parsed.pattern is not None:
        steps.append(_prune(parsed))
    elif (parsed.score, parsed.allocation) != ("magnitude", "uniform"):
        raise UsageError("--score and --allocation are for pruning; give a --sparsity, too")
    if parsed.bits is not None:
        steps.append(Quantize(Shortest(bits=parsed.bits)))
    elif parsed.quantizer is not None:
        steps.append(Quantize(method(parsed.quantizer, QUANTIZERS, "--quantizer")))
    elif parsed.tolerance is not None or not steps:
        tolerance = 0.01 if parsed.tolerance is None else parsed.tolerance
        steps.append(Quantize(Shortest(tolerance=tolerance)))
    return Recipe(tuple(steps))


def _prune(parsed: argparse.Namespace) -> Prune:
    if parsed.pattern is not None and parsed.sparsity is not None:
        raise UsageError("--pattern says how many weights go; leave out --sparsity")
    allocation: Allocation = method(parsed.allocation, ALLOCATIONS, "--allocation")
    return Prune(
        parsed.sparsity,
        score=method(parsed.score, SCORES, "--score"),
        allocation=allocation,
        pattern=None if parsed.pattern is None else _pattern(parsed.pattern),
    )


def _pattern(text: str) -> NofM:
    n, colon, m = text.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal()):
        raise UsageError(f"--pattern must be like 2:4, but is {text!r}")
    return NofM(n=int(n), m=int(m))


def _read(path: Path) -> Recipe:
    try:
        return Recipe.from_json(json.loads(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"--recipe {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--recipe {path} is not valid JSON: {error}") from error


def _shares(parsed: argparse.Namespace) -> list[float]:
    if parsed.frontier is None:
        return []
    if parsed.task is None or parsed.sparsity is None:
        raise UsageError("--frontier needs --task and --sparsity, to have something to compare")
    try:
        return sorted({float(share) for share in parsed.frontier.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--frontier must be shares like 0.5,0.9, but is {parsed.frontier!r}"
        ) from error


# Errors on a task


def _options(task: Task | None) -> dict[str, Any]:
    """How quality is measured, for ``compress_checkpoint``."""
    if task is None:
        return {}
    data = task.test() or task.train()

    def missed(state: Mapping[str, Tensor]) -> float:
        network = task.build()
        try:
            network.load_state_dict(dict(state))
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise SourceError(f"the weights do not fit the network of the task ({first})") from None
        return float(task.error(network, data).double().mean())

    return {"evaluate": missed, "quality": "error on held-out data" if task.test() else "error"}


def _frontier(
    weights: Weights, recipe: Recipe, shares: list[float], out: Path, options: dict[str, Any]
) -> tuple[FrontierPoint, ...]:
    """Each sparsity with the allocation that was asked for, and with the uniform one."""
    prune = next(step for step in recipe.steps if isinstance(step, Prune))
    by_name: dict[str, Allocation] = {
        brief(one): one for one in (prune.allocation, UniformAllocation())
    }
    points = []
    with progress("frontier") as watch:
        for number, share in enumerate(shares):
            for name, allocation in by_name.items():
                step = replace(prune, sparsity=share, allocation=allocation)
                steps = tuple(step if one is prune else one for one in recipe.steps)
                scratch = out / ".frontier.tailor"
                found = compress_checkpoint(
                    weights, scratch, Recipe(steps), beside=False, **options
                )
                scratch.unlink()
                points.append(_point(name, found))
            if watch is not None:
                watch(f"sparsity {share:g}", number + 1, len(shares))
    return tuple(points)


def _point(allocation: str, found: CompressionReport) -> FrontierPoint:
    assert found.quality_after is not None  # since there is a task
    return FrontierPoint(
        allocation=allocation,
        sparsity=found.sparsity,
        file_bytes=found.file_bytes,
        quality=found.quality_after,
    )


# What is printed


def print_report(screen: Console, found: CompressionReport) -> None:
    """The table, and what stands below it."""
    columns = ["zeros", "error", "bits", "predicted", "bytes", "limit"]
    made = table(escape(found.source), ("tensor", "shape"), columns)
    for row in found.tensors[:MOST_TENSORS]:
        made.add_row(
            escape(row.name),
            "x".join(map(str, row.shape)),
            f"{row.zeros:.1%}",
            "" if row.error is None else f"{row.error:.4f}",
            f"{row.bits:.2f}",
            "" if row.predicted_bits is None else f"{row.predicted_bits:.2f}",
            f"{row.packed_bytes:,.0f}",
            f"{row.limit_bytes:,.0f}",
        )
    screen.print(made)
    for line in _below(found):
        screen.print(line, markup=False, soft_wrap=True)


def _below(found: CompressionReport) -> list[str]:
    more = len(found.tensors) - MOST_TENSORS
    said = [f"and {more} more tensors, in {RECORD}"] if more > 0 else []
    said.append(
        f"{found.dense_bytes:,} bytes -> {found.file_bytes:,} bytes: {found.times_smaller:.1f} "
        f"times smaller; order-0 entropy {found.limit_bytes:,.0f} bytes; {found.sparsity:.1%} zeros"
    )
    if found.error is not None:
        said.append(f"relative error of all matrices together: {found.error:.4f}")
    if found.quality_after is not None:
        said.append(
            f"{found.quality_name}: {found.quality_before:.4f} before, {found.quality_after:.4f} "
            "after"
        )
    if found.uniform is not None:
        said.append(_uniform(found))
    said += [f"left alone: {name}: {reason}" for name, reason in found.left_alone]
    return [*said, *found.notes]


def _uniform(found: CompressionReport) -> str:
    even = found.uniform
    assert even is not None
    parts = [f"{even.file_bytes:,} bytes"]
    if even.error is not None:
        parts.append(f"relative error {even.error:.4f}")
    if even.quality is not None:
        parts.append(f"{found.quality_name} {even.quality:.4f}")
    return f"the same with a uniform allocation: {', '.join(parts)}"
