"""One optimizer step: forward, backward, a look at the numbers, and only then the weights move."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.regularize import Regularizer
from tailor.stages.targets import as_dtensor
from tailor.stages.train.batches import Pair, count
from tailor.stages.train.precision import Precise
from tailor.stages.train.processes import gathering, inner
from tailor.stages.train.tails import LayerTail

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
LEAST_SCALE = 1.0  # a gradient that is not finite even at this scale of the loss will never be


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step.

    Attributes:
        number: Counted from 1, also over the parts of a run that was resumed.
        loss: Mean loss over the examples of the step, without penalties; of this process.
        penalty: Sum of the penalties that were added; 0 where they act apart from the loss.
        gradient_norm: Euclidean norm of the whole gradient, before it was clipped; None where
            it overflowed and the step was skipped.
        lr: Learning rate that the step was taken with, of the first parameter group; None where
            the optimizer has none.
        skipped: Whether the weights stayed, since a float16 gradient overflowed.
        layers: Spectrum of every layer after the step, where a ``Monitor`` looked; else empty.
        stopped: Why training ends with this step, where a stop rule says so.
    """

    number: int
    loss: float
    penalty: float
    gradient_norm: float | None
    lr: float | None
    skipped: bool = False
    layers: tuple[LayerTail, ...] = ()
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a step came to; see ``Step``."""

    loss: float
    penalty: float
    gradient_norm: float | None
    skipped: bool


class Mover:
    """Takes optimizer steps.

    Args:
        model: What is trained.
        loss: From outputs and targets to a scalar, the mean over the examples.
        optimizer: What moves the weights.
        term: The penalties to add to the loss, or None.
        precise: In which precision the forward pass is.
        compiled: Whether forward pass and loss are compiled.
        clip_norm: Longest gradient, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        term: Regularizer | None,
        precise: Precise,
        *,
        compiled: bool,
        clip_norm: float | None,
    ) -> None:
        def forward(x: Any, y: Any) -> Tensor:
            return loss(model(x), y)

        self._forward = torch.compile(forward) if compiled else forward
        self._model, self._optimizer, self._term = model, optimizer, term
        self._precise, self._clip_norm = precise, clip_norm

    def move(self, number: int, group: Sequence[Pair]) -> Moved:
        """Take step ``number`` on the batches of its group.

        Raises:
            UsageError: Loss, penalty or gradient is not finite; the weights are as before.
        """
        self._optimizer.zero_grad()
        loss, term = self._backward(group)
        self._precise.unscale(self._optimizer)
        held = [p for one in self._optimizer.param_groups for p in one["params"]]
        gradients = [p.grad for p in held if p.grad is not None]
        numbers = [loss] if term is None else [loss, term.detach()]
        numbers = [one.to(loss.device) for one in (*numbers, *norms(gradients))]
        said = torch.stack(numbers).tolist()  # the only wait for the device
        value, penalty = said[0], 0.0 if term is None else said[1]
        norm = math.hypot(*said[1 if term is None else 2 :])
        moves = self._may_move(number, value, penalty, norm)
        if moves:
            self._clip(gradients, norm)
            self._optimizer.step()
        self._precise.update()
        return Moved(
            loss=value, penalty=penalty, gradient_norm=norm if moves else None, skipped=not moves
        )

    def _backward(self, group: Sequence[Pair]) -> tuple[Tensor, Tensor | None]:
        """Gradients of the mean loss over all examples of the group, and of the penalties."""
        counts = [count(batch) for batch in group]
        losses: list[Tensor] = []
        penalty: Tensor | None = None
        for i, (x, y) in enumerate(group):
            last = i == len(group) - 1
            if last and self._term is not None:
                penalty = self._term()  # before the forward pass, which gathers sharded weights
            with gathering(self._model, last):
                with self._precise.forward():
                    value = self._forward(x, y)
                if value.ndim > 0:
                    raise UsageError(
                        f"the loss must be a scalar, but has shape {tuple(value.shape)}; take the "
                        "mean over the examples"
                    )
                if len(group) > 1:
                    value = value * (counts[i] / sum(counts))
                losses.append(value.detach())
                total = value if penalty is None else value + penalty
                self._precise.scale(total).backward()  # type: ignore[no-untyped-call]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(), penalty

    def _may_move(self, number: int, loss: float, penalty: float, norm: float) -> bool:
        for what, value in (("loss", loss), ("penalty", penalty)):
            if not math.isfinite(value):
                raise UsageError(
                    f"the {what} became {value} at step {number}; lower the learning rate"
                )
        if math.isfinite(norm):
            return True
        if self._precise.scale_now() <= LEAST_SCALE:
            raise UsageError(
                f"the gradient of {self._broken()} is not finite at step {number}, though the loss "
                "is; lower the learning rate or set clip_norm"
            )
        return False

    def _broken(self) -> str:
        """The first parameter with a gradient that is not finite."""
        for name, parameter in inner(self._model).named_parameters():
            if parameter.grad is not None and not bool(norms([parameter.grad])[0].isfinite()):
                return name
        return "a parameter"

    def _clip(self, gradients: Sequence[Tensor], norm: float) -> None:
        if self._clip_norm is not None and norm > self._clip_norm:
            torch._foreach_mul_(list(gradients), self._clip_norm / norm)


def norms(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """Norms of gradients, each over all processes that hold parts of it."""
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    spread = [g for g in dense if as_dtensor(g) is not None]
    if not spread:
        return torch._foreach_norm(dense) if dense else ()
    whole = as_dtensor(torch.nn.utils.get_total_norm(spread)).full_tensor()
    return [whole, *norms([g for g in dense if as_dtensor(g) is None])]
