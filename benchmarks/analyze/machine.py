"""What cannot be told from processor time: memory, and two workers on two cores."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas
from safetensors.torch import save_file

from benchmarks.analyze import ours, theirs
from benchmarks.analyze.case import Case, Contest, Ours, Side, wall_seconds
from benchmarks.analyze.data import gpt2_like, heavy_tailed, module
from tailor.engine import Local

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20
SINGLE = 1e-4  # relative tolerance of what float32 finds


def cases() -> list[Case]:
    """All of them."""
    return [
        Case(
            name="memory beyond an 11008 x 4096 matrix, float32",
            against="weightwatcher",
            build=_memory,
            repeats=1,
            meter=_megabytes,
            unit="MB",
        ),
        Case(
            name="two workers, 48 matrices like GPT-2 small",
            against="one worker",
            build=_workers,
            repeats=3,
            meter=wall_seconds,
            unit="s",
        ),
    ]


def _memory(tiny: bool) -> Contest:
    shape = (344, 128) if tiny else (11008, 4096)
    return Contest(
        theirs=_in_a_fresh_process("theirs", shape),
        ours=(Ours(side=_in_a_fresh_process("ours", shape), at_least=6, tolerance=SINGLE),),
    )


def _in_a_fresh_process(who: str, shape: tuple[int, int]) -> Side:
    def run() -> dict[str, float]:
        command = [sys.executable, "-m", __spec__.name, who, *map(str, shape)]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        growth: dict[str, float] = json.loads(found.stdout)
        return growth

    return Side(run=run, read=lambda found: {"alpha": np.array([found["alpha"]])})


def _megabytes(run: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    found = run()
    return found["bytes"] / MEGABYTE, found


def _workers(tiny: bool) -> Contest:
    folder = tempfile.TemporaryDirectory(prefix="tailor-bench-")
    path = Path(folder.name) / "model.safetensors"
    save_file(gpt2_like(blocks=1, shrink=12) if tiny else gpt2_like(), path)

    def side(workers: int) -> Side:
        run = partial(ours.analyze, path, engine=Local(workers=workers))
        return Side(run=run, read=partial(theirs.in_table, theirs.COLUMNS))

    two = Ours(side=side(2), at_least=1.8, tolerance=0)
    return Contest(theirs=side(1), ours=(two,), close=folder.cleanup)


# The fresh process


def main(who: str, rows: int, columns: int) -> None:
    """Analyze one matrix and print how far memory grew beyond it, and its exponent."""
    _run_of(who, 64, 64)()  # loads what is loaded late, and the workspace of the BLAS
    run = _run_of(who, rows, columns)
    before = _peak()
    frame = run()
    print(json.dumps({"bytes": _peak() - before, "alpha": float(frame["alpha"].iloc[0])}))


def _run_of(who: str, rows: int, columns: int) -> Callable[[], pandas.DataFrame]:
    state = {"layer.weight": heavy_tailed(rows, columns, seed=2)}
    if who == "ours":
        return partial(ours.analyze, state, precision="float32")
    return partial(theirs.analyze, module(state))


def _peak() -> int:
    """Most bytes that this process has ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's peak, too, on Linux
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
