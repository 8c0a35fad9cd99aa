"""What is compared, how it is timed, and whether both sides found the same numbers."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = dict[str, np.ndarray]
Meter: TypeAlias = Callable[[Callable[[], Any]], tuple[float, Any]]

LEAST_SECONDS = 0.1  # a side is called again until so much time has been measured
SHARES = ("D",)  # numbers whose difference is meant absolutely


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to do a task.

    Attributes:
        run: Does it once; this is what is measured.
        read: The numbers in what ``run`` returned.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """One way in which tailor does the task.

    Attributes:
        side: What is measured.
        label: What is special about it, such as ``"float32"``.
        at_least: The goal: how many times less than theirs; None where ``at_most`` says it.
        at_most: The goal in units of the meter.
        tolerance: Largest difference between the numbers of both sides.
    """

    side: Side
    label: str = ""
    at_least: float | None = None
    at_most: float | None = None
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Both sides on the same data.

    Attributes:
        theirs: None where only a limit is set.
        ours: One or more ways.
        close: Removes what ``build`` left on the disk.
    """

    theirs: Side | None
    ours: tuple[Ours, ...]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One task.

    Attributes:
        name: What it is.
        against: Who else does it: a package, or tailor in another way.
        build: Brings the data into memory; True makes it tiny, for a trial.
        repeats: Rounds; in each round every side is measured once, one after the other.
        meter: How a side is measured.
        unit: What the meter counts.
    """

    name: str
    against: str
    build: Callable[[bool], Contest]
    repeats: int
    meter: Meter
    unit: str = "CPU s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the result.

    Attributes:
        name: Name of the case, and the label of our side.
        against: See ``Case``.
        unit: See ``Case``.
        goal: What was to be reached, as text.
        reached: Whether it was.
        ours: Median of our side.
        theirs: Median of theirs.
        ratio: Median over the rounds of theirs divided by ours.
        ratios: Least and largest of these.
        repeats: Number of rounds.
        differences: Largest difference of each number that both sides found.
        agree: Whether they are all within ``tolerance``; None where nothing was compared.
        tolerance: See ``Ours``.
    """

    name: str
    against: str
    unit: str
    goal: str
    reached: bool
    ours: float
    theirs: float | None
    ratio: float | None
    ratios: tuple[float, float] | None
    repeats: int
    differences: dict[str, float] = field(default_factory=dict)
    agree: bool | None
    tolerance: float


def cpu_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of this process, averaged over as many calls as it takes to be told."""
    gc.collect()
    calls, spent, began = 0, 0.0, time.process_time()
    while spent < LEAST_SECONDS:
        found = run()
        calls += 1
        spent = time.process_time() - began
    return spent / calls, found


def wall_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time on the clock of one call, for what runs in several processes."""
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def trial(case: Case) -> list[Row]:
    """A tiny version of the case, each side once: it runs, and both sides agree."""
    return _rows(case, case.build(True), 1)


def compete(case: Case, repeats: int | None = None) -> list[Row]:
    """Measure all sides, alternating; a trial first, so that all that is loaded is loaded."""
    trial(case)
    return _rows(case, case.build(False), case.repeats if repeats is None else repeats)


def _rows(case: Case, contest: Contest, repeats: int) -> list[Row]:
    theirs: list[tuple[float, Numbers]] = []
    ours: list[list[tuple[float, Numbers]]] = [[] for _ in contest.ours]
    try:
        for _ in range(repeats):
            if contest.theirs is not None:
                theirs.append(_measured(case, contest.theirs))
            for found, one in zip(ours, contest.ours, strict=True):
                found.append(_measured(case, one.side))
    finally:
        contest.close()
    return [_row(case, one, found, theirs) for one, found in zip(contest.ours, ours, strict=True)]


def _measured(case: Case, side: Side) -> tuple[float, Numbers]:
    amount, found = case.meter(side.run)
    return amount, side.read(found)


def _row(
    case: Case, side: Ours, ours: list[tuple[float, Numbers]], theirs: list[tuple[float, Numbers]]
) -> Row:
    spent = [amount for amount, _ in ours]
    ratios = [b / a for (a, _), (b, _) in zip(ours, theirs, strict=False)]
    differences = largest_differences(ours[0][1], theirs[0][1]) if theirs else {}
    return Row(
        name=f"{case.name}, {side.label}" if side.label else case.name,
        against=case.against,
        unit=case.unit,
        goal=f">= {side.at_least:g} x" if side.at_least else f"<= {side.at_most:g} {case.unit}",
        reached=_reached(side, statistics.median(spent), ratios),
        ours=statistics.median(spent),
        theirs=statistics.median(amount for amount, _ in theirs) if theirs else None,
        ratio=statistics.median(ratios) if ratios else None,
        ratios=(min(ratios), max(ratios)) if ratios else None,
        repeats=len(ours),
        differences=differences,
        agree=max(differences.values()) <= side.tolerance if differences else None,
        tolerance=side.tolerance,
    )


def _reached(side: Ours, spent: float, ratios: list[float]) -> bool:
    if side.at_least is not None:
        return bool(ratios) and statistics.median(ratios) >= side.at_least
    return side.at_most is not None and spent <= side.at_most


def largest_differences(ours: Numbers, theirs: Numbers) -> dict[str, float]:
    """For each name that both have: the largest difference, relative to the size of theirs.

    Differences of shares are not divided by anything, and those of logarithms only where the
    logarithm exceeds 1. Infinite where one side has a number and the other has none.
    """
    found = {}
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = (np.asarray(side[name], dtype=np.float64) for side in (ours, theirs))
        if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
            found[name] = float("inf")
            continue
        least = 1.0 if name in SHARES or name.startswith("log_") else np.finfo(np.float64).tiny
        size = 1.0 if name in SHARES else np.maximum(np.abs(b), least)
        found[name] = float(np.nan_to_num(np.abs(a - b) / size).max())
    return found
