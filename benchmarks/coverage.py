"""How often the 95 % interval of alpha holds the true exponent, by simulation.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --quick
    python benchmarks/coverage.py --show

Two experiments, for ``Clauset`` and ``RobustClauset`` with either interval and for ``Hill``:

- independent values, a quarter of them in a Pareto tail from 1 up, three quarters uniform on
  (0, 1), so the truth is known;
- eigenvalues of W = G diag(d), G Gaussian and d^2 Pareto, where the exponent of a finite matrix
  is not known; an interval there should hold the mean of the estimate over many such matrices.

Writes benchmarks/results/coverage.json and prints the tables as Markdown, as they stand in
docs/analyze.md. A quick run has a tenth of the replicates and writes nothing; --show prints what
is recorded. The whole takes some five minutes.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from numpy.random import Generator

from tailor.numerics.powerlaw import Clauset, Hill, PowerLawFit, RobustClauset, TailFit
from tailor.numerics.spectrum import spectrum
from tailor.records import Provenance

RESULT = Path(__file__).parent / "results" / "coverage.json"

METHODS: dict[str, TailFit] = {
    "Clauset": Clauset(),
    "Clauset, bootstrap": Clauset(bootstrap=200),
    "RobustClauset": RobustClauset(),
    "RobustClauset, bootstrap": RobustClauset(bootstrap=200),
    "Hill(k=0.1)": Hill(k=0.1),
}
ALPHAS = (2.0, 2.5, 4.0, 6.0)
SIZES = (256, 768)
TAIL = 0.25  # share of the values in the tail
MATRIX_ALPHAS = (2.5, 3.5, 5.0)
SHAPES = ((512, 512), (2048, 512))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One method on one law.

    Attributes:
        method: Estimator and interval.
        law: What was drawn.
        alpha: Exponent of the law.
        held: Share of the replicates whose interval holds the target.
        error: Standard error of that share.
        width: Median width of the interval.
        mean: Mean estimate.
        deviation: Standard deviation of the estimate over the replicates.
        stated: Mean standard error that the intervals state, their width over 3.92.
        fits: Replicates with a fit.
        replicates: Replicates.
    """

    method: str
    law: str
    alpha: float
    held: float
    error: float
    width: float
    mean: float
    deviation: float
    stated: float
    fits: int
    replicates: int


def independent(alpha: float, n: int, generator: Generator) -> ndarray:
    """A uniform body and a Pareto tail."""
    in_tail = int(generator.binomial(n, TAIL))
    tail = (1 - generator.random(in_tail)) ** (-1 / (alpha - 1))
    return np.concatenate([generator.random(n - in_tail), tail])


def eigenvalues(alpha: float, shape: tuple[int, int], generator: Generator) -> ndarray:
    """Of W^T W for W = G diag(d), d^2 Pareto with density exponent alpha."""
    scale = (1 - generator.random(shape[1])) ** (-0.5 / (alpha - 1))
    matrix = generator.standard_normal(shape) * scale
    return spectrum(torch.from_numpy(matrix)[None]).eigenvalues


def measure(
    law: str, alpha: float, draw: Callable[[], ndarray], replicates: int, target: float | None
) -> list[Coverage]:
    """Every method on the same samples; without a target, it is the method's own mean."""
    samples = [draw() for _ in range(replicates)]
    return [
        _coverage(law, alpha, name, method, samples, target) for name, method in METHODS.items()
    ]


def _coverage(
    law: str,
    alpha: float,
    name: str,
    method: TailFit,
    samples: list[ndarray],
    target: float | None,
) -> Coverage:
    found = [_seeded(method, seed).fit(values) for seed, values in enumerate(samples)]
    fits = [fit for fit in found if isinstance(fit, PowerLawFit)]
    estimates = np.array([fit.alpha for fit in fits])
    low, high = np.array([(fit.low, fit.high) for fit in fits]).T
    goal = float(estimates.mean()) if target is None else target
    held = float(((low <= goal) & (goal <= high)).mean())
    return Coverage(
        method=name,
        law=law,
        alpha=alpha,
        held=held,
        error=float(np.sqrt(held * (1 - held) / len(fits))),
        width=float(np.median(high - low)),
        mean=float(estimates.mean()),
        deviation=float(estimates.std(ddof=1)),
        stated=float((high - low).mean() / 3.92),
        fits=len(fits),
        replicates=len(samples),
    )


def _seeded(method: TailFit, seed: int) -> TailFit:
    """A bootstrap of its own for every replicate."""
    if isinstance(method, Clauset | RobustClauset):
        return replace(method, seed=seed)
    return method


def run(independent_replicates: int, matrices: int) -> list[Coverage]:
    """Both experiments; the seed of each cell is its place in the list."""
    rows: list[Coverage] = []
    for n in SIZES:
        for alpha in ALPHAS:
            generator = np.random.default_rng([len(rows), 0])
            rows += measure(
                f"{n} independent values",
                alpha,
                lambda n=n, alpha=alpha, g=generator: independent(alpha, n, g),
                independent_replicates,
                alpha,
            )
            print(".", end="", flush=True)
    for shape in SHAPES:
        for alpha in MATRIX_ALPHAS:
            generator = np.random.default_rng([len(rows), 1])
            rows += measure(
                f"matrix {shape[0]} x {shape[1]}",
                alpha,
                lambda s=shape, alpha=alpha, g=generator: eigenvalues(alpha, s, g),
                matrices,
                None,
            )
            print(".", end="", flush=True)
    print()
    return rows


def markdown(rows: list[Coverage]) -> str:
    """One table for each experiment, a row for each law."""
    lines = []
    for title, tell in (("independent", _on_values), ("matrix", _on_matrices)):
        chosen = [row for row in rows if title in row.law]
        lines += [f"| Law | alpha | {' | '.join(METHODS)} |", "| --- |" + " ---: |" * 6]
        for law in dict.fromkeys((row.law, row.alpha) for row in chosen):
            told = [tell(row) for row in chosen if (row.law, row.alpha) == law]
            lines.append(f"| {law[0]} | {law[1]:g} | {' | '.join(told)} |")
        lines.append("")
    return "\n".join(lines)


def _on_values(one: Coverage) -> str:
    return f"{one.held:.1%} ({one.width:.2f})"


def _on_matrices(one: Coverage) -> str:
    return f"{one.held:.1%} ({one.mean:.2f}; {one.deviation:.2f}, {one.stated:.2f})"


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the replicates")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    parsed = parser.parse_args()
    if parsed.show:
        recorded = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
        print(markdown([Coverage(**row) for row in recorded]))
        return
    quick = parsed.quick
    torch.set_num_threads(1)
    rows = run(*((40, 20) if quick else (400, 200)))
    print(markdown(rows))
    if quick:
        return
    about = Provenance.now()
    result = {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "settings": {name: str(method) for name, method in METHODS.items()},
        "rows": [{name: getattr(row, name) for name in row.__slots__} for row in rows],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
