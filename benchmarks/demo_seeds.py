"""The demo's certificate over several seeds: bounds, bits, errors, wall time.

    python benchmarks/demo_seeds.py --seeds 5

Writes benchmarks/results/demo_seeds.json with versions and settings.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from rich.console import Console

from tailor.records import Provenance
from tailor.shell import demo

RESULT = Path(__file__).parent / "results" / "demo_seeds.json"


def measure(seed: int) -> dict[str, object]:
    """One run of the demo."""
    begin = time.perf_counter()
    outcome = demo.run(seed, Console(quiet=True))
    seconds = time.perf_counter() - begin
    certificate, points = outcome.certificate, outcome.compression.frontier
    chosen = {point.network: point.risk_bound for point in points if point.chosen}
    return {
        "seed": seed,
        "risk_bound": certificate.risk_bound,
        "kl": certificate.bounds.kl,
        "hoeffding": certificate.bounds.hoeffding,
        "bits": certificate.code.total,
        "errors": certificate.errors,
        "n": certificate.n,
        "held_out_error": certificate.held_out.error,
        "chosen_file_plain": chosen[demo.PLAIN],
        "chosen_file_heavy_tailed": chosen[demo.HEAVY],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Run all seeds one after the other and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    rows = []
    for seed in range(parser.parse_args().seeds):
        rows.append(measure(seed))
        print(rows[-1])
    about = Provenance.now()
    result = {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "machine": f"{about.machine}, {os.cpu_count()} processors, one thread used",
        "runs": rows,
        "median_risk_bound": statistics.median(row["risk_bound"] for row in rows),
        "largest_risk_bound": max(row["risk_bound"] for row in rows),
        "median_seconds": statistics.median(row["seconds"] for row in rows),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"median bound {result['median_risk_bound']:.4f}, written to {RESULT}")


if __name__ == "__main__":
    main()
