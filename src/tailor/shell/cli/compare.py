"""``tailor compare``."""

import argparse
import csv
import json
import os
import re
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tailor import records
from tailor.errors import UsageError
from tailor.shell.cli.analyze import settings, watched, weights_of, what_to_read
from tailor.shell.cli.screen import DONE, console, must_be_writable, table
from tailor.shell.output import save_analyses
from tailor.shell.page import render
from tailor.stages.analyze import Analyses
from tailor.stages.compare import Comparison, LayerChange, compare

MOST_LAYERS = 20  # printed; all of them are in the files


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command takes."""
    what_to_read(command)
    command.add_argument("sources", nargs="+", help="two or more checkpoints, in order")
    command.add_argument("--out", type=Path, help="folder for records, tables and report.html")
    command.add_argument("--json", action="store_true", help="print the record, not tables")
    known = command.add_mutually_exclusive_group()
    known.add_argument(
        "--quality",
        metavar="NUMBERS",
        help="one number for each source, such as test errors: 8.3,7.4,6.9 or a CSV file with "
        "the columns source and quality",
    )
    known.add_argument(
        "--quality-in-name",
        metavar="REGEX",
        help=r"take it from each source's name, such as 'loss-([0-9.]+\d)'",
    )
    command.add_argument("--named", default="quality", help="what the quality is called")


def run(parsed: argparse.Namespace) -> int:
    """Analyze every source, then put them side by side."""
    labels = _labels(parsed.sources)
    quality = _quality(parsed)
    options = settings(parsed)
    if parsed.out is not None:
        must_be_writable(parsed.out)
    journals = _journals(parsed.out, len(labels))
    analyses = [
        watched(weights_of([source], parsed), label, journal, parsed.out is not None, options)
        for source, label, journal in zip(parsed.sources, labels, journals, strict=True)
    ]
    found = compare(analyses, quality=quality, named=parsed.named)
    if parsed.out is not None:
        save_analyses(Analyses(analyses=tuple(analyses)), parsed.out)
        records.save(found, parsed.out / "comparison.json")
        for name, frame in (("models", found.to_frame()), ("layers", found.layers_to_frame())):
            records.write(parsed.out / f"{name}.csv", frame.to_csv(index=False).encode())
        for journal in journals:
            if journal is not None:
                journal.unlink(missing_ok=True)
        render(parsed.out)
    if parsed.json:
        print(json.dumps(records.to_json(found), allow_nan=False))
    else:
        _print(console(), found)
    return DONE


def _labels(sources: list[str]) -> list[str]:
    """Sources without the folders that all of them share."""
    if len(sources) < 2:
        raise UsageError("compare needs two or more sources; to look at one, use tailor analyze")
    parts = [Path(source).parts for source in sources]
    if len(set(parts)) < len(parts):
        raise UsageError("a source is named twice; name every one once")
    shared, least = 0, min(map(len, parts))
    while len({part[shared : shared + 1] for part in parts}) == 1 and least > shared + 1:
        shared += 1
    return ["/".join(part[shared:]) or "." for part in parts]


def _journals(out: Path | None, count: int) -> list[Path | None]:
    if out is None:
        return [None] * count
    return [out / f"analysis-{i}.partial.jsonl" for i in range(count)]


def _quality(parsed: argparse.Namespace) -> list[float] | None:
    if parsed.quality_in_name is not None:
        return [_in_name(parsed.quality_in_name, source) for source in parsed.sources]
    if parsed.quality is None:
        return None
    if os.path.isfile(parsed.quality):  # Path.is_file raises where the numbers are very many
        return _from_csv(Path(parsed.quality), parsed.sources)
    try:
        numbers = [float(number) for number in parsed.quality.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--quality {parsed.quality!r} is neither a file nor numbers like 8.3,7.4"
        ) from error
    if len(numbers) != len(parsed.sources):  # found out before the work, not after it
        raise UsageError(
            f"--quality has {len(numbers)} numbers for {len(parsed.sources)} sources; "
            "give one for each"
        )
    return numbers


def _in_name(pattern: str, source: str) -> float:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--quality-in-name {pattern!r} is no expression: {error}") from error
    if expression.groups != 1:
        raise UsageError(
            f"--quality-in-name {pattern!r} needs one group in parentheses, the number, "
            f"but has {expression.groups}"
        )
    found = expression.search(source)
    if found is None:
        raise UsageError(f"--quality-in-name {pattern!r} finds nothing in {source}")
    try:
        return float(found.group(1) or "")
    except ValueError as error:
        raise UsageError(
            f"--quality-in-name {pattern!r} finds {found.group(1) or ''!r}, no number, in {source}"
        ) from error


def _from_csv(path: Path, sources: list[str]) -> list[float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {row["source"]: float(row["quality"]) for row in csv.DictReader(file)}
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        raise UsageError(f"{path} needs the columns source and quality (numbers)") from error
    for source in sources:
        if source not in rows and Path(source).name not in rows:
            raise UsageError(f"{path} has no row for {source}")
    return [rows.get(source, rows.get(Path(source).name, 0.0)) for source in sources]


# What is printed


def _print(screen: Console, found: Comparison) -> None:
    columns = ["matrices", "mean alpha", "median alpha", "alpha-weighted", "log norm"]
    columns += ["log spectral norm", "stable rank"]
    columns += [escape(found.quality)] if found.quality else []
    made = table("models", ("model",), columns)
    for one in found.models:
        names = ("alpha", "alpha_weighted", "log_norm", "log_spectral_norm", "stable_rank")
        means = [_number(one.mean.get(name)) for name in names]
        cells = [str(one.matrices), means[0], _number(one.median.get("alpha")), *means[1:]]
        if found.quality:
            cells.append(_number(one.quality))
        made.add_row(escape(one.source), *cells)
    screen.print(made)
    _print_layers(screen, found)
    if found.quality:
        _print_predictions(screen, found)


def _print_layers(screen: Console, found: Comparison) -> None:
    fitted = [layer for layer in found.layers if layer.change is not None]
    fitted.sort(key=lambda layer: -abs(layer.change or 0.0))
    if fitted:
        title = f"largest changes of alpha, {found.models[0].source} to {found.models[-1].source}"
        made = table(escape(title), ("layer",), ("from", "to", "change", "intervals"))
        for layer in fitted[:MOST_LAYERS]:
            made.add_row(
                escape(layer.name),
                _interval(layer, 0),
                _interval(layer, -1),
                f"{layer.change:+.2f}",
                "apart" if layer.apart else "overlap",
            )
        screen.print(made)
        apart = sum(layer.apart for layer in fitted)
        chance = "; of so many, some lie apart by chance alone" if 0 < apart < len(fitted) else ""
        screen.print(f"{apart} of {len(fitted)} intervals lie apart{chance}", markup=False)
    for name in found.unmatched[:MOST_LAYERS]:
        screen.print(f"in one model only: {name}", markup=False)
    if len(found.unmatched) > MOST_LAYERS:
        screen.print(f"in one model only: {len(found.unmatched) - MOST_LAYERS} more")


def _print_predictions(screen: Console, found: Comparison) -> None:
    if not found.predictions:
        screen.print("a rank correlation needs at least three models that differ")
        return
    columns = ("rank correlation [95 %]", "p", "what it says")
    title = f"does it order the models by {found.quality}?"
    made = table(escape(title), ("metric",), columns)
    for one in found.predictions:
        c = one.correlation
        made.add_row(
            one.metric,
            escape(f"{c.rho:+.2f} [{c.low:+.2f}, {c.high:+.2f}]"),
            f"{c.p:.2g}",
            one.meaning,
        )
    screen.print(made)
    for sentence in found.caveats:
        screen.print(sentence, markup=False, soft_wrap=True)


def _interval(layer: LayerChange, place: int) -> str:
    alpha, low, high = layer.alpha[place], layer.low[place], layer.high[place]
    if alpha is None:
        return "-"
    return escape(f"{alpha:.2f} [{low:.1f}, {high:.1f}]")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
