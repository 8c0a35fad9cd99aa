"""Training as a generator: the body of the caller's loop is the callback."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.regularize import Penalty
from tailor.tasks import Data
from tailor.weights.source import read
from tailor.weights.views import Flattened

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step.

    Attributes:
        number: Counted from 1.
        loss: Loss on the batch, without penalties.
        penalty: Sum of the penalties.
    """

    number: int
    loss: float
    penalty: float


def batches(
    data: Data, *, size: int, epochs: int, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled minibatches; each epoch sees every example once.

    Raises:
        UsageError: ``size`` or ``epochs`` is below 1.
    """
    if size < 1 or epochs < 1:
        raise UsageError(f"size and epochs must be at least 1, but are {size} and {epochs}")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data), size):
            chosen = order[start : start + size]
            yield data.x[chosen], data.y[chosen]


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    penalties: Sequence[Penalty] = (),
    seed: int = 0,
) -> Iterator[Step]:
    """Train ``model`` in place, one step each time the caller asks for the next.

    Args:
        model: Any module; left in training mode.
        batches: Pairs of inputs and targets; training ends when they do.
        loss: From outputs and targets to a scalar.
        optimizer: Over the model's parameters.
        penalties: Terms added to the loss, over all matrices of the model.
        seed: For dropout and the like; the caller's random state is left as it was found.

    Yields:
        A record of each step, after the parameters have moved.

    Raises:
        UsageError: The loss is not finite, which names the step.
    """
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ours = torch.get_rng_state()
    for number, (x, y) in enumerate(batches, start=1):
        theirs = torch.get_rng_state()
        torch.set_rng_state(ours)
        value = loss(model(x), y)
        total = value
        if penalties:
            matrices = live_matrices(model)
            total = value + torch.stack([p(matrices) for p in penalties]).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ours = torch.get_rng_state()
        torch.set_rng_state(theirs)
        if not torch.isfinite(total):
            raise UsageError(
                f"the loss became {total.item()} at step {number}; lower the learning rate"
            )
        yield Step(number=number, loss=value.item(), penalty=(total - value).item())


def live_matrices(model: nn.Module) -> list[Tensor]:
    """The model's matrices as its forward pass uses them, attached to the graph."""
    view = Flattened()
    return [view.split(layer.name, layer.load())[0].stack[0] for layer in read(model).layers]
