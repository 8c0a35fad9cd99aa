"""What can be tried: pure functions of a seed that give files."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.bounds import occam
from tailor.numerics.coding import Grid, code_length
from tailor.stages.compress import Adaptive, Coder, CompressedModel, Uniform, frontier, pack
from tailor.stages.incremental.screened import screened
from tailor.stages.polish import polish
from tailor.stages.regularize import StudentPrior
from tailor.stages.search.climb import Climb, Renewal
from tailor.stages.search.curvature import Smooth
from tailor.stages.search.head import HeadProblem, as_levels
from tailor.stages.search.moves import Board
from tailor.stages.search.rounding import Rounding
from tailor.stages.train import batches, train
from tailor.tasks import Data, ErrorCount, zero_one

SCREEN = 3000  # examples that a change is tried on first
SPARSITIES = (
    *(0.5, 0.65, 0.75, 0.82, 0.87, 0.9, 0.92, 0.935, 0.945),
    *(0.955, 0.961, 0.966, 0.97, 0.974, 0.977, 0.98, 0.983),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """The certificate whose bound is to fall.

    Attributes:
        build: Makes the network with fresh weights.
        data: The certified examples.
        delta: Probability with which the bound may fail.
        paid: Bits for choices outside the file.
        error: Which examples count as errors.
        coder: Of the files.
    """

    build: Callable[[], nn.Module]
    data: Data
    delta: float = 0.05
    paid: float = 0.0
    error: ErrorCount = zero_one
    coder: Coder = field(default_factory=Adaptive)
    _heads: dict[int, HeadProblem] = field(default_factory=dict, init=False, repr=False)

    def head(self, top: int = 1) -> HeadProblem:
        """The problem of the last layer; its features are computed once.

        Raises:
            UsageError: The network learns more than its last layer.
        """
        if top not in self._heads:
            known = next(iter(self._heads.values()), None)
            self._heads[top] = head_problem(self, top) if known is None else replace(known, top=top)
        return self._heads[top]

    def measure(self, file: CompressedModel) -> tuple[float, int, int]:
        """Bound, errors and bits of a file as a certificate counts them."""
        if self._heads and self.error is zero_one:
            (weights,) = file.state_dict().values()
            head = self.head(next(iter(self._heads)))
            errors = head.errors(head.features @ weights.double().T)
        else:
            errors = int(self.error(file.into(self.build), self.data).sum())
        bits = 8 * len(file.stream)
        bound = occam(errors, len(self.data), bits + self.paid, self.delta).binomial
        return bound, errors, bits


class Job(ABC):
    """One way to a file, and how to go on from the best file of all jobs.

    Attributes:
        name: Tells it from the others; the journal of a search knows it by that.
    """

    name: str

    @abstractmethod
    def make(self, target: Target, seed: int) -> CompressedModel:
        """A file; depends on nothing but the arguments."""

    @abstractmethod
    def improve(self, target: Target, file: CompressedModel, seed: int) -> CompressedModel:
        """A file whose bound is at most that of the given one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadJob(Job):
    """Round the only layer that is learned, which stands on fixed features; then climb.

    Attributes:
        name: Tells it from the others.
        rounding: How the layer is rounded; its scale is that for features of length 1, and is
            divided by their mean length.
        climb: The local search after that.
        top: Largest size of a weight.
        attempts: Renewals in each later round.
        share: Of the features that a renewal takes away, at most.
    """

    name: str
    rounding: Rounding = field(default_factory=Rounding)
    climb: Climb = field(default_factory=Climb)
    top: int = 1
    attempts: int = 8
    share: float = 0.5

    def make(self, target: Target, seed: int) -> CompressedModel:
        """See ``Job.make``."""
        problem = target.head(self.top)
        board = Board(problem, self._fitting(problem).round(problem, seed))
        self.climb.climb(board, np.random.default_rng(seed))
        return head_file(target, board.weights, self.name)

    def improve(self, target: Target, file: CompressedModel, seed: int) -> CompressedModel:
        """See ``Job.improve``."""
        problem = target.head(self.top)
        (grid,) = file.grids().values()
        start = torch.as_tensor(grid.levels, dtype=torch.float64)
        board = Board(problem, start)
        rounding = self._fitting(problem)
        renewal = Renewal(rounding=rounding, climb=self.climb, share=self.share)
        for seeds in np.random.default_rng(seed).integers(2**31, size=self.attempts).tolist():
            board = renewal.improve(board, seeds)
        made = head_file(target, board.weights, self.name)
        return min(file, made, key=lambda one: (target.measure(one)[0], len(one.stream)))

    def _fitting(self, problem: HeadProblem) -> Rounding:
        length = float(problem.features.norm(dim=1).mean())
        smooth = self.rounding.smooth
        return replace(
            self.rounding, smooth=replace(smooth, scale=smooth.scale / max(length, 1e-12))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkJob(Job):
    """Train with a heavy-tailed prior, prune step by step, quantise; then search near the file.

    The Student prior leaves few large weights, which is what pruning needs: without it the bound
    of an MLP on digits is 0.54, with it 0.38.

    Attributes:
        name: Tells it from the others.
        sparsities: Rising shares of zeros, a file at each.
        quantizer: The values of the grid.
        prior: Weight of the Student prior on all weights, in units of 1/n; 1 is the posterior
            mode, 0 leaves it out.
        epochs: Of training with Adam and a cosine schedule.
        retrain: Epochs after each step of pruning.
        batch: Examples in a step.
        rate: Learning rate.
        sweeps: Of the local search, over all weights, in each later round.
    """

    name: str
    sparsities: tuple[float, ...] = SPARSITIES
    quantizer: Uniform = field(default_factory=lambda: Uniform(top=4, unit_step=True))
    prior: float = 2.0
    epochs: int = 60
    retrain: int = 30
    batch: int = 128
    rate: float = 5e-3
    sweeps: int = 2

    def make(self, target: Target, seed: int) -> CompressedModel:
        """See ``Job.make``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = target.build()
        self._fit(model, target.data, self.epochs, seed)
        candidates = frontier(
            model,
            self.sparsities,
            quantizer=self.quantizer,
            retrain=lambda network: self._fit(network, target.data, self.retrain, seed),
            about={"job": self.name},
        )
        files = [candidate.compressed.recoded(target.coder) for candidate in candidates]
        best = min(files, key=lambda file: (target.measure(file)[0], len(file.stream)))
        return self.improve(target, best, seed)

    def improve(self, target: Target, file: CompressedModel, seed: int) -> CompressedModel:
        """See ``Job.improve``."""
        local: Callable[..., CompressedModel] = partial(polish, error=target.error)
        if target.error is zero_one and set(file.grids()) == set(file.state_dict()):
            local = partial(screened, hard=min(1.0, SCREEN / len(target.data)))
        return local(
            file,
            build=target.build,
            data=target.data,
            delta=target.delta,
            choices=max(1, round(2**target.paid)),
            sweeps=self.sweeps,
            seed=seed,
        )

    def _fit(self, network: nn.Module, data: Data, epochs: int, seed: int) -> None:
        if epochs == 0:
            return
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate)
        steps = epochs * -(-len(data) // self.batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, steps, eta_min=self.rate / 100
        )
        for _ in train(
            network,
            batches(data, size=self.batch, epochs=epochs, seed=seed),
            loss=nn.functional.cross_entropy,
            optimizer=optimizer,
            schedulers=[cosine],
            penalties=[StudentPrior(self.prior / len(data))] if self.prior else [],
            seed=seed,
        ):
            pass


def default_jobs(build: Callable[[], nn.Module], data: Data) -> tuple[Job, ...]:
    """What is tried for a network: its head alone where nothing else is learned.

    The settings were tuned by us on other samples than those that we certify.
    """
    model = build()
    if head_layer(model, data) is not None:
        return tuple(
            HeadJob(
                name=f"head, scale {scale:g}, width {width:g}, temperature {heat:g}",
                rounding=Rounding(smooth=Smooth(scale=scale, width=width, temperature=heat)),
            )
            for scale, width, heat in HEADS
        )
    if not any(isinstance(part, nn.Linear | nn.modules.conv._ConvNd) for part in model.modules()):
        raise UsageError("a search needs a network with linear or convolution layers")
    return tuple(
        NetworkJob(
            name=f"network, levels up to {top}, prior {prior:g}",
            quantizer=Uniform(top=top, unit_step=True),
            prior=prior,
        )
        for top, prior in NETWORKS
    )


NETWORKS = ((4, 2.0), (3, 4.0), (1, 2.0))
HEADS = ((20.0, 0.6, 1.3), (24.0, 0.6, 1.3), (16.0, 0.6, 1.3), (24.0, 0.8, 1.0))


def head_layer(model: nn.Module, data: Data) -> str | None:
    """Name of the linear layer that is all that is learned and comes last, if there is one.

    Returns:
        Its name (empty if the network is that layer); None for any other network.
    """
    state = model.state_dict()
    layers = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and "bias" not in dict(part.named_parameters())
    ]
    if len(state) != 1 or len(layers) != 1:
        return None
    name, layer = layers[0]
    if next(iter(state)) != f"{name}.weight".lstrip("."):
        return None
    return name if _comes_last(model, layer, data) else None


def _comes_last(model: nn.Module, layer: nn.Linear, data: Data) -> bool:
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, out: outputs.append(out))
    try:
        with torch.no_grad():
            result = model.eval()(data.x[:2])
    finally:
        hook.remove()
    return len(outputs) == 1 and isinstance(result, Tensor) and torch.equal(result, outputs[0])


CHUNK = 4096


def head_problem(target: Target, top: int = 1) -> HeadProblem:
    """The search for the weights of the last layer, with the features it stands on.

    Raises:
        UsageError: The network is of another kind.
    """
    model = target.build().to(torch.float64).eval()
    name = head_layer(target.build(), target.data)
    if name is None:
        raise UsageError(
            "a search for a head needs a network of which one linear layer without bias, the last "
            "one, is all that is learned; put the rest into Frozen, or use a NetworkJob"
        )
    seen: list[Tensor] = []
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = target.data.x.to(torch.float64) if target.data.x.is_floating_point() else target.data.x
    with torch.no_grad():
        for part in torch.split(x, CHUNK):
            model(part)
    hook.remove()
    return HeadProblem(
        features=torch.cat(seen),
        labels=target.data.y.long(),
        classes=layer.out_features,
        bits=head_bits,
        top=top,
        paid=target.paid,
        delta=target.delta,
    )


def head_bits(levels: Int[np.ndarray, "classes features"]) -> float:
    """Ideal length of the adaptive code, with a step of 1.

    Other coders of certificates are a percent or so shorter, but their lengths take far longer to
    compute; files are compared by their real length.
    """
    return sum(code_length(Grid(levels=levels, step=1.0)).values())


def head_file(target: Target, weights: Tensor, name: str) -> CompressedModel:
    """The network with these weights as a file."""
    model = target.build()
    (tensor,) = model.state_dict()
    grid = Grid(levels=as_levels(weights), step=1.0)
    model.load_state_dict({tensor: weights.to(model.state_dict()[tensor].dtype)})
    return pack(model, {tensor: grid}, coder=target.coder, about={"job": name})
