"""Does heavy-tailed noise make networks compressible? After Wan et al. (2024).

    OMP_NUM_THREADS=1 python -m benchmarks.train.wan                 # digits, some minutes
    OMP_NUM_THREADS=1 python -m benchmarks.train.wan --data FOLDER   # MNIST
    python -m benchmarks.train.wan --show

FOLDER holds the four IDX files of MNIST, from any mirror. ReLU networks with one wide hidden
layer and no biases, plain SGD in batches of 100, stopped at 95 % training accuracy (tested every
100 steps on 10,000 examples) or at a limit of steps; the noise acts on the hidden layer. Then the
neurons of least norm are set to zero without retraining: at fixed shares, and as many as hold a
tenth of the layer's squared norm ("removable"). The same seeds for all noises, so that
differences are paired. Writes benchmarks/results/wan.json, one entry for each task and width.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

import tailor as tl
from benchmarks.train.lee import mnist
from benchmarks.train.paired import paired

RESULT = Path(__file__).parents[1] / "results" / "wan.json"
BATCH, LOOK, ENOUGH = 100, 100, 0.95
REMOVED = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
NOISES: dict[str, tl.StableNoise | None] = {"none": None} | {
    f"{kind}, alpha {alpha:g}, scale {scale:g}": tl.StableNoise(alpha=alpha, scale=scale, kind=kind)
    for kind, alpha, scale in (
        ("rotation", 2.0, 0.003),
        ("rotation", 1.9, 0.003),
        ("rotation", 1.75, 0.001),
        ("rotation", 1.75, 0.003),
        ("shared", 2.0, 0.001),
        ("shared", 1.75, 0.0003),
        ("shared", 1.75, 0.001),
        ("iid", 1.75, 0.001),
    )
}


def one(
    noise: tl.StableNoise | None, train: tl.Data, test: tl.Data, seed: int, width: int, limit: int
) -> dict[str, object]:
    """Train once, then prune."""
    begun = time.process_time()
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(train.x.shape[1], width, bias=False),
        nn.ReLU(),
        nn.Linear(width, int(train.y.max()) + 1, bias=False),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    injector = noise.attach(model, optimizer) if noise else None
    epochs = 1 + limit * BATCH // len(train)
    steps = 0
    for x, y in tl.batches(train, size=BATCH, epochs=epochs, seed=seed):
        if injector:  # the iterate that is kept has no noise on top, as in the authors' program
            injector.enabled = bool((steps + 1) % LOOK)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps >= limit or (steps % LOOK == 0 and accuracy(model, train, 10_000) >= ENOUGH):
            break
    W = model[0].weight.detach()
    norms = W.norm(dim=1)
    order = norms.argsort()
    shares = norms[order].square().cumsum(0) / norms.square().sum()
    removable = int((shares <= 0.1).sum())
    tail = norms.sort(descending=True).values[: max(10, width // 20) + 1].double().log()
    return {
        "seed": seed,
        "steps": steps,
        "train": accuracy(model, train, 10_000),
        "removable": removable / width,
        "at_removable": pruned(model, test, order[:removable]),
        "hill_of_norms": float(1 / (tail[:-1] - tail[-1]).mean()),
        "after": {
            f"{share:g}": pruned(model, test, order[: int(share * width)]) for share in REMOVED
        },
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


@torch.no_grad()
def accuracy(model: nn.Module, data: tl.Data, most: int | None = None) -> float:
    """Share of right answers on the first examples."""
    return float((model(data.x[:most]).argmax(1) == data.y[:most]).double().mean())


@torch.no_grad()
def pruned(model: nn.Sequential, data: tl.Data, gone: Tensor) -> float:
    """Accuracy without some neurons."""
    hidden = model[1](model[0](data.x))
    hidden[:, gone] = 0
    return float((model[2](hidden).argmax(1) == data.y).double().mean())


def show() -> None:
    """The recorded tables: means, and paired differences from no noise."""
    for task, found in json.loads(RESULT.read_text()).items():
        rows = found["rows"]
        print(f"\n{task}: {len(rows['none'])} seeds\n")
        shares = [f"{share:g}" for share in REMOVED]
        head = ["noise", "steps", "removable", *[f"{float(s):.0%}" for s in shares]]
        print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
        for name, runs in rows.items():
            cells = [f"{statistics.fmean(r['steps'] for r in runs):.0f}"]
            cells.append(f"{statistics.fmean(r['removable'] for r in runs):.1%}")
            for share in shares:
                mean = 100 * statistics.fmean(r["after"][share] for r in runs)
                cells.append(f"{mean:.1f}{_against(runs, rows['none'], share)}")
            print(f"| {name} | {' | '.join(cells)} |")


def _against(runs: list[dict], plain: list[dict], share: str) -> str:
    """Paired difference in points and half of its 95 % t interval."""
    if runs is plain or len(runs) < 2:
        return ""
    after = [[100 * run["after"][share] for run in each] for each in (runs, plain)]
    gain, half = paired(*after)
    return f" ({gain:+.1f} ± {half:.1f})"


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST; digits without it")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=3000, help="most steps")
    parser.add_argument("--noises", nargs="*", default=list(NOISES), choices=list(NOISES))
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show:
        torch.set_num_threads(1)
        train, test = mnist(asked.data) if asked.data else (tl.DIGITS.train(), tl.DIGITS.test())
        mean, spread = train.x.mean(), train.x.std()
        train, test = (tl.Data(x=(part.x - mean) / spread, y=part.y) for part in (train, test))
        rows: dict[str, list[dict]] = {name: [] for name in asked.noises}
        for seed in range(asked.seeds):
            for name in asked.noises:
                noise = NOISES[name]
                rows[name].append(one(noise, train, test, seed, asked.width, asked.limit))
                print(
                    seed, name, {k: v for k, v in rows[name][-1].items() if k != "seed"}, flush=True
                )
        record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        record[f"{'MNIST' if asked.data else 'digits'}, width {asked.width}"] = {
            "about": asdict(tl.Provenance.now(0)),
            "width": asked.width,
            "limit": asked.limit,
            "rows": rows,
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
