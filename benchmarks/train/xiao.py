"""Does penalising the spectrum beat weight decay? After Xiao et al. (2023), on digits.

    OMP_NUM_THREADS=1 python -m benchmarks.train.xiao
    OMP_NUM_THREADS=1 python -m benchmarks.train.xiao --quick
    python -m benchmarks.train.xiao --show

ReLU network 64-128-64-10 with biases; SGD with momentum 0.9, batches of 25, cosine schedule; the
penalty is a term of the loss on all three matrices. Two settings: 300 examples of which 40 % have
a random label (60 epochs), and 100 clean ones (100 epochs). For each method the weight is
chosen by the mean accuracy on 300 validation examples over 3 seeds; then 10 other seeds, each with
a split and initial weights of its own, equal for all methods, so that differences are paired.
Accuracy is on the remaining examples, at the end of training. Writes benchmarks/results/xiao.json.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import tailor as tl
from benchmarks.train.paired import paired

RESULT = Path(__file__).parents[1] / "results" / "xiao.json"
BATCH, RATE, VALIDATION = 25, 0.05, 300
TUNING, TESTING = range(100, 103), range(10)

Make = Callable[[float, int], tl.Penalty]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Data and length of training."""

    name: str
    examples: int
    random_labels: float
    epochs: int


SETTINGS = (
    Setting(name="300 examples, 40 % random labels", examples=300, random_labels=0.4, epochs=60),
    Setting(name="100 clean examples", examples=100, random_labels=0.0, epochs=100),
)


def decay(steps: int) -> tl.PowerDecay:
    """Ten periods; nothing below 0.15."""
    return tl.PowerDecay(period=max(1, steps // 10), cutoff=0.15)


METHODS: dict[str, tuple[Make | None, tuple[float, ...]]] = {
    "none": (None, (0.0,)),
    "weight decay": (lambda c, n: tl.L2(c), (1e-3, 3e-3, 1e-2, 3e-2, 0.1)),
    "L1": (lambda c, n: tl.L1(c), (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
    "spectral norm": (lambda c, n: tl.SpectralNorm(c), (1e-2, 3e-2, 0.1, 0.3, 1.0)),
    "log spectral norm, threshold": (
        lambda c, n: tl.LogSpectralNorm(c),
        (0.02, 0.05, 0.1, 0.2, 0.5),
    ),
    "weighted alpha, threshold": (lambda c, n: tl.WeightedAlpha(c), (0.01, 0.03, 0.1, 0.2, 0.5)),
    "weighted alpha, threshold and decay": (
        lambda c, n: tl.WeightedAlpha(c, schedule=decay(n)),
        (0.01, 0.03, 0.1, 0.3, 1.0),
    ),
    "alpha alone": (lambda c, n: tl.TailExponent(c), (1e-4, 1e-3, 3e-3, 1e-2, 0.1)),
    "stable rank": (lambda c, n: tl.StableRank(c), (3e-4, 1e-3, 1e-2, 3e-2, 0.1)),
    "stable rank, decay": (
        lambda c, n: tl.StableRank(c, schedule=decay(n)),
        (3e-4, 1e-3, 1e-2, 3e-2, 0.1),
    ),
    "stable rank, threshold": (
        lambda c, n: tl.StableRank(c, fraction_of_start=0.5),
        (3e-4, 1e-3, 1e-2, 3e-2, 0.1),
    ),
    "power-law prior": (lambda c, n: tl.PowerLawPrior(c), (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
    "Frechet prior": (lambda c, n: tl.FrechetPrior(c), (0.01, 0.03, 0.1, 0.2, 0.5)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one training gave."""

    train: float
    validation: float
    test: float
    stable_rank: float
    alpha: float
    largest: float


def run(setting: Setting, make: Make | None, weight: float, seed: int) -> Run:
    """Train once."""
    parts = _split(setting, seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    steps = setting.epochs * math.ceil(setting.examples / BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    term = tl.Regularizer(model, [make(weight, steps)]) if make else None
    for x, y in tl.batches(parts["train"], size=BATCH, epochs=setting.epochs, seed=seed):
        loss = nn.functional.cross_entropy(model(x), y)
        if term is not None:
            loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    hidden = model[2].weight.detach().double()
    values = torch.linalg.svdvals(hidden).square()
    logs = values.log()
    k = len(logs) // 2
    return Run(
        **{name: _accuracy(model, part) for name, part in parts.items()},
        stable_rank=float(values.sum() / values[0]),
        alpha=float(1 + k / (logs[:k] - logs[k]).sum()),
        largest=float(values[0]),
    )


def _split(setting: Setting, seed: int) -> dict[str, tl.Data]:
    whole = [tl.DIGITS.train(), tl.DIGITS.test()]
    x, y = torch.cat([part.x for part in whole]), torch.cat([part.y for part in whole])
    generator = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(y), generator=generator)
    cuts = (setting.examples, VALIDATION, len(y) - setting.examples - VALIDATION)
    train, validation, test = order.split(cuts)
    labels = y[train].clone()
    spoilt = torch.rand(len(labels), generator=generator) < setting.random_labels
    labels[spoilt] = torch.randint(10, (int(spoilt.sum()),), generator=generator)
    return {
        "train": tl.Data(x=x[train], y=labels),
        "validation": tl.Data(x=x[validation], y=y[validation]),
        "test": tl.Data(x=x[test], y=y[test]),
    }


@torch.no_grad()
def _accuracy(model: nn.Module, data: tl.Data) -> float:
    right: Tensor = model(data.x).argmax(1) == data.y
    return 100 * float(right.double().mean())


def study(setting: Setting, tuning: range, testing: range) -> list[dict[str, object]]:
    """Tune and test every method."""
    rows = []
    for name, (make, grid) in METHODS.items():
        tuned = {
            weight: statistics.fmean(run(setting, make, weight, seed).validation for seed in tuning)
            for weight in grid
        }
        weight = max(tuned, key=lambda one: tuned[one])
        runs = [asdict(run(setting, make, weight, seed)) for seed in testing]
        rows.append({"method": name, "weight": weight, "validation": tuned, "runs": runs})
        mean = statistics.fmean(one["test"] for one in runs)
        print(f"{setting.name}: {name}, weight {weight:g}, test {mean:.2f}", flush=True)
    return rows


def _against(rows: list[dict[str, object]], name: str, other: str) -> tuple[float, float]:
    runs = {row["method"]: [one["test"] for one in row["runs"]] for row in rows}
    return paired(runs[name], runs[other])


def show() -> None:
    """The recorded tables."""
    for setting, rows in json.loads(RESULT.read_text())["settings"].items():
        print(
            f"\n{setting}\n\n| method | weight | train | test | vs weight decay | "
            "stable rank, alpha, largest eigenvalue of the middle layer |\n" + "| --- " * 6 + "|"
        )
        for row in rows:
            mean = {k: statistics.fmean(one[k] for one in row["runs"]) for k in row["runs"][0]}
            spread = statistics.stdev(one["test"] for one in row["runs"])
            middle, half = _against(rows, row["method"], "weight decay")
            print(
                f"| {row['method']} | {row['weight']:g} | {mean['train']:.1f} "
                f"| {mean['test']:.2f} ± {spread:.2f} | {middle:+.2f} ± {half:.2f} "
                f"| {mean['stable_rank']:.1f}, {mean['alpha']:.2f}, {mean['largest']:.2f} |"
            )
        for other in ("log spectral norm, threshold", "spectral norm"):
            middle, half = _against(rows, "weighted alpha, threshold", other)
            print(f"\nweighted alpha, threshold - {other}: {middle:+.2f} ± {half:.2f}")


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    chosen = parser.parse_args()
    if not chosen.show:
        torch.set_num_threads(1)
        tuning, testing = (TUNING, TESTING) if not chosen.quick else (range(100, 101), range(2))
        settings = {one.name: study(one, tuning, testing) for one in SETTINGS}
        if chosen.quick:
            return
        record = {"about": asdict(tl.Provenance.now(0)), "settings": settings}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
