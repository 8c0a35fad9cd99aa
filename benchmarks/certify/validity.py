"""Do the bounds hold, and would it show if they did not? Simulated where the risks are known.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.validity
    OMP_NUM_THREADS=1 python -m benchmarks.certify.validity --quick
    python -m benchmarks.certify.validity --show

Every bound at delta = 0.05, each on samples of its own, with everything that may be searched
searched by the bound itself. A bound may lie below the true risk in at most 5 % of the samples; the
rules called wrong leave out one thing, and must be caught. With random labels no predictor is
better than a guess, so a bound below the guess is a violation. Nothing here is data but the seed.
Writes benchmarks/results/certify_validity.json.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

import tailor as tl
from benchmarks.certify import validity_cells as cells
from benchmarks.certify import validity_picks as picks
from tailor.numerics.bounds import clopper_pearson

RESULT = Path(__file__).parents[1] / "results" / "certify_validity.json"
REPETITIONS, SEED = 2000, 0
LABELS = {"signal": 0.1, "random labels": 0.5}  # the share of labels that do not tell the truth
CASES: tuple[Callable[[int, float, np.random.Generator], cells.Results], ...] = (
    cells.occam,
    cells.held_out,
    cells.gibbs,
    cells.subsample,
    cells.transfer,
    picks.line,
    picks.hull,
    picks.words,
)


def study(repetitions: int, seed: int = SEED) -> list[dict[str, object]]:
    """One row for every rule and kind of labels."""
    rows = []
    for place, case in enumerate(CASES):
        for kind, noise in LABELS.items():
            if case is picks.hull and kind != "signal":
                continue  # it has no labels to be random
            rng = np.random.default_rng([seed, place, round(10 * noise)])
            for rule, (limits, risks) in case(repetitions, noise, rng).items():
                rows.append(row(rule, kind, limits, risks))
    return rows


def row(rule: str, kind: str, limits: np.ndarray, risks: np.ndarray) -> dict[str, object]:
    """How often the risk exceeds the bound, and by how much the bound exceeds the risk."""
    violations = int((risks > limits).sum())
    low, high = clopper_pearson(violations, len(limits), 0.05)
    return {
        "rule": rule,
        "labels": kind,
        "repetitions": len(limits),
        "violations": violations,
        "rate": violations / len(limits),
        "interval": [low, high],
        "mean_bound": float(limits.mean()),
        "mean_risk": float(risks.mean()),
    }


def holds(found: dict[str, object]) -> bool:
    """Not shown to fail more often than delta allows: the interval reaches down to delta."""
    return found["interval"][0] <= cells.DELTA


def show(rows: list[dict[str, object]]) -> None:
    """Markdown tables, the right rules and the wrong ones."""
    for wrong in (False, True):
        print("| rule | labels | violations | 95 % interval | mean bound | mean risk | |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for one in rows:
            if one["rule"].startswith("wrong") == wrong:
                low, high = one["interval"]
                verdict = (
                    ("not caught" if wrong else "holds")
                    if holds(one)
                    else ("caught" if wrong else "FAILS")
                )
                print(
                    f"| {one['rule'].removeprefix('wrong: ')} | {one['labels']} "
                    f"| {one['violations']} of {one['repetitions']} "
                    f"| {100 * low:.2f} - {100 * high:.2f} % | {one['mean_bound']:.3f} "
                    f"| {one['mean_risk']:.3f} | {verdict} |"
                )
        print()


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 repetitions, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if asked.show:
        show(json.loads(RESULT.read_text())["rows"])
        return
    rows = study(300 if asked.quick else REPETITIONS)
    show(rows)
    if not asked.quick:
        record = {"about": asdict(tl.Provenance.now(SEED)), "delta": cells.DELTA, "rows": rows}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
