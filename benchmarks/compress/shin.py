"""A few large entries and noise: the last layers of trained networks, after Shin (2021).

    python -m benchmarks.compress.shin --mlps FOLDER --resnets FOLDER --data FOLDER
    python -m benchmarks.compress.shin --show

The networks are others' and public: the MNIST perceptrons of auto_LiRPA/alpha-beta-CROWN
(`mnist_6_100_nat.pth` and so on) and the CIFAR-10 ResNets of akamaster/pytorch_resnet_cifar10
(`resnet20-12fca82f.th` and so on). MNIST (four IDX files) is there to test the first; of the
second, relative errors are told and no accuracy, since no CIFAR-10 is used here. Each rule splits
the matrix of the last layer, or of every layer; the small entries become zero, or normal noise
with their own mean and deviation, or with those of the whole matrix, as in the paper's program.
Writes benchmarks/results/shin.json.
"""

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tailor as tl
from benchmarks.compress.barsbey import mean_of, table
from benchmarks.train.lee import mnist
from tailor.numerics.powerlaw import PowerLawFit
from tailor.stages.allocate import Allocation, ByDeviation, ByError, ByTailIndex
from tailor.stages.split import Refill, output_error, redraw_flip_bound, refill, split

RESULT = Path(__file__).parents[1] / "results" / "shin.json"
FILLS: tuple[Refill, ...] = ("zero", "redraw_matched", "redraw_global")
RULES: dict[str, Allocation | float] = {
    "one deviation": ByDeviation(),
    "error 0.1": ByError(error=0.1),
    "error 0.3": ByError(error=0.3),
    "5 % of the entries": 0.05,
}
SEEDS, MANY_SEEDS = 10, 100  # of the noise, in every layer and in the last one alone
SCOPES = ("last", "every")


def matrices(state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of a perceptron, in order."""
    places = sorted(int(name.split(".")[0]) for name in state if name.endswith(".weight"))
    return [(state[f"{at}.weight"], state[f"{at}.bias"]) for at in places]


def scores(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """What the network says; ReLU between the layers."""
    for W, b in layers[:-1]:
        x = (x @ W.T + b).relu()
    W, b = layers[-1]
    return x @ W.T + b


def before_last(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """What the last layer sees."""
    for W, b in layers[:-1]:
        x = (x @ W.T + b).relu()
    return x


def right(said: Tensor, test: tl.Data) -> float:
    """Share of right answers, in percent."""
    return 100 * float((said.argmax(dim=1) == test.y).double().mean())


def perceptron(layers: list[tuple[Tensor, Tensor]], test: tl.Data) -> dict:
    """One network: the last layer by itself, and accuracy by scope, rule and fill."""
    whole = scores(layers, test.x)
    seen = before_last(layers, test.x)
    found = {"accuracy": right(whole, test), "last": matrix(layers[-1][0]), "rules": {}}
    for name, rule in RULES.items():
        accuracy: dict[str, dict[str, list[float]]] = {scope: {} for scope in SCOPES}
        for fill in FILLS:
            for scope in SCOPES:
                accuracy[scope][fill] = [
                    right(said, test) for said in changed(layers, test.x, seen, scope, rule, fill)
                ]
        found["rules"][name] = {
            "accuracy": accuracy,
            "kept": {"last": split(layers[-1][0], rule).share, "every": kept(layers, rule)},
            "last": outputs(layers[-1], rule, seen, whole),
        }
    return found


def changed(
    layers: list[tuple[Tensor, Tensor]],
    x: Tensor,
    seen: Tensor,
    scope: str,
    rule: Allocation | float,
    fill: Refill,
) -> list[Tensor]:
    """What the network says after the split, once for each seed of the noise."""
    if scope == "last":
        return [seen @ V.T + layers[-1][1] for V in redrawn(layers[-1][0], rule, fill)]
    found = []
    for seed in range(1 if fill == "zero" else SEEDS):
        filled = [
            (refill(split(W, rule), fill, seed=100 * seed + at), b)
            for at, (W, b) in enumerate(layers)
        ]
        found.append(scores(filled, x))
    return found


def redrawn(W: Tensor, rule: Allocation | float, fill: Refill) -> list[Tensor]:
    """The matrix with its small entries filled, once for each seed of the noise."""
    parts = split(W, rule)
    return [refill(parts, fill, seed=seed) for seed in range(1 if fill == "zero" else MANY_SEEDS)]


def kept(layers: list[tuple[Tensor, Tensor]], rule: Allocation | float) -> float:
    """Share of all weights that is kept, biases aside."""
    parts = [split(W, rule) for W, _ in layers]
    return sum(part.kept for part in parts) / sum(part.keep.numel() for part in parts)


def outputs(
    layer: tuple[Tensor, Tensor], rule: Allocation | float, seen: Tensor, whole: Tensor
) -> dict[str, dict[str, float]]:
    """Of the last layer: median error of its outputs, changed answers, and the bound on these."""
    W, b = layer
    parts = split(W, rule)
    answers = whole.argmax(dim=1)
    found = {}
    for fill in FILLS:
        drawn = redrawn(W, rule, fill)
        flips = [float(((seen @ V.T + b).argmax(dim=1) != answers).double().mean()) for V in drawn]
        bound = redraw_flip_bound(parts, seen, answers, bias=b, mode=fill)
        found[fill] = {
            "output_error": statistics.fmean(
                float(output_error(W, V, seen).median()) for V in drawn
            ),
            "flips": statistics.fmean(flips),
            "bound": float(bound.mean()),
        }
    return found


def matrix(W: Tensor) -> dict:
    """Of one matrix: shape, tails, and relative squared errors by rule and fill."""
    flat = W.double().flatten().numpy()
    fit = tl.Clauset().fit(np.abs(flat))
    stable = tl.Koutrouvelis().fit(flat)
    return {
        "shape": list(W.shape),
        "kurtosis": float(((flat - flat.mean()) ** 4).mean() / flat.var() ** 2),
        "clauset": [fit.alpha, fit.low, fit.high] if isinstance(fit, PowerLawFit) else fit.reason,
        "stable": [stable.index, stable.low, stable.high],
        "by_tail_index": refused(W),
        "rules": {name: errors(W, rule) for name, rule in RULES.items()},
    }


def refused(W: Tensor) -> str:
    """What the rule by tail index says."""
    try:
        return f"{split(W, ByTailIndex(error=0.1)).share:.3f} kept"
    except tl.UsageError as reason:
        return str(reason).partition(": ")[2].partition(";")[0]


def errors(W: Tensor, rule: Allocation | float) -> dict[str, float]:
    """Share kept, and relative squared errors, the mean over the seeds of the noise."""
    parts = split(W, rule)
    whole = float(W.double().square().sum())
    found = {"kept": parts.share}
    for fill in FILLS:
        found[fill] = statistics.fmean(
            float((V - W).double().square().sum()) / whole for V in redrawn(W, rule, fill)
        )
    return found


def normal(shape: list[int]) -> Tensor:
    """A matrix without any tail, to compare with."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# Tables


def show() -> None:
    """What is recorded, as tables."""
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    lasts = {name: one["last"] for name, one in record["perceptrons"].items()} | record["others"]
    show_matrices(lasts)
    for scope in SCOPES:
        show_accuracy(record["perceptrons"], scope)
    show_flips(record["perceptrons"])


def show_matrices(found: dict[str, dict]) -> None:
    """The last layers as matrices, split at one deviation."""
    table(
        "last layer",
        ["shape", "kurtosis", "power law", "stable index", "kept", "error²: zero", "own", "global"],
    )
    for name, one in found.items():
        rule = one["rules"]["one deviation"]
        cells = ["x".join(map(str, one["shape"])), f"{one['kurtosis']:.1f}"]
        cells += [interval(one["clauset"], 1), interval(one["stable"], 2), f"{rule['kept']:.1%}"]
        cells += [f"{rule[fill]:.2f}" for fill in FILLS]
        print(f"| {name} | {' | '.join(cells)} |")


def interval(found: list[float] | str, digits: int) -> str:
    """A number with its interval, or why there is none."""
    if isinstance(found, str):
        return found
    value, low, high = (f"{one:.{digits}f}" for one in found)
    return f"{value} [{low}, {high}]"


def show_accuracy(found: dict[str, dict], scope: str) -> None:
    """Accuracy by rule and fill."""
    table(
        f"{scope} layer, rule",
        ["accuracy before", "kept", "zero", "noise, own deviation", "noise, global deviation"],
    )
    for name, one in found.items():
        for rule, row in one["rules"].items():
            cells = [f"{one['accuracy']:.2f}", f"{row['kept'][scope]:.1%}"]
            cells += [mean_of(row["accuracy"][scope][fill], 2) for fill in FILLS]
            print(f"| {name}, {rule} | {' | '.join(cells)} |")


def show_flips(found: dict[str, dict]) -> None:
    """Changed answers and the bound, with one deviation in the last layer."""
    columns = [
        f"{fill}: {what}"
        for fill in ("zero", "own", "global")
        for what in ("output error", "changed", "bound")
    ]
    table("one deviation, last layer", columns)
    for name, one in found.items():
        row = one["rules"]["one deviation"]["last"]
        cells = []
        for fill in FILLS:
            cells += [f"{row[fill]['output_error']:.2f}"]
            cells += [f"{row[fill]['flips']:.2%}", f"{row[fill]['bound']:.2%}"]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mlps", type=Path, help="folder of the perceptrons")
    parser.add_argument("--resnets", type=Path, help="folder of the ResNets")
    parser.add_argument("--data", type=Path, help="folder of MNIST")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show:
        if not (asked.mlps and asked.resnets and asked.data):
            parser.error("give --mlps, --resnets and --data, or --show")
        torch.set_num_threads(1)
        record = {"about": asdict(tl.Provenance.now(0)), **measured(asked)}
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show()


def measured(asked: argparse.Namespace) -> dict:
    """All networks."""
    _, test = mnist(asked.data)
    perceptrons = {}
    for file in sorted(asked.mlps.glob("*.pth")):
        perceptrons[file.stem] = perceptron(matrices(loaded(file)), test)
        print(file.stem, perceptrons[file.stem]["accuracy"], flush=True)
    others = {}
    for file in sorted(asked.resnets.glob("*.th")):
        others[file.stem.split("-")[0]] = matrix(loaded(file)["linear.weight"])
    for shape in ([10, 64], [10, 100]):
        others[f"normal {shape[0]}x{shape[1]}"] = matrix(normal(shape))
    return {"perceptrons": perceptrons, "others": others}


def loaded(file: Path) -> dict[str, Tensor]:
    """A state dict, as the tensors that it is."""
    weights = tl.read(file)
    return {one.name: one.load().float() for one in (*weights.layers, *weights.others)}


if __name__ == "__main__":
    main()
