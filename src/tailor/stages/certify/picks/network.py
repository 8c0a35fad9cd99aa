"""A network that learns from picks by gradient steps, and becomes sparse on the way."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailor.errors import UsageError
from tailor.stages.allocate import LAMP, Allocation
from tailor.stages.certify.picks.learner import Learner
from tailor.stages.certify.picks.warp import Warp
from tailor.stages.compress import Adaptive, CompressedModel, Quantizer, UniformStep, pack
from tailor.stages.compress.held import matrices, write_back
from tailor.stages.prune import Masks, hold, prune
from tailor.tasks import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLearner(Learner):
    """AdamW on warped copies of the picks, some steps a round; pruned as the picks grow.

    The running network's scores are those of an exponential average of its weights. Between
    ``thin_from`` and ``thin_to`` picks the share of zeros rises as a cubic does (Zhu & Gupta
    2018), so that the later picks are examples that the sparse network needs. The last stage
    trains with a falling rate, quantises and codes.

    Attributes:
        build: Makes the network; its matrices are pruned and quantised, the rest is stored as
            it is.
        prior: A file to start from, learnt without the sample; its zeros stay zero, and a
            ``density`` below 1 prunes it further. None starts from the weights that ``build``
            draws.
        beside: Examples that are not of the sample, such as those that the prior has learnt from;
            they are learnt along with the picks.
        share: Of each batch that comes from them.
        density: Share of the matrices' weights that may differ from zero at the end.
        thin_from: Number of picks at which pruning begins.
        thin_to: Number of picks at which it has come to ``density``.
        allocation: How many entries each matrix loses.
        first_steps: Steps in the first round.
        steps: Steps in every other round.
        last_steps: Steps of the last stage.
        batch: Examples a step, drawn with replacement.
        rate: Step size of AdamW.
        decay: Weight decay of AdamW.
        average: Decay of the average of the weights, a step.
        smoothing: Of the labels.
        warp: How copies differ from the picks, if at all.
        quantizer: The values of the matrices in the file.
        seed: Of weights, batches and warps.
    """

    build: Callable[[], nn.Module]
    prior: CompressedModel | None = field(default=None, repr=False)
    beside: Data | None = field(default=None, repr=False)
    share: float = 0.5
    density: float = 1.0
    thin_from: int = 0
    thin_to: int = 0
    allocation: Allocation = field(default_factory=LAMP)
    first_steps: int = 100
    steps: int = 25
    last_steps: int = 200
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-2
    average: float = 0.98
    smoothing: float = 0.0
    warp: Warp | None = None
    quantizer: Quantizer = field(default_factory=lambda: UniformStep(tolerance=1e-3))
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise UsageError(f"density must lie in (0, 1], but is {self.density}")
        if not 0 <= self.thin_from <= self.thin_to:
            raise UsageError(
                "thin_from must not be above thin_to, nor below 0, but they are "
                f"{self.thin_from} and {self.thin_to}"
            )

    def start(self) -> nn.Module:
        """See ``Learner.start``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.build() if self.prior is None else self.prior.into(self.build)
        return _Running(model, self)

    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        """See ``Learner.update``."""
        assert isinstance(model, _Running)
        self._thin(model.raw, len(picked))
        steps = self.first_steps if round == 1 else self.steps
        self._fit(model, picked, steps, key=round, last=False)
        return model

    def finish(self, model: nn.Module, picked: Data) -> CompressedModel:
        """See ``Learner.finish``."""
        assert isinstance(model, _Running)
        done = _Running(model.mean, self)
        self._thin(done.raw, max(len(picked), self.thin_to))
        if len(picked):
            self._fit(done, picked, self.last_steps, key=-len(picked), last=True)
        final = done.raw
        fitted = {name: self.quantizer.fit(w) for name, w in matrices(final).items()}
        write_back(final, {name: fitted[name].round(w) for name, w in matrices(final).items()})
        coded = {name: fitted[name].code(w) for name, w in matrices(final).items()}
        return pack(final, coded, coder=Adaptive())

    def _thin(self, model: nn.Module, picks: int) -> None:
        """Prune to what is due at so many picks."""
        if self.density == 1 or picks < self.thin_from:
            return
        span = max(1, self.thin_to - self.thin_from)
        left = max(0.0, 1 - (picks - self.thin_from) / span) if picks < self.thin_to else 0.0
        sparsity = (1 - self.density) * (1 - left**3)
        if sparsity > Masks.of(model).sparsity:
            prune(model, sparsity, allocation=self.allocation, inplace=True)

    def _fit(self, model: "_Running", picked: Data, steps: int, *, key: int, last: bool) -> None:
        """Take gradient steps on warped copies of the picks, zeros held."""
        draws = torch.Generator().manual_seed(1_000_003 * self.seed + 2**40 + key)
        optimizer, masks = model.optimizer, Masks.of(model.raw)
        model.raw.train()
        with hold(model.raw, optimizer, masks) if masks.sparsity else nullcontext():
            for step in range(steps):
                fall = (1 + math.cos(math.pi * step / steps)) / 2 if last else 1.0
                optimizer.param_groups[0]["lr"] = self.rate * fall
                x, y = self._batch(picked, draws)
                optimizer.zero_grad()
                scores = model.raw(x)
                loss = functional.cross_entropy(scores, y, label_smoothing=self.smoothing)
                torch.autograd.backward(loss)
                optimizer.step()
                model.follow(self.average)
        model.mask(masks)

    def _batch(self, picked: Data, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Warped copies of some picks, and of examples beside them."""
        other = 0 if self.beside is None else round(self.share * self.batch)
        at = torch.randint(len(picked), (self.batch - other,), generator=draws)
        x, y = picked.x[at], picked.y[at]
        if self.beside is not None:
            at = torch.randint(len(self.beside), (other,), generator=draws)
            x, y = torch.cat([x, self.beside.x[at]]), torch.cat([y, self.beside.y[at]])
        return (x if self.warp is None else self.warp(x, draws)), y.long()


class _Running(nn.Module):
    """The network that is trained, its average, which is the one that is asked, and AdamW."""

    def __init__(self, model: nn.Module, learner: NetworkLearner) -> None:
        super().__init__()
        self.raw, self.mean = copy.deepcopy(model), copy.deepcopy(model)
        self.optimizer = torch.optim.AdamW(
            self.raw.parameters(), lr=learner.rate, weight_decay=learner.decay
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.mean(x)
        return scores

    @torch.no_grad()
    def follow(self, average: float) -> None:
        """Move the average towards the weights."""
        for mean, raw in zip(self.mean.parameters(), self.raw.parameters(), strict=True):
            mean.lerp_(raw, 1 - average)

    @torch.no_grad()
    def mask(self, masks: Masks) -> None:
        """What is pruned is zero in the average, too."""
        weights = dict(self.mean.named_parameters())
        for name, keep in masks.items():
            weights[name].mul_(keep)
