"""``tailor demo``: the whole loop, for real, on scikit-learn's handwritten digits."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from tailor import records
from tailor.numerics.bounds import occam
from tailor.numerics.powerlaw import Clauset
from tailor.shell.output import save_analyses
from tailor.shell.training.run import one_thread
from tailor.stages.analyze import Analyses, Analysis, analyze
from tailor.stages.certify import Certificate, Occam, certify, register
from tailor.stages.compress import Candidate, CompressedModel, Uniform, frontier
from tailor.stages.polish import polish
from tailor.stages.regularize import Penalty, StudentPrior
from tailor.stages.train import batches, train
from tailor.tasks import DIGITS, Data

EPOCHS, RETRAIN_EPOCHS, BATCH, RATE = 60, 30, 128, 5e-3
SPARSITIES = (
    *(0.5, 0.65, 0.75, 0.82, 0.87, 0.9, 0.92, 0.935, 0.945),
    *(0.955, 0.961, 0.966, 0.97, 0.974, 0.977, 0.98, 0.983),
)
QUANTIZER = Uniform(top=4, unit_step=True)
SWEEPS = 3
DELTA = 0.05
CHOICES = 256  # networks, codes and scalings that tailor's authors may have compared on digits
PLAIN, HEAVY = "plain", "heavy-tailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One row of ``history.csv``.

    Attributes:
        network: ``plain`` or ``heavy-tailed``.
        epoch: Counted from 1.
        loss: Mean training loss over the epoch, without penalty.
        penalty: Mean penalty.
        train_error: Share of errors on the training examples.
        test_error: Share of errors on the held-out examples.
    """

    network: str
    epoch: int
    loss: float
    penalty: float
    train_error: float
    test_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Size and errors of a network at one stage of compression.

    Attributes:
        network: ``plain`` or ``heavy-tailed``.
        stage: ``dense``, ``pruned``, ``quantised``, ``coded`` or ``polished``.
        how: How the bytes are counted.
        bytes: Size.
        nonzeros: Weights that are not zero.
        train_error: Share of errors on the training examples.
        test_error: Share of errors on the held-out examples.
    """

    network: str
    stage: str
    how: str
    bytes: int
    nonzeros: int
    train_error: float
    test_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One file on the way from dense to small.

    Attributes:
        network: ``plain`` or ``heavy-tailed``.
        sparsity: Share of zeros.
        nonzeros: Weights that are not zero.
        bytes: Length of the coded stream.
        train_error: Share of errors on the training examples.
        test_error: Share of errors on the held-out examples.
        risk_bound: Occam bound of this file, choices paid.
        chosen: Whether it has the smallest bound of its network.
    """

    network: str
    sparsity: float
    nonzeros: int
    bytes: int
    train_error: float
    test_error: float
    risk_bound: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """What ``compression.json`` holds.

    Attributes:
        stages: The chosen file of each network, stage by stage.
        frontier: Every file that was made.
        polish: The bound before the local search, after each of its sweeps (by the ideal code
            length), and of the file at the end.
        provenance: Versions, seed and settings.
    """

    stages: tuple[Stage, ...]
    frontier: tuple[Point, ...]
    polish: tuple[float, ...]
    provenance: records.Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo ends with."""

    history: tuple[Epoch, ...]
    analyses: Analyses
    compression: Compression
    certificate: Certificate
    model: CompressedModel


def run(seed: int, console: Console) -> Outcome:
    """Train twice, analyze, compress and certify; deterministic on one machine.

    Args:
        seed: Of initial weights, batches and search.
        console: Where progress is shown.
    """
    held_out = DIGITS.test()
    assert held_out is not None
    with one_thread(), _progress(console) as bar:
        return _Demo(DIGITS.train(), held_out, seed, bar).run()


def save(outcome: Outcome, out: Path) -> None:
    """Write every record and the model to a folder."""
    save_analyses(outcome.analyses, out)
    records.save(outcome.compression, out / "compression.json")
    records.save(outcome.certificate, out / "certificate.json")
    outcome.model.save(out / "model.tailor")
    stamp = outcome.compression.provenance.stamp()
    rows = [asdict(epoch) | stamp for epoch in outcome.history]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    records.write(out / "history.csv", text.getvalue().encode())


class _Demo:
    """The steps of the demo and what they share."""

    def __init__(self, data: Data, held_out: Data, seed: int, bar: Progress) -> None:
        self.data, self.held_out, self.seed, self.bar = data, held_out, seed, bar
        prior = StudentPrior(2 / len(data))  # 1/n is the posterior mode; tuned by us
        self.penalties: dict[str, list[Penalty]] = {PLAIN: [], HEAVY: [prior]}
        self.about = records.Provenance.now(
            seed,
            epochs=EPOCHS,
            retrain_epochs=RETRAIN_EPOCHS,
            batch=BATCH,
            learning_rate=RATE,
            heavy_tailed=prior,
            quantizer=QUANTIZER,
        )
        self.registration = register(
            DIGITS, Occam(), delta=DELTA, earlier=CHOICES, seed=seed
        )  # before anything is fitted
        self.history: list[Epoch] = []

    def run(self) -> Outcome:
        models = {network: self._train(network) for network in self.penalties}
        analyses = Analyses(
            analyses=tuple(self._analyze(network, model) for network, model in models.items())
        )
        stages: list[Stage] = []
        points: list[Point] = []
        best: dict[str, Candidate] = {}
        for network, model in models.items():
            best[network], found = self._frontier(network, model)
            stages += self._stages(network, model, best[network])
            points += found
        small, bounds = self._polish(best[HEAVY].compressed)
        stages.append(self._coded(HEAVY, "polished", small))
        return Outcome(
            history=tuple(self.history),
            analyses=analyses,
            compression=Compression(
                stages=tuple(stages),
                frontier=tuple(points),
                polish=tuple(bounds),
                provenance=self.about,
            ),
            certificate=certify(
                small,
                build=DIGITS.build,
                data=self.data,
                registration=self.registration,
                held_out=self.held_out,
                error=DIGITS.error,
                task=DIGITS.name,
                seed=self.seed,
            ),
            model=small,
        )

    def _train(self, network: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # both networks start from the same weights
            model = DIGITS.build()
        task = self.bar.add_task(f"train     {network}", total=EPOCHS)
        for epoch, (loss, penalty) in enumerate(self._epochs(model, network, EPOCHS), start=1):
            train_error, test_error = self._errors(model)
            self.history.append(
                Epoch(
                    network=network,
                    epoch=epoch,
                    loss=loss,
                    penalty=penalty,
                    train_error=train_error,
                    test_error=test_error,
                )
            )
            self.bar.advance(task)
        return model

    def _epochs(self, model: nn.Module, network: str, epochs: int) -> Iterator[tuple[float, float]]:
        """Adam with a cosine schedule; yields mean loss and penalty of each epoch."""
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        per_epoch = -(-len(self.data) // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, epochs * per_epoch, eta_min=RATE / 100
        )
        steps = []
        for step in train(
            model,
            batches(self.data, size=BATCH, epochs=epochs, seed=self.seed),
            loss=nn.functional.cross_entropy,
            optimizer=optimizer,
            penalties=self.penalties[network],
            seed=self.seed,
        ):
            schedule.step()
            steps.append(step)
            if step.number % per_epoch == 0:
                yield fmean(s.loss for s in steps), fmean(s.penalty for s in steps)
                steps = []

    def _analyze(self, network: str, model: nn.Module) -> Analysis:
        layers = len(list(model.parameters()))
        task = self.bar.add_task(f"analyze   {network}", total=layers)
        return analyze(
            model,
            spectrum=Clauset(bootstrap=200, seed=self.seed),
            entries=Clauset(largest=10_000),
            drawings=True,
            label=network,
            seed=self.seed,
            watch=lambda *_: self.bar.advance(task),
        )

    def _frontier(self, network: str, model: nn.Module) -> tuple[Candidate, list[Point]]:
        """Files at rising sparsity, and the one with the smallest bound."""
        task = self.bar.add_task(f"compress  {network}", total=len(SPARSITIES))

        def retrain(pruned: nn.Module) -> None:
            for _ in self._epochs(pruned, network, RETRAIN_EPOCHS):
                pass

        candidates, points = [], []
        for candidate in frontier(
            model,
            SPARSITIES,
            quantizer=QUANTIZER,
            retrain=retrain,
            about=self.about.stamp(),
        ):
            candidates.append(candidate)
            points.append(self._point(network, candidate))
            self.bar.advance(task)
        best = min(range(len(points)), key=lambda i: points[i].risk_bound)
        points[best] = replace(points[best], chosen=True)
        return candidates[best], points

    def _point(self, network: str, candidate: Candidate) -> Point:
        file = candidate.compressed
        train_error, test_error = self._errors(file.into(DIGITS.build))
        errors = round(train_error * len(self.data))
        length = len(file.stream)
        return Point(
            network=network,
            sparsity=candidate.sparsity,
            nonzeros=sum(int((grid.levels != 0).sum()) for grid in file.grids().values()),
            bytes=length,
            train_error=train_error,
            test_error=test_error,
            risk_bound=self._bound(errors, length),
            chosen=False,
        )

    def _stages(self, network: str, dense: nn.Module, chosen: Candidate) -> list[Stage]:
        """The way of one network from dense to coded."""
        pruned = DIGITS.build()
        pruned.load_state_dict(chosen.pruned)
        total = sum(p.numel() for p in dense.parameters())
        kept, mask = chosen.nonzeros, -(-total // 8)
        coded = self._coded(network, "coded", chosen.compressed)
        level_bits = (2 * QUANTIZER.top - 1).bit_length()
        return [
            self._stage(network, "dense", "4 bytes a weight", 4 * total, dense),
            self._stage(network, "pruned", "bit mask, 4 bytes a non-zero", mask + 4 * kept, pruned),
            replace(
                coded,
                stage="quantised",
                how=f"bit mask, {level_bits} bits a non-zero",
                bytes=mask + -(-level_bits * coded.nonzeros // 8),
            ),
            coded,
        ]

    def _coded(self, network: str, stage: str, file: CompressedModel) -> Stage:
        return self._stage(
            network, stage, "entropy-coded stream", len(file.stream), file.into(DIGITS.build)
        )

    def _stage(self, network: str, stage: str, how: str, size: int, model: nn.Module) -> Stage:
        train_error, test_error = self._errors(model)
        return Stage(
            network=network,
            stage=stage,
            how=how,
            bytes=size,
            nonzeros=sum(int((p != 0).sum()) for p in model.parameters()),
            train_error=train_error,
            test_error=test_error,
        )

    def _polish(self, small: CompressedModel) -> tuple[CompressedModel, list[float]]:
        task = self.bar.add_task(f"polish    {HEAVY}", total=SWEEPS)
        bounds = [self._bound_of(small)]

        def watch(bound: float) -> None:
            bounds.append(bound)
            self.bar.advance(task)

        better = polish(
            small,
            build=DIGITS.build,
            data=self.data,
            delta=DELTA,
            choices=CHOICES,
            sweeps=SWEEPS,
            error=DIGITS.error,
            seed=self.seed,
            watch=watch,
        )
        self.bar.update(task, completed=SWEEPS)
        return better, [*bounds, self._bound_of(better)]

    def _bound_of(self, file: CompressedModel) -> float:
        errors = int(DIGITS.error(file.into(DIGITS.build), self.data).sum())
        return self._bound(errors, len(file.stream))

    def _bound(self, errors: int, length: int) -> float:
        """The Occam bound for so many errors and bytes, with the choices paid."""
        return occam(errors, len(self.data), 8 * length + math.log2(CHOICES), DELTA).binomial

    def _errors(self, model: nn.Module) -> tuple[float, float]:
        """Shares of errors on training and held-out examples."""
        wrong = [DIGITS.error(model, data) for data in (self.data, self.held_out)]
        return float(wrong[0].double().mean()), float(wrong[1].double().mean())


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        console=console,
    )
