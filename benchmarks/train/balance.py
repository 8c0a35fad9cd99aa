"""What an update of ``TempBalance`` costs beside a training step of ResNet-18.

    OMP_NUM_THREADS=1 python -m benchmarks.train.balance
    OMP_NUM_THREADS=1 python -m benchmarks.train.balance --device cuda
    python -m benchmarks.train.balance --show

CPU time of one thread (wall time on a GPU, after it has caught up), medians; updates and steps
take turns. The network is that for 32 x 32 pixels at batch 128 with SGD; 19 of its 21 matrices
are balanced. An update is due once an epoch, that is every 391 steps of CIFAR. Writes
benchmarks/results/balance.json, one record for each device.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.train.resnet import resnet18
from tailor.numerics.powerlaw import FARMS, HillMid, MatrixFit, TailFit, XminPeak
from tailor.records import Provenance
from tailor.stages.balance import TempBalance, layer_groups
from tailor.weights.views import Flattened, Taps, View

RESULT = Path(__file__).parents[1] / "results" / "balance.json"
BATCH, EPOCH = 128, 391  # ceil(50,000 / 128) steps
METHODS: tuple[tuple[TailFit | MatrixFit, View], ...] = (
    (HillMid(), Taps()),
    (HillMid(), Flattened()),
    (XminPeak(), Taps()),
    (FARMS(), Taps()),
    (FARMS(), Flattened()),
)


def measure(device: str, rounds: int) -> dict[str, object]:
    """All methods and the step, in turns."""
    torch.manual_seed(0)
    model = resnet18().to(device)
    optimizer = torch.optim.SGD(layer_groups(model, 0.01), momentum=0.9)
    scheduler = TempBalance(optimizer, model)
    step = _step(model, optimizer, device)
    step()  # the first one allocates
    seconds: dict[str, list[float]] = {"step": []}
    refused = {}
    for _ in range(rounds):
        seconds["step"].append(_time(step, device))
        for fit, view in METHODS:
            scheduler.spectrum, scheduler.view = fit, view
            name = f"{type(fit).__name__}, {type(view).__name__}"
            seconds.setdefault(name, []).append(_time(scheduler.update, device))
            refused[name] = len(scheduler.refusals)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    one = medians.pop("step")
    about = Provenance.now(0)
    return {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "machine": torch.cuda.get_device_name() if device == "cuda" else about.machine,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "matrices": len(scheduler.factors),
        "step_ms": 1000 * one,
        "updates": [
            {
                "method": name,
                "ms": 1000 * value,
                "steps": value / one,
                "share_of_epoch": value / (EPOCH * one),
                "refused": refused[name],
            }
            for name, value in medians.items()
        ],
    }


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> Callable[[], None]:
    x = torch.randn(BATCH, 3, 32, 32, device=device)
    y = torch.randint(10, (BATCH,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _time(call: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    call()
    return time.process_time() - began


def show(record: dict[str, object]) -> None:
    """A record as Markdown."""
    print(f"{record['machine']}, torch {record['versions']['torch']}", end=", ")
    print(f"one step {record['step_ms']:.0f} ms, {record['matrices']} matrices\n")
    print("| fit, view | ms per update | in steps | share of an epoch |\n| --- | --: | --: | --: |")
    for row in record["updates"]:
        cells = (row["method"], f"{row['ms']:.0f}", f"{row['steps']:.2f}")
        print("|", *" | ".join(cells).split("\n"), f"| {row['share_of_epoch']:.3%} |")


def main() -> None:
    """Measure on one device and write its record beside those of the others."""
    parser = argparse.ArgumentParser(description="cost of TempBalance")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    given = parser.parse_args()
    records = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if not given.show:
        if given.device == "cpu":
            torch.set_num_threads(1)
        records[given.device] = measure(given.device, given.rounds)
        RESULT.write_text(json.dumps(records, indent=1) + "\n")
    for record in records.values():
        show(record)


if __name__ == "__main__":
    main()
