"""Certificates of networks in which every layer is learned and paid for; no image prior.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.learned --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.learned --data FOLDER --sample digits
    OMP_NUM_THREADS=1 python -m benchmarks.certify.learned --data FOLDER --quick
    python -m benchmarks.certify.learned --show

A small convolutional network without biases on images pooled to half their side: trained, pruned
while it trains, rounded step by step to a grid of seven levels, trained through the rounding, and
searched weight by weight for a smaller bound. Several are trained; the best of them are rounded,
and the best of these is searched. Seeds, starts, losses, numbers of epochs and of weights only find
the file, and cost nothing; architecture and coder are what its reader has to know, and every
alternative that was tried is paid for. Architectures, losses and grids were compared on MNIST's
10,000 test images; ``--quick`` does so again, in short. So the held-out figures beside the bounds
are a guide only: those images are not fresh (and digits were looked at before). Writes
benchmarks/results/certify_learned.json.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import tailor as tl
from benchmarks.certify.samples import SAMPLES
from tailor.numerics.bounds import held_out_upper
from tailor.stages.certify.occam import code_bits
from tailor.stages.compress import Adaptive, CompressedModel
from tailor.stages.compress.payload import Contextual
from tailor.stages.incremental import ROUNDS, incremental, screened
from tailor.tasks import Data

RESULT = Path(__file__).parents[1] / "results" / "certify_learned.json"
DELTA = 0.05

Loss = Callable[[Tensor, Tensor], Tensor]


def images(first: int = 8, second: int = 16, side: int = 5, inner: int = 3) -> nn.Sequential:
    """28 x 28 pixels, pooled to 14 x 14; two convolutions and a linear layer."""
    left = (15 - side) // 2 - inner + 1
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, first, side, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, inner, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * left * left, 10, bias=False),
    )


def small(channels: int = 6) -> nn.Sequential:
    """8 x 8 pixels: a convolution and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, channels, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(channels * 9, 10, bias=False),
    )


# What the reader of a file has to know and was compared with the data in view; all of it is paid.
NETWORKS = (
    "8 and 16 channels, 5 x 5 and 3 x 3 pixels",  # the one that is certified
    "the same with layer norms",
    "the same with layer norms and a global pool before the head",
    "8 and 24 channels with layer norms and a global pool before the head",
    "12 and 24 channels with layer norms",
    "6 and 16 channels",
    "6 and 12 channels",
    "8 and 16 channels, 5 x 5 and 5 x 5 pixels",
    "8 and 16 channels, 3 x 3 and 3 x 3 pixels",
    "8 and 24 channels, the second layer in two groups",
)
CODERS = (Adaptive(), Contextual())
CHOICES = {"mnist": 2**6, "digits": 2**12}  # at least networks x coders; digits were seen before
assert len(NETWORKS) * len(CODERS) <= min(CHOICES.values())
BUILD: dict[str, Callable[[], nn.Sequential]] = {"mnist": images, "digits": small}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What finds the file; epochs of each phase.

    Attributes:
        starts: Networks that are trained.
        finalists: Of these, the ones with the fewest errors, which are rounded.
        nonzeros: Weights that are left by pruning.
        prune: Epochs of training during which the network is pruned.
        recover: Epochs after it.
        rounds: Epochs after each share that is rounded.
        straight: Epochs of each training through the rounding.
        times: How many of these.
        tries: Changes that the local search may try.
        hard: Share of the examples in its screen.
        sweeps: Of the local search, at most.
    """

    starts: int
    finalists: int
    nonzeros: int
    prune: int
    recover: int
    rounds: int
    straight: int
    times: int
    tries: int
    hard: float = 0.06
    sweeps: int = 3


SETTINGS = {
    "mnist": Settings(
        starts=6,
        finalists=2,
        nonzeros=500,
        prune=24,
        recover=8,
        rounds=4,
        straight=5,
        times=3,
        tries=200_000,
        sweeps=20,
    ),
    "digits": Settings(
        starts=6,
        finalists=2,
        nonzeros=120,
        prune=120,
        recover=60,
        rounds=40,
        straight=60,
        times=2,
        tries=20_000,
        hard=1.0,
    ),
}
RATE, BATCH, LEAST = 0.01, 128, 0.02


def robust(scores: Tensor, y: Tensor, power: float = 0.5) -> Tensor:
    """Generalised cross entropy (Zhang & Sabuncu 2018): closer to the share of errors."""
    own = torch.softmax(scores, dim=1).gather(1, y[:, None]).clamp(min=1e-6)
    return ((1 - own.pow(power)) / power).mean()


def fit(
    model: nn.Module,
    data: Data,
    epochs: int,
    *,
    loss: Loss = robust,
    rate: float = RATE,
    seed: int = 0,
    after: Callable[[float], None] | None = None,
) -> None:
    """Adam with a cosine schedule; ``after`` each step is told the share of steps done."""
    total = epochs * math.ceil(len(data) / BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=LEAST * rate)
    model.train()
    for step, (x, y) in enumerate(tl.batches(data, size=BATCH, epochs=epochs, seed=seed)):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        cosine.step()
        if after is not None:
            after((step + 1) / total)


class Pruning:
    """Magnitude pruning while the network trains, on a cubic schedule (Zhu & Gupta 2018)."""

    def __init__(self, model: nn.Module, nonzeros: int) -> None:
        self.model, self.nonzeros, self.step = model, nonzeros, 0
        self.weights = list(model.parameters())
        self.masks = [torch.ones_like(w) for w in self.weights]

    def __call__(self, done: float) -> None:
        """Prune now and then, and keep what was pruned at zero."""
        self.step += 1
        if self.step % 25 == 0 or done == 1:
            self._prune(min(1.0, done / 0.9))
        with torch.no_grad():
            for weight, mask in zip(self.weights, self.masks, strict=True):
                weight.mul_(mask)

    def _prune(self, share: float) -> None:
        total = sum(w.numel() for w in self.weights)
        keep = self.nonzeros + (total - self.nonzeros) * (1 - share) ** 3
        tl.prune(
            self.model,
            1 - keep / total,
            allocation=tl.GlobalMagnitude(relative=True),
            inplace=True,
        )
        self.masks = [(w != 0).to(w.dtype) for w in self.weights]


def trained(sample: str, data: Data, settings: Settings, seed: int) -> nn.Sequential:
    """A pruned network."""
    torch.manual_seed(seed)
    model = BUILD[sample]()
    pruning = Pruning(model, settings.nonzeros)
    loss: Loss = functional.cross_entropy
    fit(model, data, settings.prune, loss=loss, seed=seed, after=pruning)
    say(f"pruned to {settings.nonzeros}", model, data)
    pruning.step = 0
    masks = [(w != 0).to(w.dtype) for w in model.parameters()]

    def hold(done: float) -> None:
        with torch.no_grad():
            for weight, mask in zip(model.parameters(), masks, strict=True):
                weight.mul_(mask)

    fit(model, data, settings.recover, seed=seed + 1, after=hold)
    say("recovered", model, data)
    return model


def say(what: str, model: nn.Module, data: Data) -> None:
    """Progress, on the screen."""
    print(f"{time.process_time():7.0f} s  {what}: {share_wrong(model, data):.4f}", flush=True)


def share_wrong(model: nn.Module, data: Data) -> float:
    """Share of errors."""
    return float(tl.zero_one(model, data).double().mean())


def found(sample: str, data: Data, settings: Settings, seed: int) -> CompressedModel:
    """The file: trained, pruned, rounded, searched."""
    starts = [
        trained(sample, data, settings, settings.starts * seed + start)
        for start in range(settings.starts)
    ]
    starts.sort(key=partial(share_wrong, data=data))
    files = [rounded(sample, data, settings, seed, one) for one in starts[: settings.finalists]]
    file = searched(sample, data, settings, seed, min(files, key=partial(bound, sample, data)))
    return min((file.recoded(coder) for coder in CODERS), key=lambda one: len(one.stream))


def rounded(
    sample: str, data: Data, settings: Settings, seed: int, model: nn.Module
) -> CompressedModel:
    """All weights on grids."""
    calls: list[int] = []

    def retrain(network: nn.Module) -> None:
        calls.append(1)
        rounding = len(calls) < len(ROUNDS)
        epochs = settings.rounds if rounding else settings.straight
        fit(network, data, epochs, rate=RATE if rounding else 0.2 * RATE, seed=seed + len(calls))
        say("rounding" if rounding else "through the rounding", network, data)

    score = partial(bound, sample, data)
    return incremental(model, retrain=retrain, straight=settings.times, score=score)


def searched(
    sample: str, data: Data, settings: Settings, seed: int, file: CompressedModel
) -> CompressedModel:
    """A file with a smaller bound."""
    file = screened(
        file,
        build=BUILD[sample],
        data=data,
        delta=DELTA,
        choices=CHOICES[sample],
        sweeps=settings.sweeps,
        tries=settings.tries,
        hard=settings.hard,
        seed=seed,
        watch=lambda bound: print(f"{time.process_time():7.0f} s  bound {bound:.5f}", flush=True),
    )
    bound(sample, data, file)
    return file


def bound(sample: str, data: Data, file: CompressedModel) -> float:
    """The bound of a file; also on the screen."""
    errors = int(tl.zero_one(file.into(BUILD[sample]), data).sum())
    bits = 8 * len(file.stream) + math.log2(CHOICES[sample])
    risk = tl.occam(errors, len(data), bits, DELTA).binomial
    print(
        f"{time.process_time():7.0f} s  {errors} errors, {bits:.0f} bits, bound {risk:.4f}",
        flush=True,
    )
    return risk


def row(sample: str, folder: Path, settings: Settings, seed: int, swap: bool) -> dict[str, object]:
    """One certificate in figures."""
    start = time.process_time()
    data, held_out = SAMPLES[sample](folder)
    if swap:  # what the settings were found on
        data, held_out = held_out, data
    file = found(sample, data, settings, seed)
    seconds = time.process_time() - start
    about = {"sample": sample, "seed": seed, "settings": asdict(settings), "cpu_seconds": seconds}
    return about | figures(sample, data, held_out, file)


def figures(sample: str, data: Data, held_out: Data, file: CompressedModel) -> dict[str, object]:
    """What a file is worth."""
    model = file.into(BUILD[sample])
    errors, missed = (int(tl.zero_one(model, one).sum()) for one in (data, held_out))
    paid = math.log2(CHOICES[sample])
    bits = 8 * len(file.stream) + paid
    prior = code_bits(file.recoded(Contextual()), CHOICES[sample], "prior", model).total
    return {
        "n": len(data),
        "errors": errors,
        "bits": bits,
        "stream_bytes": len(file.stream),
        "paid_bits": paid,
        "alternatives": {"networks": NETWORKS, "coders": [type(one).__name__ for one in CODERS]},
        "coder": type(file.coder).__name__,
        "parts": file.recoded(Adaptive()).code_length(),
        "nonzeros": {name: int((grid.levels != 0).sum()) for name, grid in file.grids().items()},
        "sizes": {name: int(grid.levels.size) for name, grid in file.grids().items()},
        "bound": tl.occam(errors, len(data), bits, DELTA).binomial,
        "prior_bits": prior,  # the sum over options of the code and orders of units
        "prior_bound": tl.occam(errors, len(data), prior, DELTA).binomial,
        "held_out_errors": missed,
        "held_out_n": len(held_out),
        "held_out_upper": held_out_upper(missed, len(held_out), DELTA),
        "file": file.payload.hex(),
    }


def record(rows: list[dict[str, object]]) -> None:
    """Add rows to the record; a run stands there once."""

    def run(one: dict[str, object]) -> tuple[object, ...]:
        return (one["sample"], one["settings"]["nonzeros"], one["seed"])

    known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    fresh = {run(one) for one in rows}
    every = sorted([*(one for one in known if run(one) not in fresh), *rows], key=run)
    about = asdict(tl.Provenance.now(0))
    RESULT.write_text(json.dumps({"about": about, "delta": DELTA, "rows": every}, indent=1) + "\n")


def show() -> None:
    """The recorded table."""
    print(
        "| sample | seed | n | pruned to | in the file | bits | train error | bound "
        "| paid by the prior of the code | held-out error | Clopper-Pearson, not fresh |\n"
        + "| --- " * 11
        + "|"
    )
    for one in json.loads(RESULT.read_text())["rows"]:
        print(
            f"| {one['sample']} | {one['seed']} | {one['n']:,} | {one['settings']['nonzeros']} "
            f"| {sum(one['nonzeros'].values())} "
            f"| {one['bits']:.0f} | {one['errors'] / one['n']:.2%} | **{one['bound']:.2%}** "
            f"| {one['prior_bits']:.0f} bits, **{one['prior_bound']:.2%}** "
            f"| {one['held_out_errors'] / one['held_out_n']:.2%} | {one['held_out_upper']:.2%} |"
        )


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--sample", choices=sorted(SETTINGS), default="mnist")
    parser.add_argument("--nonzeros", type=int, help="weights left by pruning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--quick", action="store_true", help="10,000 images, nothing recorded")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    if asked.show:
        return show()
    torch.set_num_threads(1)
    settings = SETTINGS[asked.sample]
    if asked.nonzeros is not None:
        settings = replace(settings, nonzeros=asked.nonzeros)
    if asked.quick:
        settings = replace(settings, starts=2, finalists=1, tries=min(settings.tries, 1000))
    one = partial(row, asked.sample, asked.data, settings, swap=asked.quick)
    for seed in asked.seeds:
        rows = [one(seed)]
        print({key: value for key, value in rows[0].items() if key != "file"}, flush=True)
        if not asked.quick:
            record(rows)
    return None


if __name__ == "__main__":
    main()
