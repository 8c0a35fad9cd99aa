"""Which way of training gives the smallest certified bound after compression? On digits.

    OMP_NUM_THREADS=1 python -m benchmarks.train.certified
    OMP_NUM_THREADS=1 python -m benchmarks.train.certified --quick
    python -m benchmarks.train.certified --show

The network of the digits task (64-64-10, ReLU, no biases), Adam, cosine schedule, 60 epochs. Files
at nine sparsities by magnitude, each after 15 epochs of retraining in the same way, quantised as in
``tailor demo`` but without its local search; the file with the smallest Occam bound counts. Every
weight of a penalty that was tried is paid for in the bound, as are the sparsities. A method's
weight is the one with the smallest bound on seed 100, and the seeds reported are others. Writes
benchmarks/results/certified.json.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import tailor as tl

RESULT = Path(__file__).parents[1] / "results" / "certified.json"
EPOCHS, RETRAIN, BATCH, RATE = 60, 15, 128, 5e-3
SPARSITIES = (0.5, 0.75, 0.87, 0.92, 0.945, 0.961, 0.97, 0.977, 0.983)
DELTA, TUNING = 0.05, 100
QUANTIZER = tl.Uniform(top=4, unit_step=True)

Way = Callable[[float], tuple[list[tl.Penalty], tl.StableNoise | None]]


def penalty(make: Callable[[float], tl.Penalty]) -> Way:
    """A way of training with one penalty."""
    return lambda weight: ([make(weight)], None)


WAYS: dict[str, tuple[Way, tuple[float, ...]]] = {
    "none": (lambda weight: ([], None), (0.0,)),
    "weight decay": (penalty(tl.L2), (1e-4, 1e-3, 1e-2, 3e-2)),
    "L1": (penalty(tl.L1), (1e-5, 1e-4, 1e-3, 3e-3)),
    "Student prior": (penalty(tl.StudentPrior), (5e-4, 1.4e-3, 4e-3)),
    "group lasso": (penalty(tl.GroupLasso), (1e-4, 1e-3, 1e-2, 3e-2)),
    "horseshoe nodes": (penalty(tl.HorseshoeNodes), (1e-5, 1e-4, 1e-3, 3e-3)),
    "spectral norm": (penalty(tl.SpectralNorm), (1e-3, 1e-2, 1e-1, 3e-1)),
    "stable rank": (penalty(tl.StableRank), (1e-4, 1e-3, 1e-2, 1e-1)),
    "weighted alpha": (penalty(tl.WeightedAlpha), (1e-3, 1e-2, 1e-1, 3e-1)),
    "power-law prior": (penalty(tl.PowerLawPrior), (1e-5, 1e-4, 1e-3, 3e-3)),
    "stable noise": (
        lambda weight: ([], tl.StableNoise(alpha=1.8, scale=weight, targets="all", lr_power=0)),
        (1e-5, 1e-4, 3e-4, 1e-3),
    ),
}
PAID = math.log2(len(SPARSITIES)) + math.log2(sum(len(grid) for _, grid in WAYS.values()))


def best(way: Way, weight: float, seed: int) -> dict[str, float]:
    """The file with the smallest bound."""
    data, held_out = tl.DIGITS.train(), tl.DIGITS.test()
    assert held_out is not None
    torch.manual_seed(seed)
    model = tl.DIGITS.build()

    def fit(network: nn.Module, epochs: int, noisy: bool = False) -> None:
        penalties, noise = way(weight)
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        steps = epochs * math.ceil(len(data) / BATCH)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=RATE / 100)
        for _ in tl.train(
            network,
            tl.batches(data, size=BATCH, epochs=epochs, seed=seed),
            loss=nn.functional.cross_entropy,
            optimizer=optimizer,
            penalties=penalties,
            noise=noise if noisy else None,
            schedulers=[cosine],
            seed=seed,
        ):
            pass

    fit(model, EPOCHS, noisy=True)  # a pruned network stays pruned: no noise while it retrains
    dense = float(tl.zero_one(model, held_out).double().mean())
    found = []
    for one in tl.frontier(
        model, SPARSITIES, quantizer=QUANTIZER, retrain=lambda network: fit(network, RETRAIN)
    ):
        file = one.compressed
        errors = int(tl.zero_one(file.into(tl.DIGITS.build), data).sum())
        bits = 8 * len(file.stream)
        bound = tl.occam(errors, len(data), bits + PAID, DELTA).binomial
        missed = float(tl.zero_one(file.into(tl.DIGITS.build), held_out).double().mean())
        found.append(
            {
                "bound": bound,
                "bits": bits,
                "train_errors": errors,
                "held_out_error": missed,
                "sparsity": one.sparsity,
                "dense_held_out_error": dense,
            }
        )
    return min(found, key=lambda file: file["bound"])


def study(seeds: int) -> list[dict[str, object]]:
    """Tune and test every way."""
    rows = []
    for name, (way, grid) in WAYS.items():
        tuned = {f"{weight:g}": best(way, weight, TUNING)["bound"] for weight in grid}
        weight = min(grid, key=lambda one: tuned[f"{one:g}"])
        runs = [best(way, weight, seed) for seed in range(seeds)]
        rows.append({"way": name, "weight": weight, "tuning": tuned, "runs": runs})
        print(name, weight, [round(run["bound"], 4) for run in runs], flush=True)
    return rows


def show() -> None:
    """The recorded table."""
    rows = json.loads(RESULT.read_text())["rows"]
    plain = [run["bound"] for run in rows[0]["runs"]]
    print(
        "| training | weight | bound, median (range) | minus none, paired | bits | train errors "
        "| held-out error of the file |\n" + "| --- " * 7 + "|"
    )
    for row in sorted(rows, key=lambda row: statistics.median(r["bound"] for r in row["runs"])):
        runs = row["runs"]
        bounds = [run["bound"] for run in runs]
        gains = [a - b for a, b in zip(bounds, plain, strict=True)]
        print(
            f"| {row['way']} | {row['weight']:g} | {statistics.median(bounds):.3f} "
            f"({min(bounds):.3f} - {max(bounds):.3f}) | {min(gains):+.3f} to {max(gains):+.3f} "
            f"| {statistics.median(run['bits'] for run in runs):.0f} "
            f"| {statistics.median(run['train_errors'] for run in runs):.0f} "
            f"| {100 * statistics.fmean(run['held_out_error'] for run in runs):.1f} % |"
        )


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show:
        torch.set_num_threads(1)
        rows = study(1 if asked.quick else asked.seeds)
        if asked.quick:
            return
        record = {"about": asdict(tl.Provenance.now(0)), "paid_bits": PAID, "rows": rows}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
