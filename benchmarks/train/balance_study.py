"""Does ``TempBalance`` help? A small study on digits, with the learning rate tuned for each arm.

    OMP_NUM_THREADS=1 python -m benchmarks.train.balance_study
    python -m benchmarks.train.balance_study --show

Networks with biases, ReLU, SGD with momentum 0.9 and a cosine to zero, batch 64, 30 epochs. Arms:
the plain schedule; TempBalance as published; with the exponents of FARMS, which do not depend on
the shape of a layer; and with low and high exchanged, which gives the layers the opposite rates
and shows whether the exponents matter or the spread of rates alone. All matrices may take
part; the last one has too few eigenvalues for HillMid and keeps the plain rate there.

1. Tuning: a fifth of the training digits is held out, each arm and learning rate is trained with
   three seeds, and the rate with the least mean cross-entropy there is taken.
2. Test: all training digits, ten other seeds, the same start and batches in every arm. Errors and
   cross-entropy are counted on the 360 test digits. Given is the mean of the paired differences
   from the plain schedule with its 95 % interval (t with 9 degrees of freedom).

Writes benchmarks/results/balance_study.json. It takes four minutes of CPU time.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.train.paired import paired
from tailor.numerics.powerlaw import FARMS
from tailor.records import Provenance
from tailor.stages.balance import TempBalance, layer_groups
from tailor.tasks import DIGITS, Data

RESULT = Path(__file__).parents[1] / "results" / "balance_study.json"
NETWORKS = {"two hidden layers": (64, 256, 256, 10), "five": (64, *[128] * 5, 10)}
ARMS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "TempBalance": {},
    "TempBalance, FARMS": {"spectrum": FARMS(window=64, windows=2)},
    "TempBalance, reversed": {"low": 1.5, "high": 0.5},
}
RATES = tuple(round(0.02 * 2 ** (i / 2), 4) for i in range(11))  # 0.02 to 0.64
TUNING, SEEDS = range(100, 103), range(10)
EPOCHS, BATCH = 30, 64


def network(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """A ReLU network with biases."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(
    widths: tuple[int, ...], arm: dict[str, Any] | None, lr: float, seed: int, data: Data
) -> nn.Sequential:
    """One run; start and batches depend on the seed alone."""
    model = network(widths, seed)
    optimizer = SGD(layer_groups(model, lr, layers="*"), momentum=0.9)
    schedulers = [CosineAnnealingLR(optimizer, T_max=EPOCHS)]
    if arm is not None:
        schedulers.append(TempBalance(optimizer, model, layers="*", **arm))
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data), generator=order).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[batch]), data.y[batch]).backward()
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return model


@torch.no_grad()
def score(model: nn.Module, data: Data) -> tuple[float, float]:
    """Errors in percent and mean cross-entropy; infinite where training diverged."""
    scores = model(data.x)
    if not bool(scores.isfinite().all()):
        return 100.0, float("inf")
    loss = float(nn.functional.cross_entropy(scores, data.y))
    return 100 * float((scores.argmax(1) != data.y).float().mean()), loss


def tuned(widths: tuple[int, ...], arm: dict[str, Any] | None) -> dict[str, float]:
    """Mean cross-entropy on the held-out fifth, by learning rate."""
    whole = DIGITS.train()
    cut = len(whole) * 4 // 5
    fit, held = Data(x=whole.x[:cut], y=whole.y[:cut]), Data(x=whole.x[cut:], y=whole.y[cut:])
    return {
        str(lr): statistics.mean(
            score(train(widths, arm, lr, seed, fit), held)[1] for seed in TUNING
        )
        for lr in RATES
    }


def study(widths: tuple[int, ...]) -> dict[str, object]:
    """Tuning and test of every arm on one network."""
    data, test = DIGITS.train(), DIGITS.test()
    assert test is not None
    arms: dict[str, dict[str, object]] = {}
    for name, arm in ARMS.items():
        found = tuned(widths, arm)
        lr = float(min(found, key=found.__getitem__))
        results = [score(train(widths, arm, lr, seed, data), test) for seed in SEEDS]
        arms[name] = {
            "settings": None if arm is None else {k: str(value) for k, value in arm.items()},
            "validation": {k: one if math.isfinite(one) else None for k, one in found.items()},
            "lr": lr,
            "errors": [one for one, _ in results],
            "losses": [one for _, one in results],
        }
    differences = {
        name: {
            what: interval(arms[name][what], arms["plain"][what]) for what in ("errors", "losses")
        }
        for name in arms
        if name != "plain"
    }
    return {"widths": widths, "arms": arms, "differences": differences}


def interval(one: list[float], other: list[float]) -> dict[str, float]:
    """Mean of the differences and its 95 % interval."""
    mean, half = paired(one, other)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def show(result: dict[str, object]) -> None:
    """The results as Markdown."""
    print("| network | arm | tuned lr | test errors | difference | cross-entropy | difference |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    for network_name, one in result["networks"].items():
        for name, arm in one["arms"].items():
            cells = [network_name, name, f"{arm['lr']:g}"]
            for what, digits in (("errors", 2), ("losses", 4)):
                cells.append(f"{statistics.mean(arm[what]):.{digits}f}")
                d = one["differences"].get(name, {}).get(what)
                cells.append(
                    f"{d['mean']:+.{digits}f} [{d['low']:+.{digits}f}, {d['high']:+.{digits}f}]"
                    if d
                    else ""
                )
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Run the study and write it down, or show what is recorded."""
    parser = argparse.ArgumentParser(description="does TempBalance help?")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    if not parser.parse_args().show:
        torch.set_num_threads(1)
        began = time.process_time()
        networks = {name: study(widths) for name, widths in NETWORKS.items()}
        about = Provenance.now(0)
        versions = {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")}
        seconds = round(time.process_time() - began)
        result = {"versions": versions, "cpu_seconds": seconds, "networks": networks}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    show(json.loads(RESULT.read_text()))


if __name__ == "__main__":
    main()
