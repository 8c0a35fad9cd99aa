"""The demo's network, many times smaller at equal accuracy.

``python -m benchmarks.compress.demo_network`` trains the network of the demo on digits with five
seeds, compresses it with and without retraining, and rewrites
``benchmarks/results/demo_network.json``. A point of accuracy is 3.6 of the 360 held-out examples.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn, optim

import tailor as tl
from tailor import records

RESULT = Path(__file__).parents[1] / "results" / "demo_network.json"
SEEDS = range(5)
EPOCHS, RETRAIN = 60, 10
RELATIVE = tl.GlobalMagnitude(relative=True)
RECIPES: dict[str, list[tl.Prune | tl.Quantize]] = {
    "4 bits": [tl.Quantize(tl.Shortest(bits=4))],
    "60 % zeros, error 0.003": [
        tl.Prune(0.6, allocation=RELATIVE, rounds=2),
        tl.Quantize(tl.UniformStep(tolerance=0.003)),
    ],
    "80 % zeros, 4 bits": [
        tl.Prune(0.8, allocation=RELATIVE, rounds=3),
        tl.Quantize(tl.Shortest(bits=4)),
    ],
    "90 % zeros, 3 bits": [
        tl.Prune(0.9, allocation=RELATIVE, rounds=5),
        tl.Quantize(tl.Shortest(bits=3)),
    ],
}


def measure(seed: int, epochs: int = EPOCHS, retrain: int = RETRAIN) -> list[dict[str, Any]]:
    """Train with one seed, follow every recipe, and report sizes and accuracies."""
    task = tl.DIGITS
    data, held_out = task.train(), task.test()
    assert held_out is not None
    prior = tl.StudentPrior(2 / len(data))

    def fit(network: nn.Module, rounds: int = retrain) -> None:
        adam = optim.Adam(network.parameters(), lr=5e-3)
        batches = tl.batches(data, size=128, epochs=rounds, seed=seed)
        loss = nn.functional.cross_entropy
        for _ in tl.train(network, batches, loss=loss, optimizer=adam, penalties=[prior]):
            pass

    def accuracy(network: nn.Module) -> float:
        return 1 - float(tl.zero_one(network, held_out).double().mean())

    torch.manual_seed(seed)
    model = task.build()
    fit(model, epochs)
    rows = []
    for name, recipe in RECIPES.items():
        for trained in (True, False):
            small = tl.compress(
                model,
                recipe,
                retrain=fit if trained else None,
                evaluate=accuracy,
                beside=False,
                about={},
            )
            report = small.report
            rows.append(
                {
                    "seed": seed,
                    "recipe": name,
                    "retrained": trained,
                    "dense_bytes": report.dense_bytes,
                    "file_bytes": report.file_bytes,
                    "limit_bytes": report.limit_bytes,
                    "times": report.times_smaller,
                    "accuracy": report.quality_after,
                    "dense_accuracy": report.quality_before,
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    """A table of means over the seeds."""
    lines = [
        "| recipe | retrained | file, bytes | times smaller | accuracy | dense | points |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in RECIPES:
        for trained in (True, False):
            mine = [r for r in rows if r["recipe"] == name and r["retrained"] == trained]
            points = mean(100 * (r["accuracy"] - r["dense_accuracy"]) for r in mine)
            lines.append(
                f"| {name} | {'yes' if trained else 'no'} "
                f"| {mean(r['file_bytes'] for r in mine):,.0f} "
                f"| {mean(r['times'] for r in mine):.1f} | {mean(r['accuracy'] for r in mine):.4f} "
                f"| {mean(r['dense_accuracy'] for r in mine):.4f} | {points:+.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write and print."""
    rows = [row for seed in SEEDS for row in measure(seed)]
    made = tl.Provenance.now(seeds=list(SEEDS), epochs=EPOCHS, retrain=RETRAIN)
    found = {"rows": rows, "provenance": records.to_json(made)}
    records.write(RESULT, (json.dumps(found, indent=1) + "\n").encode())
    print(show(rows))


if __name__ == "__main__":
    main()
