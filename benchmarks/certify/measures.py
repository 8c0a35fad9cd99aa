"""What explains generalisation and bounds nothing: cushions, margins, effective parameters.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.measures --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.measures --data FOLDER --quick
    python -m benchmarks.certify.measures --show

Networks without biases on scikit-learn's digits and on MNIST, trained by SGD (momentum 0.9, cosine
schedule) with the true labels, and with labels drawn at random; layer cushions also before
training, where there is no margin. FOLDER/mnist holds the images, and FOLDER/abcrown networks of
the verifier alpha-beta-CROWN (mnist_6_100_nat.pth, mnist_9_100_nat.pth), which have biases. Nothing
here is a certificate. Writes benchmarks/results/certify_measures.json.
"""

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import tailor as tl
from benchmarks.certify.samples import SAMPLES
from tailor.errors import UsageError
from tailor.records import to_json
from tailor.stages.measures import (
    GaussianNoise,
    MatrixProjectNoise,
    arora,
    margins,
    spectral_perturbation,
)
from tailor.stages.measures.chain import chain_of
from tailor.stages.measures.cushions import measure
from tailor.stages.measures.jacobian import Counting
from tailor.stages.measures.project import matrix_project
from tailor.tasks import Data

RESULT = Path(__file__).parents[1] / "results" / "certify_measures.json"
SEED, MOMENTUM = 0, 0.9
RATES = {"true": 0.05, "random": 0.02}  # at 0.05 random labels are not learnt to the end
QUANTILES = (0.05, 0.25)
DIGITS = ((64, 128, 10), (64, 64, 64, 10))
MNIST = ((784, 128, 10), (784, 64, 64, 10))
FEW = 500  # images for the deep networks
FOREIGN = {"mnist_6_100_nat": 6, "mnist_9_100_nat": 9}
SAMPLE = 2000  # images of MNIST that are trained on and measured: memorising 60,000 takes hours
KEPT = (0.05, 0.25, 1.0, 4.0, 16.0)  # numbers that are kept for each weight
CHANGES = (1e-3, 1e-2, 3e-2, 0.1)  # relative size of a change of every weight


# Networks


def network(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """A ReLU network without biases."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(model: nn.Module, data: Data, rate: float, epochs: int, batch: int) -> None:
    """Train it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    steps = epochs * -(-len(data) // batch)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tl.train(
        model,
        tl.batches(data, size=batch, epochs=epochs, seed=SEED),
        loss=nn.functional.cross_entropy,
        optimizer=optimizer,
        schedulers=[cosine],
        seed=SEED,
    ):
        pass


def shuffled(data: Data, seed: int) -> Data:
    """The same inputs with labels drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    classes = int(data.y.max()) + 1
    return Data(x=data.x, y=torch.randint(0, classes, (len(data),), generator=generator))


def foreign(path: Path, depth: int) -> nn.Sequential:
    """A network of the verifier: hidden layers of equal width, with biases."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    (only,) = stored["state_dict"]  # a list of one
    state = {name: value.float() for name, value in only.items()}
    widths = [
        state["1.weight"].shape[1],
        *(state[f"{2 * i + 1}.weight"].shape[0] for i in range(depth)),
    ]
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    model.load_state_dict(state)
    return model


# Measurements


def row(
    name: str, labels: str, model: nn.Module, data: Data, test: Data | None
) -> dict[str, object]:
    """Everything about one network."""
    found = {}
    for level in QUANTILES:
        try:
            found[f"{level:g}"] = to_json(arora(model, data, gamma_quantile=level, seed=SEED))
        except UsageError as refusal:
            found[f"{level:g}"] = {"refused": str(refusal)}
    projected = None
    if sum(p.numel() for p in model.parameters()) < 20_000:
        noise = MatrixProjectNoise(per_weight=4.0)
        one = arora(model, data, gamma_quantile=0.9, noise=noise, draws=3, seed=SEED)
        projected = to_json(one.smoothness)
    return {
        "network": name,
        "labels": labels,
        "n": len(data),
        "errors": share(model, data),
        "held_out": None if test is None else share(model, test),
        "margins": to_json(margins(model, data)),
        "arora": found,
        "smoothness_projected": projected,
    }


def share(model: nn.Module, data: Data) -> float:
    """Its error."""
    return float(tl.zero_one(model, data).double().mean())


def untrained(widths: tuple[int, ...], data: Data) -> dict[str, object]:
    """Layer cushions before training, where no margin is positive."""
    chain = chain_of(network(widths, SEED), who="the benchmark")
    counting = Counting(exact_rows=1024, probes=64)
    found = measure(chain, data, counting, torch.Generator().manual_seed(SEED))
    return {"network": said(widths), "cushions": [float(one.min()) for one in found.layer]}


def projections(model: nn.Sequential, data: Data) -> list[dict[str, float]]:
    """Errors when each matrix is rebuilt from random projections, or its largest entries kept."""
    rows = []
    for kept in KEPT:
        one: dict[str, float] = {"per_weight": kept}
        for name in ("projected", "largest"):
            copy = network((model[0].in_features, *outs(model)), SEED)
            for i, (new, old) in enumerate(zip(copy, model, strict=True)):
                if isinstance(new, nn.Linear):
                    W, count = old.weight.detach(), round(kept * old.weight.numel())
                    new.weight.data = (
                        matrix_project(W, count, i).float()
                        if name == "projected"
                        else top(W, count)
                    )
            one[name] = share(copy, data)
        rows.append(one)
    return rows


def top(W: torch.Tensor, count: int) -> torch.Tensor:
    """Its largest entries, and zeros."""
    if count >= W.numel():
        return W.clone()
    return W * (W.abs() >= W.abs().flatten().topk(count).values[-1])


def outs(model: nn.Sequential) -> list[int]:
    """Widths of the layers."""
    return [layer.out_features for layer in model if isinstance(layer, nn.Linear)]


def perturbations(model: nn.Sequential, data: Data) -> list[dict[str, object]]:
    """The worst case after Lemma 9, against what is measured."""
    rows = []
    for scale in CHANGES:
        other = network((model[0].in_features, *outs(model)), SEED)
        generator = torch.Generator().manual_seed(SEED)
        for new, old in zip(other, model, strict=True):
            if isinstance(new, nn.Linear):
                noise = torch.randn(old.weight.shape, generator=generator)
                W = old.weight.detach()
                new.weight.data = W + scale * W.std() * noise
        found = spectral_perturbation(model, other, data)
        rows.append(
            {
                "scale": scale,
                "lemma": found.lemma,
                "propagated": found.propagated,
                "measured": found.measured,
                "unchanged": found.unchanged,
            }
        )
    return rows


def said(widths: tuple[int, ...]) -> str:
    """Widths as people write them."""
    return "-".join(map(str, widths))


# The study


def study(folder: Path, quick: bool) -> dict[str, object]:
    """All networks."""
    rows, before, extra = [], [], {}
    for task, shapes, epochs, wild, batch in (
        ("digits", DIGITS, 100, 200, 16),
        ("mnist", MNIST, 40, 100, 32),
    ):
        train, test = SAMPLES[task](folder)
        train = Data(x=train.x.flatten(1), y=train.y).at(torch.arange(min(len(train), SAMPLE)))
        test = Data(x=test.x.flatten(1), y=test.y)
        for widths in shapes[: 1 if quick else None]:
            for labels, data, length in (
                ("true", train, epochs),
                ("random", shuffled(train, 1), wild),
            ):
                model = network(widths, SEED)
                fit(model, data, RATES[labels], 5 if quick else length, batch)
                held_out = test if labels == "true" else None
                rows.append(row(f"{task} {said(widths)}", labels, model, data, held_out))
                print(line(rows[-1]), flush=True)
                if task == "digits" and labels == "true":
                    extra[said(widths)] = {
                        "projections": projections(model, data),
                        "perturbations": perturbations(model, data),
                    }
            before.append(untrained(widths, train))
    for name, depth in [] if quick else FOREIGN.items():
        train, test = SAMPLES["mnist"](folder)
        some = train.at(torch.arange(FEW))
        model = foreign(folder / "abcrown" / f"{name}.pth", depth)
        rows.append(row(name, "true", model, some, test))
        print(line(rows[-1]), flush=True)
    return {"rows": rows, "untrained": before, "digits": extra}


def line(one: dict) -> str:
    """A row of the table."""
    cells = [one["network"], one["labels"], f"{100 * one['errors']:.1f}"]
    cells.append("" if one["held_out"] is None else f"{100 * one['held_out']:.1f}")
    found = one["arora"]["0.05"]
    if "refused" in found:
        return "| " + " | ".join([*cells, "no positive margin", *[""] * 6]) + " |"
    count, layers = found["effective"], found["layers"]
    rho = (found["smoothness"] or {}).get("rho")
    cells += [
        ", ".join(f"{layer['cushion']:.3f}" for layer in layers),
        ", ".join(f"{layer['minimal_cushion']:.3f}" for layer in layers),
        "infinite" if found["contraction"] is None else f"{found['contraction']:.2f}",
        "" if rho is None else f"{rho:.2g} of {3 * len(layers)}",
        number(count["with_constants"]),
        number(count["without"]),
        "" if count["orders_above_examples"] is None else f"{count['orders_above_examples']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def number(value: float | None) -> str:
    """Two digits."""
    return "none" if value is None else f"{value:.1e}"


def show() -> None:
    """The recorded tables."""
    record = json.loads(RESULT.read_text())
    print(
        "| network | labels | errors % | held-out % | layer cushions | minimal interlayer cushions "
        "| contraction | smoothness of needed | parameters | without constants "
        "| orders of magnitude above n |\n" + "| --- " * 11 + "|"
    )
    for one in record["rows"]:
        print(line(one))
    for widths, tables in record["digits"].items():
        print(f"\n{widths}: share of training errors when so many numbers are kept for each weight")
        for kept in tables["projections"]:
            print(
                f"  {kept['per_weight']:g}: {kept['projected']:.3f}, largest {kept['largest']:.3f}"
            )
        print(f"{widths}: largest change of the scores: Lemma 9, propagated, measured, unchanged")
        for one in tables["perturbations"]:
            lemma = number(one["lemma"])
            print(
                f"  {one['scale']:g}: {lemma}, {one['propagated']:.2g}, {one['measured']:.2g}, "
                f"{100 * one['unchanged']:.0f} %"
            )
    for one in record["untrained"]:
        print(f"untrained {one['network']}: {', '.join(f'{mu:.3f}' for mu in one['cushions'])}")


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with mnist and abcrown")
    parser.add_argument("--quick", action="store_true", help="two networks, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if not asked.show:
        if asked.data is None:
            parser.error("--data says where mnist and abcrown are")
        torch.set_num_threads(1)
        found = study(asked.data, asked.quick)
        if asked.quick:
            return
        settings = {
            "rates": RATES,
            "momentum": MOMENTUM,
            "sample": SAMPLE,
            "noise": GaussianNoise(),
        }
        about = asdict(tl.Provenance.now(SEED, **settings))
        RESULT.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
