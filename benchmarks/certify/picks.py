"""Pick-to-Learn certificates of sparse networks, and a simulation of their coverage.

    OMP_NUM_THREADS=1 python -m benchmarks.certify.picks --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.certify.picks --data FOLDER --quick
    python -m benchmarks.certify.picks --show

Each study trains on picked examples of one sample and certifies the sparse, quantised network in
the file, at delta = 0.05 divided by its declared stops. "split" studies make a prior first, with a
part of the training examples that a hash chooses: trained with a Student prior (heavy tails),
pruned to a tenth, and then taught by picks from the rest, with its zeros held; the bound counts
the rest alone. "mnist, transfer" starts from a network that has learnt other people's handwriting,
from pendigits and digits, and nothing of MNIST. Held-out examples are those that the sources set
apart; they decide nothing.

How the settings came about. They were tried out on MNIST's 10,000 test images, and for digits
on the same images shrunk to 8 x 8; then they were written down here, and every study was run once
a seed. Each further study of a sample was added after the results of those before it were seen, so
it pays for all of them (``alternatives``), and every study pays for its stops. Writes
benchmarks/results/certify_picks.json.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import tailor as tl
from benchmarks.certify.handwriting import other_hands
from benchmarks.certify.samples import SAMPLES
from tailor.numerics.bounds import binomial_upper, pick_to_learn
from tailor.stages.certify.picks import (
    Learner,
    NetworkLearner,
    PickToLearn,
    Rounds,
    Trace,
    Warp,
    traced,
)
from tailor.stages.certify.picks.learner import alone
from tailor.stages.compress import Adaptive, CompressedModel, UniformStep, pack
from tailor.stages.compress.held import matrices, write_back
from tailor.tasks import Data, zero_one

RESULT = Path(__file__).parents[1] / "results" / "certify_picks.json"
DELTA = 0.05
SALT = "prior, picks"


def mnist_network() -> nn.Module:
    """Three convolutions; 43,700 weights in matrices."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(20, 40, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(40, 80, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(720, 10),
    )


class Views(nn.Module):
    """A network that looks at an image five times: as it is, turned, and at two other sizes.

    The views' log-probabilities are added up. In training there is one view, since the images come
    warped; the network has no more weights than the one inside.
    """

    TURN, ZOOM = 0.12, 0.1

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        if self.training:
            scores: Tensor = self.net(x)
            return scores
        turn, zoom = self.TURN, self.ZOOM
        views = ((0.0, 1.0), (turn, 1.0), (-turn, 1.0), (0.0, 1 + zoom), (0.0, 1 - zoom))
        return torch.stack([self._seen(x, angle, size) for angle, size in views]).sum(dim=0)

    def _seen(self, x: Tensor, angle: float, size: float) -> Tensor:
        cos, sin = size * math.cos(angle), size * math.sin(angle)
        maps = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], dtype=x.dtype).expand(len(x), 2, 3)
        grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
        return torch.log_softmax(
            self.net(functional.grid_sample(x, grid, align_corners=False)), dim=1
        )


class FarViews(Views):
    """Five views that lie further apart: as it is, slanted both ways, and at two other sizes."""

    SLANT, ZOOM = 0.3, 0.2

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        if self.training:
            scores: Tensor = self.net(x)
            return scores
        slant, zoom = self.SLANT, self.ZOOM
        views = ((0.0, 1.0), (slant, 1.0), (-slant, 1.0), (0.0, 1 + zoom), (0.0, 1 - zoom))
        return torch.stack([self._seen(x, lean, size) for lean, size in views]).sum(dim=0)

    def _seen(self, x: Tensor, slant: float, size: float) -> Tensor:
        rows = [[size, slant * size, 0.0], [0.0, size, 0.0]]
        maps = torch.tensor(rows, dtype=x.dtype).expand(len(x), 2, 3)
        grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
        return torch.log_softmax(
            self.net(functional.grid_sample(x, grid, align_corners=False)), dim=1
        )


def viewed_network() -> nn.Module:
    """The network for MNIST, with five views of an image."""
    return Views(mnist_network())


def far_viewed_network() -> nn.Module:
    """The network for MNIST, with five views of an image that lie further apart."""
    return FarViews(mnist_network())


def wide_network() -> nn.Module:
    """The same with more channels; 104,480 weights in matrices."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1152, 10),
    )


def digits_network() -> nn.Module:
    """Two convolutions on images of 8 x 8; 18,264 weights in matrices."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(768, 10),
    )


def viewed_digits() -> nn.Module:
    """The network for digits, with five views of an image."""
    first, *others = digits_network()
    return nn.Sequential(first, Views(nn.Sequential(*others)))


def table_network(classes: int, width: int) -> nn.Module:
    """Two hidden layers for rows of 16 numbers."""
    return nn.Sequential(
        nn.Linear(16, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def letter_network() -> nn.Module:
    """76,288 weights in matrices."""
    return table_network(26, 256)


def pendigits_network() -> nn.Module:
    """19,712 weights in matrices."""
    return table_network(10, 128)


MNIST_WARP = Warp(rotate=0.2, scale=0.15, shift=0.1, shear=0.2, bend=0.05)
DIGITS_WARP = Warp(rotate=0.2, scale=0.15, shift=0.1, shear=0.15, bend=0.04, shape=(1, 8, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """How a sparse network is made from the prior's part of the data.

    A share of None stands for other samples of handwriting, and all of this one is certified.
    """

    share: float | None
    epochs: int
    density: float
    rate: float = 2e-3
    batch: int = 128
    student: float = 3e-5
    polish: int = 0
    warp: Warp | None = None


def make_prior(
    build: Callable[[], nn.Module], data: Data, prior: Prior, seed: int
) -> CompressedModel:
    """Train with a heavy-tailed prior on the weights, prune in rounds, quantise, code."""
    torch.manual_seed(seed)
    model = build()
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=prior.rate, weight_decay=1e-2)
    size = math.ceil(len(data) / prior.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2 * prior.rate, total_steps=prior.epochs * size
    )
    for epoch in range(prior.epochs):
        thin = min(1.0, max(0.0, (epoch - 0.2 * prior.epochs) / (0.4 * prior.epochs)))
        sparsity = (1 - prior.density) * (1 - (1 - thin) ** 3)
        if sparsity > 0:
            tl.prune(model, sparsity, allocation=tl.LAMP(), inplace=True)
        _epoch(model, data, prior, draws, optimizer, schedule)
    return coded(model)


def polish(
    file: CompressedModel, build: Callable[[], nn.Module], data: Data, prior: Prior, seed: int
) -> CompressedModel:
    """Train a prior further, its zeros held, with a rate that falls to nothing."""
    model = file.into(build)
    draws = torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=prior.rate, weight_decay=1e-2)
    size = math.ceil(len(data) / prior.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, prior.polish * size)
    for _ in range(prior.polish):
        _epoch(model, data, prior, draws, optimizer, schedule)
    return coded(model)


def coded(model: nn.Module) -> CompressedModel:
    """Quantise the matrices finely, and code."""
    quantizer = UniformStep(tolerance=1e-3)
    fitted = {name: quantizer.fit(w) for name, w in matrices(model).items()}
    write_back(model, {name: fitted[name].round(w) for name, w in matrices(model).items()})
    grids = {name: fitted[name].code(w) for name, w in matrices(model).items()}
    return pack(model, grids, coder=Adaptive())


def _epoch(
    model: nn.Module,
    data: Data,
    prior: Prior,
    draws: torch.Generator,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Once through the data, zeros held."""
    with tl.hold(model, optimizer, tl.Masks.of(model)):
        for step in tl.train(
            model,
            _batches(data, prior, draws),
            loss=functional.cross_entropy,
            optimizer=optimizer,
            penalties=[tl.StudentPrior(prior.student)],
            schedulers=[schedule],
        ):
            loss = step.loss
    print(f"  prior: loss {loss:.4f}, zeros {tl.Masks.of(model).sparsity:.3f}", flush=True)


def _batches(data: Data, prior: Prior, draws: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for at in torch.randperm(len(data), generator=draws).split(prior.batch):
        x = data.x[at]
        yield x if prior.warp is None else prior.warp(x, draws), data.y[at]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One sample, one learner, one way of picking; a seed is all that changes.

    ``alternatives`` counts the ways that were tried on this sample, each of which is paid for.
    """

    sample: str
    build: Callable[[], nn.Module]
    learner: NetworkLearner
    rounds: Rounds
    prior: Prior | None = None
    alternatives: int = 1

    @property
    def split(self) -> tl.Split | None:
        """How the sample is cut, if the prior is learnt on a part of it."""
        if self.prior is None or self.prior.share is None:
            return None
        return tl.Split(share=self.prior.share, salt=SALT)


TRANSFER_PRIOR = Prior(share=None, epochs=15, density=1.0, batch=64, warp=MNIST_WARP)
TRANSFER_LEARNER = NetworkLearner(
    build=viewed_network,
    density=0.2,
    thin_from=100,
    thin_to=450,
    first_steps=200,
    steps=300,
    last_steps=2000,
    batch=64,
    average=0.99,
    warp=MNIST_WARP,
)
DIGITS_LEARNER = NetworkLearner(
    build=digits_network,
    density=0.2,
    thin_from=20,
    thin_to=60,
    first_steps=300,
    steps=200,
    last_steps=600,
    batch=32,
    average=0.99,
    warp=DIGITS_WARP,
)
TABLE_PRIOR = Prior(share=0.5, epochs=60, density=0.1, batch=64, student=1e-4)
STUDIES = {
    "mnist": Study(
        sample="mnist",
        build=mnist_network,
        learner=NetworkLearner(
            build=mnist_network,
            density=0.2,
            thin_from=100,
            thin_to=450,
            first_steps=400,
            steps=200,
            last_steps=1000,
            batch=64,
            average=0.99,
            warp=MNIST_WARP,
        ),
        rounds=Rounds(stops=(500, 600, 700, 800), per_round=25, first=100),
    ),
    "mnist, transfer": Study(
        sample="mnist",
        build=viewed_network,
        prior=TRANSFER_PRIOR,
        learner=TRANSFER_LEARNER,
        rounds=Rounds(stops=(600, 700, 800), per_round=25, expected=1100),
        alternatives=4,
    ),
    "mnist, transfer, far views": Study(
        sample="mnist",
        build=far_viewed_network,
        prior=TRANSFER_PRIOR,
        learner=replace(TRANSFER_LEARNER, build=far_viewed_network),
        rounds=Rounds(stops=(500, 600), per_round=25, expected=950),
        alternatives=1024,  # 561 sets of views and 12 last stages were compared on this sample
    ),
    "mnist, split": Study(
        sample="mnist",
        build=mnist_network,
        prior=Prior(share=0.5, epochs=8, density=0.1, warp=MNIST_WARP),
        learner=NetworkLearner(
            build=mnist_network,
            first_steps=100,
            steps=100,
            last_steps=300,
            batch=128,
            rate=5e-4,
            average=0.98,
            share=0.75,
            warp=MNIST_WARP,
        ),
        rounds=Rounds(stops=(0, 60, 120), per_round=20),
    ),
    "mnist, split, longer": Study(
        sample="mnist",
        build=mnist_network,
        prior=Prior(share=0.5, epochs=8, density=0.1, polish=8, warp=MNIST_WARP),
        learner=NetworkLearner(
            build=mnist_network,
            first_steps=50,
            steps=50,
            last_steps=300,
            batch=128,
            rate=1e-4,
            average=0.99,
            share=0.9,
            warp=MNIST_WARP,
        ),
        rounds=Rounds(stops=(0, 40), per_round=20),
        alternatives=2,
    ),
    "mnist, wide": Study(
        sample="mnist",
        build=wide_network,
        learner=NetworkLearner(
            build=wide_network,
            density=0.2,
            thin_from=100,
            thin_to=450,
            first_steps=600,
            steps=300,
            last_steps=2000,
            batch=64,
            rate=1e-3,
            average=0.995,
            warp=MNIST_WARP,
        ),
        rounds=Rounds(stops=(700, 900), per_round=25, first=100),
        alternatives=2,
    ),
    "mnist, split, wide": Study(
        sample="mnist",
        build=wide_network,
        prior=Prior(share=0.5, epochs=14, density=0.1, warp=MNIST_WARP),
        learner=NetworkLearner(
            build=wide_network,
            first_steps=50,
            steps=50,
            last_steps=300,
            batch=128,
            rate=1e-4,
            average=0.99,
            share=0.9,
            warp=MNIST_WARP,
        ),
        rounds=Rounds(stops=(0, 20), per_round=20),
        alternatives=3,
    ),
    "digits": Study(
        sample="digits",
        build=digits_network,
        learner=DIGITS_LEARNER,
        rounds=Rounds(stops=(60, 70, 80, 90), per_round=4, first=20, expected=100),
        alternatives=2,
    ),
    "digits, views": Study(
        sample="digits",
        build=viewed_digits,
        learner=replace(DIGITS_LEARNER, build=viewed_digits),
        rounds=Rounds(stops=(50, 60, 70), per_round=4, first=20, expected=100),
        alternatives=3,
    ),
    "digits, split": Study(
        sample="digits",
        build=digits_network,
        prior=Prior(share=0.5, epochs=100, density=0.1, batch=32, student=3e-4, warp=DIGITS_WARP),
        learner=NetworkLearner(
            build=digits_network,
            first_steps=100,
            steps=100,
            last_steps=300,
            batch=32,
            rate=5e-4,
            average=0.98,
            share=0.75,
            warp=DIGITS_WARP,
        ),
        rounds=Rounds(stops=(0, 4, 8), per_round=2),
    ),
    "pendigits": Study(
        sample="pendigits",
        build=pendigits_network,
        learner=NetworkLearner(
            build=pendigits_network,
            density=0.2,
            thin_from=60,
            thin_to=200,
            first_steps=300,
            steps=200,
            last_steps=600,
            batch=64,
            average=0.99,
        ),
        rounds=Rounds(stops=(200, 250, 300), per_round=10, first=60, expected=300),
        alternatives=2,
    ),
    "pendigits, split": Study(
        sample="pendigits",
        build=pendigits_network,
        prior=TABLE_PRIOR,
        learner=NetworkLearner(
            build=pendigits_network,
            first_steps=100,
            steps=100,
            last_steps=300,
            batch=64,
            rate=5e-4,
            average=0.98,
            share=0.75,
        ),
        rounds=Rounds(stops=(0, 20, 40), per_round=5),
    ),
    "letter": Study(
        sample="letter",
        build=letter_network,
        learner=NetworkLearner(
            build=letter_network,
            density=0.2,
            thin_from=500,
            thin_to=1500,
            first_steps=1000,
            steps=300,
            last_steps=2000,
            average=0.99,
        ),
        rounds=Rounds(stops=(1500, 2000, 2500), per_round=100, first=500),
    ),
    "letter, split": Study(
        sample="letter",
        build=letter_network,
        prior=TABLE_PRIOR,
        learner=NetworkLearner(
            build=letter_network,
            first_steps=100,
            steps=100,
            last_steps=500,
            rate=5e-4,
            average=0.98,
            share=0.75,
        ),
        rounds=Rounds(stops=(0, 100, 200), per_round=20),
    ),
}


def run(name: str, folder: Path, seed: int, work: Path | None) -> dict[str, object]:
    """One study with one seed."""
    study = STUDIES[name]
    sample, held_out = SAMPLES[study.sample](folder)
    learner = learner_of(name, sample, folder, seed, work)
    data = sample if study.split is None else study.split.parts(sample)[1]
    method = PickToLearn(learner=learner, rounds=replace(study.rounds, seed=seed))
    saved = work / f"{name}, {seed}.json" if work else None
    known = json.loads(saved.read_text()) if saved and saved.exists() else []
    began, rounds, picks = time.process_time(), [], []
    for one in method.picking(data, build=study.build, known=known):
        rounds.append(one)
        if len(one.new):
            picks.append(one.new.tolist())
        if saved and len(picks) > len(known):
            saved.write_text(json.dumps(picks))
        wrong = one.wrong / max(1, one.searched)
        seconds = time.process_time() - began
        print(f"  {name}: {len(one.picks)} picks, {wrong:.4f} wrong, {seconds:.0f} s", flush=True)
        if one.stop is not None:
            print(f"    file: {one.stop.size} = {len(one.picks)} + rest", flush=True)
    trace = traced(iter(rounds))
    return summary(method, trace, data, held_out, study, work / f"{name}, {seed}" if work else None)


def learner_of(
    name: str, sample: Data, folder: Path, seed: int, work: Path | None
) -> NetworkLearner:
    """What learns from the picks; its prior has seen the prior's part of the sample at most."""
    study = STUDIES[name]
    learner = replace(study.learner, seed=seed)
    if study.prior is None:
        return learner
    if study.split is None:
        return replace(learner, prior=prior_of(name, other_hands(folder), seed, work))
    beside, _ = study.split.parts(sample)
    return replace(learner, prior=prior_of(name, beside, seed, work), beside=beside)


def prior_of(name: str, beside: Data, seed: int, work: Path | None) -> CompressedModel:
    """The prior of a study, made once."""
    study = STUDIES[name]
    assert study.prior is not None
    with alone("prior", seed):
        made = _kept(
            work and work / f"{name.removesuffix(', longer')}, {seed}, prior.tailor",
            lambda: make_prior(study.build, beside, study.prior, seed),
        )
        if not study.prior.polish:
            return made
        return _kept(
            work and work / f"{name}, {seed}, prior.tailor",
            lambda: polish(made, study.build, beside, study.prior, seed),
        )


def _kept(path: Path | None, make: Callable[[], CompressedModel]) -> CompressedModel:
    """What was saved, or what is made and saved."""
    if path and path.exists():
        return CompressedModel.load(path)
    made = make()
    if path:
        made.save(path)
    return made


def summary(
    method: PickToLearn, trace: Trace, data: Data, held_out: Data, study: Study, file: Path | None
) -> dict[str, object]:
    """The certificate's numbers, with the held-out bound beside them."""
    best = trace.best()
    evidence = method.evidence(trace, best.small, data, DELTA / study.alternatives)
    if file is not None:
        best.small.save(file.with_suffix(".tailor"))
    model = best.small.into(study.build)
    missed = int(zero_one(model, held_out).sum())
    prior = None
    if isinstance(method.learner, NetworkLearner) and method.learner.prior is not None:
        wrong = int(zero_one(method.learner.prior.into(study.build), data).sum())
        prior = {"errors": wrong, "n": len(data), "bound": upper(wrong, len(data))}
    return {
        "seed": method.rounds.seed,
        "evidence": asdict(evidence),
        "stops": [
            {"stop": one.declared, "k": one.size, "leftover": len(one.leftover)}
            for one in trace.stops
        ],
        "density": 1 - tl.Masks.of(model).sparsity,
        "file_bytes": len(best.small.payload),
        "held_out": {"errors": missed, "n": len(held_out), "bound": upper(missed, len(held_out))},
        "prior": prior,
        "model_sha256": hashlib.sha256(best.small.payload).hexdigest(),
    }


def upper(errors: int, n: int) -> float:
    """One-sided Clopper-Pearson."""
    return binomial_upper(errors, n, math.log(DELTA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Means(Learner):
    """The nearest mean of each class: cheap enough to draw hundreds of samples."""

    def start(self) -> nn.Module:
        """All classes alike."""
        model = nn.Linear(2, 3)
        for tensor in model.parameters():
            nn.init.zeros_(tensor)
        return model

    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        """The new means."""
        assert isinstance(model, nn.Linear)
        with torch.no_grad():
            for label in set(new.y.tolist()):
                mean = picked.x[picked.y == label].mean(0)
                model.weight[label], model.bias[label] = mean, -mean.square().sum() / 2
        return model

    def finish(self, model: nn.Module, picked: Data) -> CompressedModel:
        """As it is."""
        return pack(model, coder=Adaptive())


def clouds(n: int, seed: int) -> Data:
    """Three overlapping Gaussian clouds."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=draws)
    centre = torch.tensor([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[y]
    return Data(x=centre + 0.6 * torch.randn(n, 2, generator=draws), y=y)


def coverage(samples: int, n: int = 100) -> dict[str, float]:
    """How often the true error is above the bound, on samples whose law is known."""
    method = PickToLearn(
        learner=Means(), rounds=Rounds(stops=(4, 8, 16), per_round=2, order="worst")
    )
    truth, ratios, bounds, risks = clouds(100_000, 10**6), [], [], []
    for seed in range(samples):
        data = clouds(n, seed)
        best = method.run(data, build=lambda: nn.Linear(2, 3)).best()
        bound = pick_to_learn(best.size, n, DELTA / len(method.rounds.stops))
        model = best.small.into(lambda: nn.Linear(2, 3))
        risk = float(zero_one(model, truth).double().mean())
        ratios.append(risk / bound)
        bounds.append(bound)
        risks.append(risk)
    return {
        "samples": samples,
        "n": n,
        "violations": sum(ratio > 1 for ratio in ratios),
        "worst_ratio": max(ratios),
        "mean_bound": sum(bounds) / samples,
        "mean_risk": sum(risks) / samples,
    }


def record(name: str, found: object) -> None:
    """Add one run to the record; a run of the same seed is replaced."""
    said = json.loads(RESULT.read_text()) if RESULT.exists() else {"studies": {}}
    said["about"] = asdict(tl.Provenance.now(None, delta=DELTA))
    if name == "coverage":
        said["coverage"] = found
    else:
        assert isinstance(found, dict)
        kept = [one for one in said["studies"].get(name, []) if one["seed"] != found["seed"]]
        said["studies"][name] = sorted([*kept, found], key=lambda one: one["seed"])
    RESULT.write_text(json.dumps(said, indent=1) + "\n")


def show() -> None:
    """The recorded table: medians over seeds, in percent."""
    said = json.loads(RESULT.read_text())
    print(
        "| study | seeds | n | density | k = picks + leftover | bound | held out: error, bound "
        "| prior's Clopper-Pearson |\n" + "| --- " * 8 + "|"
    )
    for name, runs in said["studies"].items():
        mid = sorted(runs, key=lambda run: run["evidence"]["risk_bound"])[(len(runs) - 1) // 2]
        bounds = [run["evidence"]["risk_bound"] for run in runs]
        e, h = mid["evidence"], mid["held_out"]
        prior = f"{100 * mid['prior']['bound']:.2f}" if mid["prior"] else "-"
        print(
            f"| {name} | {len(runs)} | {e['n']} | {mid['density']:.3f} "
            f"| {e['k']} = {e['picks']} + {e['leftover']} "
            f"| {100 * e['risk_bound']:.2f} ({100 * min(bounds):.2f} - {100 * max(bounds):.2f}) "
            f"| {100 * h['errors'] / h['n']:.2f}, {100 * h['bound']:.2f} | {prior} |"
        )
    if "coverage" in said:
        print("\n" + json.dumps(said["coverage"]))


def main() -> None:
    """Run and record, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the samples")
    parser.add_argument("--only", choices=[*STUDIES, "coverage"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--work", type=Path, help="where picks and files are kept, to go on")
    parser.add_argument("--quick", action="store_true", help="digits, one seed; no record")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.show:
        show()
    elif asked.quick:
        print(json.dumps(run("digits, split", asked.data, 0, asked.work)["stops"]))
        print(coverage(20))
    else:
        for name in [asked.only] if asked.only else [*STUDIES]:
            for seed in asked.seeds if name != "coverage" else []:
                record(name, run(name, asked.data, seed, asked.work))
        if asked.only in (None, "coverage"):
            record("coverage", coverage(500))


if __name__ == "__main__":
    main()
