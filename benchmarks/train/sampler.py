"""A million alpha-stable values: ``tailor.sample_stable`` against ``scipy.stats.levy_stable.rvs``.

    OMP_NUM_THREADS=1 python -m benchmarks.train.sampler
    OMP_NUM_THREADS=1 python -m benchmarks.train.sampler --quick
    python -m benchmarks.train.sampler --show

Processor seconds on one thread, both sides in turn in one run; that both draw from one law is
seen from quantiles of the samples. Then noise that is a function of its place, as ``StableNoise``
draws it. Writes benchmarks/results/sampler.json and prints the cases.
"""

import argparse
import dataclasses
import itertools
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks.analyze.case import (
    Case,
    Contest,
    Numbers,
    Ours,
    Side,
    compete,
    cpu_seconds,
    trial,
)
from benchmarks.analyze.command import as_markdown
from tailor.numerics.stable import sample_stable
from tailor.numerics.stable.draw import block_size
from tailor.numerics.stable.keyed import Kind, keyed_rows
from tailor.records import Provenance

RESULT = Path(__file__).parents[1] / "results" / "sampler.json"
SEED = 0
ALPHAS, BETAS = (0.5, 1.0, 1.5, 1.75, 1.9), (0.0, 0.5)
COLUMNS = 1000
QUANTILES = (0.1, 0.25, 0.75, 0.9)


def main() -> None:
    """Run all cases, or show what is recorded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train.sampler")
    parser.add_argument("--quick", action="store_true", help="few values: does everything run?")
    parser.add_argument("--show", action="store_true", help="print what is recorded, as Markdown")
    parsed = parser.parse_args()
    if parsed.show:
        print(as_markdown(json.loads(RESULT.read_text(encoding="utf-8"))["cases"]))
        return
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = []
    for case in cases():
        for row in trial(case) if parsed.quick else compete(case):
            ratio = "" if row.ratio is None else f"{row.ratio:6.2f} x"
            print(f"{row.name:46} {1e3 * row.ours:8.2f} ms {ratio:9} goal {row.goal}", flush=True)
            rows.append(dataclasses.asdict(row))
    if not parsed.quick:
        about = {"load_before_and_after": [load, os.getloadavg()[0]], "scipy": version("scipy")}
        about |= dataclasses.asdict(Provenance.now(SEED))
        RESULT.write_text(json.dumps({"about": about, "cases": rows}, indent=1) + "\n")


def cases() -> list[Case]:
    """All of them."""
    laws = [_against_scipy(*law) for law in itertools.product(ALPHAS, BETAS)]
    return [*laws, *(_keyed(kind, 1.75) for kind in ("iid", "rotation", "shared"))]


def _against_scipy(alpha: float, beta: float) -> Case:
    def build(tiny: bool) -> Contest:
        n = 20_000 if tiny else 1_000_000
        source, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)

        def theirs() -> np.ndarray:
            return stats.levy_stable.rvs(alpha, beta, size=n, random_state=source)

        def ours(dtype: torch.dtype) -> Side:
            def run() -> torch.Tensor:
                return sample_stable(n, alpha, beta, generator=generator, dtype=dtype)

            return Side(run=run, read=lambda found: _quantiles(found.numpy()))

        tolerance = 0.2 if tiny else 0.03  # some five standard errors of the quantiles
        single = Ours(side=ours(torch.float32), label="float32", at_least=8, tolerance=tolerance)
        double = Ours(side=ours(torch.float64), label="float64", at_least=1, tolerance=tolerance)
        return Contest(theirs=Side(run=theirs, read=_quantiles), ours=(single, double))

    name = f"a million stable values, alpha {alpha:g}, beta {beta:g}"
    return Case(name=name, against="scipy", build=build, repeats=9, meter=cpu_seconds)


def _quantiles(sample: np.ndarray) -> Numbers:
    found = np.quantile(sample.astype(np.float64), QUANTILES)
    return {"quantiles": found / abs(found).max()}


def _keyed(kind: Kind, alpha: float) -> Case:
    def build(tiny: bool) -> Contest:
        rows = 20 if tiny else 1000
        block = max(1, block_size(torch.device("cpu")) // COLUMNS)

        def run() -> torch.Tensor:
            for first in range(0, rows, block):
                part = range(first, min(rows, first + block))
                found = keyed_rows(kind, alpha, (SEED, "weight", 0), part, COLUMNS)
            return found

        side = Side(run=run, read=lambda found: {"last": found.numpy()})
        return Contest(theirs=None, ours=(Ours(side=side, at_most=0.06),))

    name = f"keyed noise for 1000 x {COLUMNS} weights, {kind}"
    return Case(name=name, against="", build=build, repeats=9, meter=cpu_seconds)


if __name__ == "__main__":
    main()
