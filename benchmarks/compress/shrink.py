"""How much faster a network is without nine tenths of its units, on one thread of a CPU.

    OMP_NUM_THREADS=1 python -m benchmarks.compress.shrink
    python -m benchmarks.compress.shrink --show

One network in four ways: with all units (dense), with zeros in place of nine tenths of the hidden
ones (masked), without these (shrunk), and with two thin matrices for each one at a tenth of its
parameters (low rank). They take turns; times are medians of CPU time. The weights are random, as
speed does not depend on them. Masked and shrunk give the same outputs, which is recorded, too.
A convolution between two others loses inputs and outputs, so that a hundredth of it is left.
Writes benchmarks/results/shrink.json.
"""

import argparse
import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailor.records import Provenance
from tailor.stages.factorize import factorize
from tailor.stages.shrink import Removed, save_shrunk, shrink

RESULT = Path(__file__).parents[1] / "results" / "shrink.json"
RATIO = 0.9
SECONDS = 0.02  # each timing repeats the call until it takes so long


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv(*channels: int) -> nn.Sequential:
    """Convolutions 3 x 3 with BatchNorm and ReLU, pooled twice, then a linear layer."""
    layers: list[nn.Module] = []
    for at, (a, b) in enumerate(itertools.pairwise(channels)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at % 2 else []
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10)
    )


# Name: network, shape of one input, batch sizes.
CASES: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...], tuple[int, ...]]] = {
    "MLP 784-1024-1024-10": (lambda: mlp(784, 1024, 1024, 10), (784,), (1, 64)),
    "MLP 1024-4096-1024": (lambda: mlp(1024, 4096, 1024), (1024,), (1, 64)),
    "conv 3-64-64-128-128, 32 x 32": (lambda: conv(3, 64, 64, 128, 128), (3, 32, 32), (1, 8)),
}


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    """One network at all its batch sizes."""
    build, shape, batches = CASES[name]
    torch.manual_seed(0)
    dense = build().eval()
    example = torch.randn(2, *shape)
    masked = _masked(dense, shrink(dense, RATIO, example).removed)
    found = shrink(masked, 0.0, example)
    models = {
        "dense": dense,
        "masked": masked,
        "shrunk": found.model,
        "low rank": factorize(dense, params=1 - RATIO).model.eval(),
    }
    sizes = {one: _bytes(model) for one, model in models.items() if one != "low rank"}
    return [
        {
            "network": name,
            "batch": batch,
            "widths": [[one.before, one.after] for one in found.removed],
            "parameters": {one: _parameters(model) for one, model in models.items()},
            "bytes": sizes,
            "difference": _difference(masked, found.model, torch.randn(batch, *shape)),
            "ms": _times(models, torch.randn(batch, *shape), repeats),
        }
        for batch in batches
    ]


def _masked(dense: nn.Sequential, removed: tuple[Removed, ...]) -> nn.Sequential:
    """The network with zeros in place of the units that are to go."""
    masked = copy.deepcopy(dense)
    for one in removed:
        gone = torch.ones(one.before, dtype=torch.bool)
        gone[list(one.kept)] = False
        at = int(one.name)
        for part in (masked[at], masked[at + 1]):  # what follows may be a BatchNorm
            for tensor in part.parameters():
                tensor.detach()[gone] = 0
    return masked


def _times(models: dict[str, nn.Module], x: Tensor, repeats: int) -> dict[str, float]:
    """Milliseconds of a call, all models taking turns."""
    calls = {one: _calls(model, x) for one, model in models.items()}
    seconds: dict[str, list[float]] = {one: [] for one in models}
    for _ in range(repeats):
        for one, model in models.items():
            seconds[one].append(_seconds(model, x, calls[one]) / calls[one])
    return {one: 1000 * statistics.median(values) for one, values in seconds.items()}


def _calls(model: nn.Module, x: Tensor) -> int:
    """How many calls take long enough to be timed; the first ones warm up."""
    calls = 1
    while _seconds(model, x, calls) < SECONDS:
        calls *= 2
    return calls


def _seconds(model: nn.Module, x: Tensor, calls: int) -> float:
    with torch.inference_mode():
        began = time.process_time()
        for _ in range(calls):
            model(x)
        return time.process_time() - began


def _difference(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((one(x) - other(x)).norm() / one(x).norm())


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory(prefix="tailor-bench-") as folder:
        return save_shrunk(model, Path(folder) / "model.safetensors").stat().st_size


def show() -> None:
    """The record as Markdown."""
    record = json.loads(RESULT.read_text())
    print(f"{record['machine']}, torch {record['versions']['torch']}, {record['threads']} thread\n")
    print("| network | batch | dense ms | masked | shrunk | low rank | parameters left | file |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for row in record["rows"]:
        ms = row["ms"]
        faster = [f"{ms['dense'] / ms[one]:.1f}x" for one in ("masked", "shrunk", "low rank")]
        smaller = f"{row['bytes']['dense'] / row['bytes']['shrunk']:.0f}x smaller"
        left = f"{row['parameters']['shrunk'] / row['parameters']['dense']:.1%}"
        cells = (row["network"], str(row["batch"]), f"{ms['dense']:.2f}", *faster, left, smaller)
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Measure all networks, or show what was measured."""
    parser = argparse.ArgumentParser(description="speed of networks without most of their units")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    given = parser.parse_args()
    if not given.show:
        torch.set_num_threads(1)
        about = Provenance.now(0)
        versions = {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")}
        record = {
            "versions": versions,
            "machine": about.machine,
            "threads": torch.get_num_threads(),
            "seed": 0,
            "ratio": RATIO,
            "repeats": given.repeats,
            "rows": [row for name in CASES for row in measure(name, given.repeats)],
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
