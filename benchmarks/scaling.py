"""What an analysis costs for matrices of the largest language models, measured and calculated.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py
    OMP_NUM_THREADS=1 python benchmarks/scaling.py --quick
    python benchmarks/scaling.py --show

Processor seconds and memory of single matrices are measured with one thread, each in a fresh
process, and two rates are fitted to them: that of the Gram matrix (n^2 m multiplications and
additions, n the smaller side) and that of its eigenvalues (4/3 n^3). With these rates the cost
of checkpoints that do not fit here is calculated: the work, the time on a number of workers that
take whole matrices, the dearest first, and the memory of each worker.

A square matrix whose least singular value drowns in rounding errors is decomposed into singular
values instead of its Gram matrix, which is dearer. One such matrix is measured, too, and a
second calculation takes all square matrices to be of that kind.

Writes benchmarks/results/scaling.json and prints tables as Markdown. A quick run has small matrices
and writes nothing; --show prints what is recorded. The whole takes some four minutes.
"""

import argparse
import heapq
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from tailor.numerics.powerlaw import Clauset
from tailor.numerics.spectrum import frobenius_norm, spectral_norm, spectrum
from tailor.records import Provenance

RESULT = Path(__file__).parent / "results" / "scaling.json"

Shape = tuple[int, int]
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
MEASURED: dict[Shape, int] = {
    (1024, 1024): 5,
    (2048, 2048): 3,
    (4096, 4096): 3,
    (11008, 4096): 2,
    (16384, 4096): 1,
    (8192, 8192): 1,
}
SINGULAR: Shape = (4096, 4096)  # measured with its least singular value lost to rounding
QUICK: dict[Shape, int] = {(512, 512): 3, (1024, 1024): 2, (2048, 1024): 2}
WORST = "float64, square ones singular"
STEPS = 40  # of Lanczos, two products with the matrix each


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One matrix, one precision.

    Attributes:
        rows: Rows.
        columns: Columns.
        precision: Of the eigenvalues.
        method: ``"gram"``, or ``"svd"`` where singular values were needed.
        seconds: Processor seconds of the spectrum, the median of the repeats.
        fit: Processor seconds of ``Clauset`` on it.
        megabytes: Growth of the process beyond the matrix.
        repeats: Repeats.
    """

    rows: int
    columns: int
    precision: str
    method: str
    seconds: float
    fit: float
    megabytes: float
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Work in 10^9 operations a second, and how far the model is from what was measured.

    Attributes:
        gram: Of the Gram matrix.
        eigen: Of the eigenvalues.
        misfit: Largest relative difference from a measurement.
    """

    gram: float
    eigen: float
    misfit: float


# The checkpoints: shape -> how many of them


def llama_70b() -> dict[Shape, int]:
    """80 layers of width 8192, eight heads of keys and values, 16-bit weights."""
    return _decoder(layers=80, width=8192, key=1024, hidden=28672)


def llama_405b() -> dict[Shape, int]:
    """126 layers of width 16384."""
    return _decoder(layers=126, width=16384, key=1024, hidden=53248)


def _decoder(*, layers: int, width: int, key: int, hidden: int) -> dict[Shape, int]:
    return {
        (width, width): 2 * layers,  # queries, outputs
        (key, width): 2 * layers,  # keys, values
        (hidden, width): 2 * layers,  # gate, up
        (width, hidden): layers,  # down
        (128256, width): 2,  # embedding and head
    }


CHECKPOINTS = {"70 B": llama_70b(), "405 B": llama_405b()}
MACHINES = {"2 cores": 2, "16 cores": 16, "64 cores": 64}
NODES = {"8 nodes": 128, "16 nodes": 256, "64 nodes": 1024}  # of 16 cores


# Measured


def measure(shapes: dict[Shape, int], singular: Shape) -> list[Cost]:
    """Each matrix and precision in a process of its own; the last one is nearly singular."""
    wanted = [(shape, p, repeats, 0) for shape, repeats in shapes.items() for p in PRECISIONS]
    found = []
    for (rows, columns), precision, repeats, lost in [*wanted, (singular, "float64", 1, 1)]:
        told = _in_a_fresh_process(rows, columns, precision, repeats, lost)
        found.append(Cost(rows=rows, columns=columns, precision=precision, repeats=repeats, **told))
        print(found[-1], flush=True)
    return found


def _in_a_fresh_process(*settings: int | str) -> dict[str, object]:
    command = [sys.executable, __file__, "--child", ",".join(map(str, settings))]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(
        command, env=os.environ | single, capture_output=True, check=True, text=True
    )
    return dict(json.loads(told.stdout))


def child(rows: int, columns: int, precision: str, repeats: int, lost: int) -> None:
    """Time one matrix of 16-bit weights, as checkpoints hold them, and print the numbers."""
    torch.set_num_threads(1)
    dtype = PRECISIONS[precision]
    Clauset().fit(spectrum(_weights(150, 150), dtype=dtype).eigenvalues)  # loads what comes late
    stack = _weights(rows, columns)
    if lost:
        stack[0, 0] = stack[0, 1]
    before = _peak()
    seconds, fits, method = [], [], ""
    for _ in range(repeats):
        began = time.process_time()
        found = spectrum(stack, dtype=dtype)
        middle = time.process_time()
        Clauset().fit(found.eigenvalues)
        seconds.append(middle - began)
        fits.append(time.process_time() - middle)
        method = found.method
    told = {
        "method": method,
        "seconds": statistics.median(seconds),
        "fit": statistics.median(fits),
        "megabytes": (_peak() - before) / 2**20,
    }
    print(json.dumps(told))


def _weights(rows: int, columns: int) -> torch.Tensor:
    """Gaussian noise, made in pieces so that no copy raises the peak."""
    generator = torch.Generator().manual_seed(0)
    stack = torch.empty(1, rows, columns, dtype=torch.bfloat16)
    for start in range(0, rows, 256):
        piece = stack[0, start : start + 256]
        piece.copy_(torch.randn(piece.shape, generator=generator))
    return stack


def _peak() -> int:
    """Most bytes that this process has ever held (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (one for one in status if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_norms(shapes: dict[Shape, int]) -> dict[str, float]:
    """Processor seconds of both norms alone, by shape."""
    torch.set_num_threads(1)
    found = {}
    for rows, columns in list(shapes)[1:4]:
        matrix = _weights(rows, columns)[0]
        began = time.process_time()
        frobenius_norm(matrix)
        spectral_norm(matrix, steps=STEPS, tolerance=0)
        found[f"{rows}x{columns}"] = time.process_time() - began
    return found


# Calculated


def operations(shape: Shape) -> tuple[float, float]:
    """Of the Gram matrix on the smaller side (one triangle), and of its eigenvalues."""
    n, m = float(min(shape)), float(max(shape))
    return n * n * m, 4 / 3 * n**3


def fitted(costs: list[Cost], precision: str) -> Rates:
    """Least squares of the relative differences, over sides of at least 2048 if there are any."""
    chosen = [one for one in costs if one.precision == precision and one.method == "gram"]
    large = [one for one in chosen if min(one.rows, one.columns) >= 2048]
    chosen = large if len(large) > 2 else chosen
    work = np.array([operations((one.rows, one.columns)) for one in chosen])
    seconds = np.array([one.seconds for one in chosen])
    share = work / seconds[:, None]
    each, *_ = np.linalg.lstsq(share, np.ones(len(seconds)), rcond=None)
    if (each <= 0).any():  # the shapes do not tell the two apart: one rate for both
        each = np.full(2, 1 / share.sum(axis=1).mean())
    misfit = float(np.abs(share @ each - 1).max())
    return Rates(gram=float(1e-9 / each[0]), eigen=float(1e-9 / each[1]), misfit=misfit)


def seconds_of(shape: Shape, rates: Rates) -> float:
    """One matrix on one core."""
    gram, eigen = operations(shape)
    return 1e-9 * (gram / rates.gram + eigen / rates.eigen)


def seconds_if_singular(shape: Shape, rates: Rates, singular: Cost) -> float:
    """The same if every square matrix is nearly singular; the extra cost grows as the cube."""
    if shape[0] != shape[1]:
        return seconds_of(shape, rates)
    return singular.seconds * (shape[0] / singular.rows) ** 3


def makespan(costs: list[float], workers: int) -> float:
    """Until the last worker is done, if each takes the dearest matrix that is left."""
    free = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def calculated(
    name: str, rates: dict[str, Rates], norms: float, singular: Cost
) -> dict[str, object]:
    """Work, times and memory of one checkpoint."""
    shapes = [shape for shape, count in CHECKPOINTS[name].items() for _ in range(count)]
    weights = sum(math.prod(shape) for shape in shapes)
    told: dict[str, object] = {
        "matrices": len(shapes),
        "parameters": weights,
        "gigabytes": 2e-9 * weights,
        "operations": sum(sum(operations(shape)) for shape in shapes),
        "largest_gram_gigabytes": 8e-9 * max(min(shape) for shape in shapes) ** 2,
        "largest_matrix_gigabytes": 2e-9 * max(math.prod(shape) for shape in shapes),
    }
    times = {p: [seconds_of(shape, r) for shape in shapes] for p, r in rates.items()}
    times[WORST] = [seconds_if_singular(shape, rates["float64"], singular) for shape in shapes]
    times["norms only"] = [norms * math.prod(shape) for shape in shapes]
    for kind, costs in times.items():
        told[kind] = {
            "core_hours": sum(costs) / 3600,
            "longest_matrix_minutes": max(costs) / 60,
            "hours": {
                where: makespan(costs, workers) / 3600
                for where, workers in (MACHINES | NODES).items()
            },
        }
    return told


# Printed


def tables(costs: list[Cost], rates: dict[str, Rates], models: dict[str, dict]) -> str:
    """As Markdown."""
    lines = [
        "| Matrix | precision | by | CPU s | model s | fit s | memory MB |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in costs:
        model = seconds_of((one.rows, one.columns), rates[one.precision])
        lines.append(
            f"| {one.rows} x {one.columns} | {one.precision} | {one.method} | "
            f"{one.seconds:.2f} | {model:.2f} | {one.fit:.3f} | {one.megabytes:.0f} |"
        )
    lines += ["", *(f"{name}: {rate}" for name, rate in rates.items()), ""]
    for name, told in models.items():
        lines.append(", ".join(f"{k} {v:.4g}" for k, v in told.items() if not isinstance(v, dict)))
        places = list(MACHINES | NODES)
        lines += [f"| {name} | core hours | {' | '.join(places)} |", "| --- |" + " ---: |" * 7]
        for kind in (*PRECISIONS, WORST, "norms only"):
            minutes = [f"{60 * told[kind]['hours'][place]:.1f} min" for place in places]
            lines.append(f"| {kind} | {told[kind]['core_hours']:.3g} | {' | '.join(minutes)} |")
        lines.append("")
    return "\n".join(lines)


def show(recorded: dict) -> None:
    """The tables of a recorded run."""
    costs = [Cost(**one) for one in recorded["measured"]]
    rates = {name: Rates(**one) for name, one in recorded["rates"].items()}
    print(tables(costs, rates, recorded["calculated"]))


def main() -> None:
    """Measure, fit, calculate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small matrices; writes nothing")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.show:
        show(json.loads(RESULT.read_text(encoding="utf-8")))
        return
    if parsed.child:
        rows, columns, precision, repeats, lost = parsed.child.split(",")
        child(int(rows), int(columns), precision, int(repeats), int(lost))
        return
    shapes = QUICK if parsed.quick else MEASURED
    costs = measure(shapes, (1024, 1024) if parsed.quick else SINGULAR)
    norms = measure_norms(shapes)
    rates = {precision: fitted(costs, precision) for precision in PRECISIONS}
    an_entry = statistics.median(
        seconds / math.prod(map(int, shape.split("x"))) for shape, seconds in norms.items()
    )
    models = {name: calculated(name, rates, an_entry, costs[-1]) for name in CHECKPOINTS}
    print(tables(costs, rates, models))
    print({shape: round(seconds, 2) for shape, seconds in norms.items()})
    if parsed.quick:
        return
    about = Provenance.now()
    result = {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "machine": f"{about.machine}, {os.cpu_count()} processors, one thread used",
        "measured": [asdict(one) for one in costs],
        "norms_seconds": norms,
        "rates": {name: asdict(rate) for name, rate in rates.items()},
        "calculated": models,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
