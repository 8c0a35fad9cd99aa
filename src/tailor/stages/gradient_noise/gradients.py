"""Minibatch gradient noise: the gradients of single batches less their mean."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.func import functional_call

from tailor.errors import UsageError
from tailor.numerics.powerlaw import NoFit, PowerLawFit, TailFit
from tailor.numerics.stable import Koutrouvelis, StableEstimator, StableFit
from tailor.stages.gradient_noise.iterates import TAIL

Loss = Callable[[Tensor, Tensor], Tensor]

LIMIT = 1 << 22  # gradient entries held at once: the index of so many is exact to 0.002
LEAST_COORDINATES = 100  # of a tensor, however many batches there are


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFit:
    """The noise of one tensor's gradient, or of all.

    Attributes:
        name: Name of the parameter; empty for all together.
        parameters: Number of its entries.
        coordinates: How many of them were followed, drawn at random if not all.
        stable: The closest stable law to all residuals in one pool.
        scaled: The same after each coordinate's residuals were divided by their standard
            deviation over the batches, which takes mixing of scales away (and, with few batches,
            shortens tails too).
        tail: A power law fitted to the sizes of the largest residuals, with its own KS distance.
            Its ``alpha`` is a density exponent, so ``alpha - 1`` is comparable with an index.
    """

    name: str
    parameters: int
    coordinates: int
    stable: StableFit | NoFit
    scaled: StableFit | NoFit
    tail: PowerLawFit | NoFit


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """Minibatch gradient noise of a model at fixed weights.

    Attributes:
        batches: Number of minibatches P.
        whole: All parameters in one pool.
        layers: Each parameter tensor; empty if not asked for.
    """

    batches: int
    whole: NoiseFit
    layers: tuple[NoiseFit, ...]


def gradient_noise(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss,
    estimator: StableEstimator | None = None,
    tail: TailFit = TAIL,
    per_layer: bool = True,
    limit: int = LIMIT,
    seed: int = 0,
) -> GradientNoise:
    """Tail index of the noise of minibatch gradients, the weights held fixed.

    Residuals are the gradients of the single batches less their mean (Simsekli, Sagun &
    Gurbuzbalaban 2019, who pass over the whole training set in batches of equal size; the
    estimator ``LogMoment(blocks=(), orders=0, center=False)`` and no thinning reproduce theirs).
    The model is run in the mode it is in, and is left as it was: parameters, ``.grad``, mode,
    buffers such as running means, and the random state.

    Args:
        model: Any module; its parameters that require a gradient are followed.
        batches: Pairs of inputs and targets, at least two, on the model's device.
        loss: From outputs and targets to a scalar.
        estimator: Of the stable law; ``Koutrouvelis()`` if none is given.
        tail: Of the power law of the largest sizes.
        per_layer: Fit each tensor too.
        limit: Entries of gradients held at once, in all. Beyond it, randomly chosen coordinates
            are dropped by halves, down to 100 a tensor; records tell how many were followed.
        seed: For dropout and for the choice of coordinates.

    Raises:
        UsageError: There are fewer than two batches, or no parameter requires a gradient, or a
            gradient is not finite, or the limit is below 1.
    """
    if limit < 1:
        raise UsageError(f"limit must be at least 1, but is {limit}")
    traces = _traces(model, limit, seed)
    count = 0
    for x, y in batches:
        for trace, gradient in zip(traces, _gradients(model, x, y, loss, seed, count), strict=True):
            trace.add(gradient)
        count += 1
        _thin(traces, limit)
    if count < 2:
        raise UsageError(f"gradient noise needs at least 2 batches, but got {count}")
    chosen = estimator or Koutrouvelis()
    residuals = [trace.residuals() for trace in traces]
    _check_finite(traces, residuals)
    total = sum(trace.size for trace in traces)
    layers = zip(traces, residuals, strict=True) if per_layer else ()
    return GradientNoise(
        batches=count,
        whole=_noise_fit("", total, np.concatenate(residuals, axis=1), chosen, tail),
        layers=tuple(_noise_fit(t.name, t.size, rows, chosen, tail) for t, rows in layers),
    )


@dataclass(slots=True, kw_only=True)
class _Trace:
    """Gradients of one parameter at randomly chosen coordinates, batch after batch.

    Attributes:
        order: Followed coordinates in random order, so that a first part is a random choice too.
        rows: Their gradients, a batch a row, in that order.
    """

    name: str
    size: int
    order: Tensor
    rows: list[Float[ndarray, "coordinates"]] = field(default_factory=list)

    def add(self, gradient: Tensor) -> None:
        followed = gradient.flatten()[self.order.to(gradient.device)]
        self.rows.append(followed.to("cpu", torch.float32).numpy())

    def held(self) -> int:
        return len(self.rows) * len(self.order)

    def shorten(self) -> None:
        """Follow half of the coordinates from now on, but not fewer than 100."""
        keep = min(len(self.order), max(LEAST_COORDINATES, len(self.order) // 2))
        self.order = self.order[:keep]
        self.rows = [row[:keep].copy() for row in self.rows]

    def residuals(self) -> Float[ndarray, "batches coordinates"]:
        """Less their mean over the batches, coordinates in their own order."""
        rows = np.stack(self.rows)[:, np.argsort(self.order.numpy())].astype(np.float64)
        less_mean: ndarray = rows - rows.mean(axis=0)
        return less_mean


def _traces(model: nn.Module, limit: int, seed: int) -> list[_Trace]:
    """An empty trace for each parameter that requires a gradient."""
    sizes = {name: p.numel() for name, p in _parameters(model).items()}
    if not sizes:
        raise UsageError("no parameter of the model requires a gradient, so there is no noise")
    generator = np.random.default_rng(seed)
    total = sum(sizes.values())
    traces = []
    for name, size in sizes.items():
        keep = min(size, max(LEAST_COORDINATES, size * limit // total))
        order = torch.from_numpy(generator.choice(size, keep, replace=False))
        traces.append(_Trace(name=name, size=size, order=order))
    return traces


def _thin(traces: list[_Trace], limit: int) -> None:
    """Drop coordinates by halves until the limit holds or every tensor has the least."""
    while sum(trace.held() for trace in traces) > limit:
        before = sum(trace.held() for trace in traces)
        for trace in traces:
            trace.shorten()
        if sum(trace.held() for trace in traces) == before:
            return


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Those followed, by name: real and not empty."""
    named = model.named_parameters()
    return {n: p for n, p in named if p.requires_grad and p.is_floating_point() and p.numel()}


def _gradients(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, seed: int, number: int
) -> list[Tensor]:
    """Gradient of one batch, for each of ``_parameters``; nothing of the model changes.

    ``autograd.grad`` leaves ``.grad`` alone; the forward pass writes to copies of the buffers.
    """
    parameters = list(_parameters(model).values())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with _seeded(drawn, parameters), torch.enable_grad():
        value = loss(functional_call(model, buffers, (x,)), y)
        found = torch.autograd.grad(value, parameters, materialize_grads=True)
    return [gradient.detach() for gradient in found]


@contextlib.contextmanager
def _seeded(seed: int, tensors: list[Tensor]) -> Iterator[None]:
    """Seed the devices in use for a while, and give all generators their state back."""
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _check_finite(traces: list[_Trace], residuals: list[ndarray]) -> None:
    for trace, rows in zip(traces, residuals, strict=True):
        if not np.isfinite(rows).all():
            raise UsageError(
                f"a gradient of {trace.name!r} is NaN or infinite; check the batches and the loss"
            )


def _noise_fit(
    name: str,
    parameters: int,
    rows: Float[ndarray, "batches coordinates"],
    estimator: StableEstimator,
    tail: TailFit,
) -> NoiseFit:
    """All fits to residuals, a batch a row."""
    spread = rows.std(axis=0)
    moving = spread > 0  # the coordinates that have any noise
    pool = rows.ravel()
    return NoiseFit(
        name=name,
        parameters=parameters,
        coordinates=rows.shape[1],
        stable=estimator.fit(pool),
        scaled=estimator.fit((rows[:, moving] / spread[moving]).ravel()),
        tail=tail.fit(np.abs(pool)),
    )
