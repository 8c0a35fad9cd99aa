"""Accuracy after the removal of nodes, with heavy-tailed priors as in Lee et al. (2022).

    OMP_NUM_THREADS=1 python -m benchmarks.train.lee                 # digits, five minutes
    OMP_NUM_THREADS=1 python -m benchmarks.train.lee --data FOLDER   # MNIST, an hour

FOLDER holds the four IDX files of MNIST (`train-images-idx3-ubyte.gz` and so on), from any mirror.
Networks with ReLU are trained to the maximum a posteriori (MAP) weights under five priors of the
node scales. The settings are those of the authors' program (github.com/FadhelA/mogp), smaller by
what the command line says: Adam with three learning rates, the prior weakened by five, all scales
started at 1/p, all weights and biases at a standard normal law.

Writes benchmarks/results/lee.json, one entry for each task.
"""

import argparse
import copy
import gzip
import json
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tailor.numerics.nodes import GBFRY, Equal, Horseshoe, NodeLaw
from tailor.records import Provenance
from tailor.stages.nodes import NodeScale, map_penalty, prune_nodes
from tailor.stages.train import batches
from tailor.tasks import DIGITS, Data

RESULT = Path(__file__).parents[1] / "results" / "lee.json"
LAWS: dict[str, NodeLaw] = {
    "normal": Equal(),
    "horseshoe": Horseshoe(),
    "GBFRY 0.8": GBFRY(alpha=0.8, tau=5.0),
    "GBFRY 0.5": GBFRY(alpha=0.5, tau=5.0),
    "GBFRY 0.2": GBFRY(alpha=0.2, tau=5.0),
}
LASSO, JACOBIAN = "group lasso 1e-3", "horseshoe, Jacobian"  # the controls
METHODS = (*LAWS, LASSO, JACOBIAN)
REMOVED = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
PHASES = ((0.2, 1e-2), (0.4, 5e-3), (1.0, 1e-3))  # until this share of the steps, learning rate
WEAKER = 5  # the log prior is divided by this many times the number of examples


def mnist(folder: Path) -> tuple[Data, Data]:
    """Training and test images, pixels from 0 to 1."""
    return _idx(folder, "train"), _idx(folder, "t10k")


def _idx(folder: Path, part: str) -> Data:
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28 * 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
    x = torch.from_numpy(pixels.astype(np.float32) / 255)
    return Data(x=x, y=torch.from_numpy(labels.astype(np.int64)))


def network(
    name: str, inputs: int, width: int, hidden: int, generator: torch.Generator
) -> nn.Sequential:
    """ReLU layers with scaled nodes; the inputs have the fixed scale 1 / their number."""
    widths = [inputs, *[width] * hidden, 10]
    layers: list[nn.Module] = []
    for at, (before, after) in enumerate(pairwise(widths)):
        law = Equal() if at == 0 else LAWS.get(name, Horseshoe())
        layers += [nn.ReLU()] if at else []
        layers += [NodeScale(before, law)] if name != LASSO else []
        layers += [nn.Linear(before, after)]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            spread = 1.0 if name != LASSO else (3 * layer.in_features) ** -0.5
            nn.init.normal_(layer.weight, std=spread, generator=generator)
            nn.init.normal_(layer.bias, std=spread, generator=generator)
    return nn.Sequential(*layers)


def term(name: str, model: nn.Sequential, examples: int) -> Tensor:
    """What is added to the loss."""
    if name == LASSO:
        inner = [layer for layer in model if isinstance(layer, nn.Linear)][1:]
        return 1e-3 * torch.stack([layer.weight.norm(dim=0).sum() for layer in inner]).sum()
    prior = map_penalty(model, WEAKER * examples)
    if name == JACOBIAN:
        free = [part for part in model if isinstance(part, NodeScale) and not part.prior.fixed]
        prior = prior - sum(part.log_scales.sum() for part in free) / (WEAKER * examples)
    return prior


def fit(name: str, model: nn.Sequential, data: Data, *, batch: int, epochs: int, seed: int) -> None:
    """Training with the three learning rates."""
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(chosen, lr=1e-2, fused=True)
    steps = epochs * -(-len(data) // batch)
    for step, (x, y) in enumerate(batches(data, size=batch, epochs=epochs, seed=seed)):
        optimizer.param_groups[0]["lr"] = next(
            rate for until, rate in PHASES if step < until * steps
        )
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss + term(name, model, len(data))).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of right answers, in percent."""
    right = (model(data.x).argmax(dim=1) == data.y).sum().item()
    return round(100 * right / len(data), 2)


def one(name: str, train: Data, test: Data, seed: int, asked: argparse.Namespace) -> dict:
    """One network: accuracy after each removal, and how far its scales are spread."""
    begin = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    model = network(name, train.x.shape[1], asked.width, asked.hidden, generator)
    fit(name, model, train, batch=asked.batch, epochs=asked.epochs, seed=seed)
    after = []
    for fraction in REMOVED:
        pruned = copy.deepcopy(model)
        kept = prune_nodes(pruned, fraction=fraction)
        after.append(
            {
                "removed": fraction,
                "kept_per_layer": [layer.kept for layer in kept],
                "accuracy": accuracy(pruned, test),
            }
        )
    return {
        "seed": seed,
        "after": after,
        "nodes_that_count": counting(model),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def counting(model: nn.Sequential) -> list[int]:
    """In each hidden layer, the nodes whose size is at least a thousandth of the largest."""
    found = []
    _, *inner = [at for at, layer in enumerate(model) if isinstance(layer, nn.Linear)]
    for at in inner:
        scale, matrix = model[at - 1], model[at].weight.detach()
        sizes = matrix.norm(dim=0)
        if isinstance(scale, NodeScale) and not scale.prior.fixed:
            sizes = scale.factors.detach()
        found.append(int((sizes >= 1e-3 * sizes.max()).sum()))
    return found


def summary(runs: list[dict]) -> list[dict]:
    """Mean and standard deviation over seeds after each removal."""
    found = []
    for at, fraction in enumerate(REMOVED):
        values = [run["after"][at]["accuracy"] for run in runs]
        spread = round(statistics.stdev(values), 2) if len(values) > 1 else None
        found.append({"removed": fraction, "mean": statistics.mean(values), "std": spread})
    return found


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with MNIST; without it, digits")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=2, help="hidden layers")
    parser.add_argument("--epochs", type=int, default=None, help="50 for MNIST, 300 for digits")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--examples", type=int, default=None, help="training examples, first ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--keep", action="store_true", help="keep other methods of the result")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    asked = parser.parse_args()
    asked.epochs = asked.epochs or (50 if asked.data else 300)
    return asked


def main() -> None:
    """Train, remove, and write the table."""
    asked = arguments()
    torch.set_num_threads(asked.threads)
    train, test = mnist(asked.data) if asked.data else (DIGITS.train(), DIGITS.test())
    if asked.examples:
        train = Data(x=train.x[: asked.examples], y=train.y[: asked.examples])
    methods = {}
    for name in asked.methods:
        runs = []
        for seed in range(asked.seeds):
            runs.append(one(name, train, test, seed, asked))
            shown = [point["accuracy"] for point in runs[-1]["after"]]
            print(name, seed, shown, runs[-1]["nodes_that_count"], runs[-1]["cpu_seconds"])
        methods[name] = {"summary": summary(runs), "runs": runs}
    about = Provenance.now()
    names = ("width", "hidden", "epochs", "batch", "seeds")
    entry = {
        "versions": {name: getattr(about, name) for name in ("tailor", "torch", "numpy", "python")},
        "machine": f"{about.machine}, {os.cpu_count()} processors, {asked.threads} used",
        "settings": {name: getattr(asked, name) for name in names} | {"examples": len(train)},
        "methods": methods,
    }
    if not asked.dry:
        told = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        task = "mnist" if asked.data else "digits"
        if asked.keep and task in told:
            entry["methods"] = told[task]["methods"] | methods
        told[task] = entry
        RESULT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
