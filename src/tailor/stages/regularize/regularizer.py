"""``Regularizer``: penalties on one model, with what they remember from step to step."""

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.acting import closure_first, group_of, groups_of, unless_skipped
from tailor.stages.regularize.matrix import LiveMatrix, Memory
from tailor.stages.regularize.penalty import Penalty, Pull
from tailor.stages.targets import as_dtensor, fitting, in_place, overwrite, spread_as, whole
from tailor.weights.layer import Layer
from tailor.weights.source import read
from tailor.weights.views import Flattened, View

LARGEST_STEP = 0.1  # a decoupled step changes a matrix by this share of its norm at most

State: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPull:
    """What one penalty last did to one matrix.

    Attributes:
        layer: Name of the weight, and of the part of it where a view makes several.
        penalty: The penalty's class.
        value: Its value, without weight.
        active: Whether it pulled, or slept below its threshold.
        capped: At how many steps the decoupled update was shortened to a tenth of the matrix.
    """

    layer: str
    penalty: str
    value: float
    active: bool
    capped: int


class Regularizer:
    """Penalties on one model; singular vectors are followed from step to step.

    ``loss + regularizer()`` adds their term; ``regularizer.attach(optimizer)`` acts in each step
    of the optimizer instead, apart from the loss. Gradients are closed forms; nothing is
    differentiated through a decomposition. Everything is computed in float32 or wider with
    autocast off. Processes that hold the same weights compute the same term: it must not be
    reduced over them. A weight spread by ``fully_shard`` is gathered, one at a time.

    Args:
        model: Any module with weights that ``read`` finds.
        penalties: What to apply; all act on every weight that fits their patterns.
        view: How weights become matrices. A transposed convolution has its outputs on the
            second axis, which the default knows.

    Raises:
        UsageError: No weight fits a penalty, or all that fit are too small for it.
    """

    def __init__(
        self, model: nn.Module, penalties: Sequence[Penalty], *, view: View | None = None
    ) -> None:
        if not penalties:
            raise UsageError("a regularizer needs at least one penalty")
        self.penalties, self.step = tuple(penalties), 0
        self._model, self._view = weakref.ref(model), view
        self._solver: dict[str, Memory] = {}
        self._memory: dict[str, Memory] = {}
        self._last: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        self._capped: dict[tuple[int, str], Tensor] = {}
        self.skipped: dict[str, str] = {}
        self._acting = self._plan(model)
        self._fixed = [(one.name, one.kind, one.load()) for one in self._layers(model)]
        for name, _, weight in self._fixed:
            if isinstance(weight, nn.Parameter) and not weight.requires_grad:
                raise UsageError(
                    f"a penalty would act on {name}, which is frozen (requires_grad is False); "
                    f"leave it out with skip=({name!r},)"
                )
        if not all(isinstance(weight, nn.Parameter) for _, _, weight in self._fixed):
            self._fixed = []  # a parametrization makes a new tensor at each step

    def _plan(self, model: nn.Module) -> dict[str, dict[int, float]]:
        """For each weight the penalties that act on it, with their factors for it."""
        acting: dict[str, dict[int, float]] = {}
        for index, penalty in enumerate(self.penalties):
            who, fits = type(penalty).__name__, 0
            for layer in fitting(model, penalty.layers, penalty.skip, who=who):
                reason = penalty.why_not(_sides(layer.shape))
                if reason is not None:
                    self.skipped[f"{who} {layer.name}"] = reason
                    continue
                fits += 1
                acting.setdefault(layer.name, {})[index] = _factor(penalty, layer.name)
            if not fits:
                raise UsageError(f"{who} finds no matrix large enough: each has {reason}")
        return acting

    # As a term of the loss

    def __call__(self) -> Float[Tensor, ""]:
        """The term to add to the loss; one call for each optimizer step.

        Without gradients (``torch.no_grad``) it is only looked at: no step is counted.
        """
        terms = [self._term(*found) for found in self._weights()]
        if torch.is_grad_enabled():
            self.step += 1
        return sum((one for one in terms if one is not None), start=torch.zeros(()))

    def _term(self, name: str, kind: str, weight: Tensor) -> Float[Tensor, ""] | None:
        factors = self._factors(name)
        if not factors:
            return None
        value: Tensor = _Term.apply(weight, self, name, kind, factors)  # type: ignore[no-untyped-call]
        return value

    # Apart from the loss

    def attach(self, optimizer: torch.optim.Optimizer) -> Any:
        """Act before each step of an optimizer: W <- W - lr x weight x gradient of the penalty.

        lr is that of the weight's parameter group at that step. A step that moves a matrix by
        more than a tenth of its norm is shortened, which ``report`` counts. Group and L1
        penalties act as proximal steps. A step that gradient scaling (AMP) skips is skipped here
        too.

        Returns:
            A handle; its ``remove`` ends it.

        Raises:
            UsageError: The optimizer lacks a weight, or holds one twice; a weight is of half
                precision or computed by a parametrization.
        """
        groups = groups_of(optimizer)
        for name, _, weight in self._weights():
            parameter = in_place(name, weight, who="a decoupled penalty")
            group_of(name, parameter, groups, why="on which a penalty acts")

        def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
            changed = closure_first(optimizer, args, kwargs)
            self._decay(optimizer)
            return changed

        return optimizer.register_step_pre_hook(before_step)

    @torch.no_grad()
    def _decay(self, optimizer: torch.optim.Optimizer) -> None:
        groups = groups_of(optimizer)  # anew: load_state_dict replaces them
        for name, kind, weight in self._weights():
            factors = self._factors(name)
            group = groups.get(id(weight))
            if not factors or group is None:
                continue
            rate = unless_skipped(optimizer, group["lr"])
            if isinstance(rate, Tensor):
                rate = rate.to(weight.device, non_blocking=True)
            full = whole(weight)
            with torch.autocast(full.device.type, enabled=False):
                self._shrink(name, kind, full, factors, rate)
            if as_dtensor(weight) is not None:
                overwrite(weight, full)
        self.step += 1

    def _shrink(
        self,
        name: str,
        kind: str,
        full: Tensor,
        factors: Mapping[int, float],
        rate: float | Tensor,
    ) -> None:
        """Move a weight in place, whatever its view."""
        parts = list(self._matrices(name, kind, full))
        pulls = [(matrix, list(self._pulls(matrix, factors))) for matrix in parts]
        for matrix, found in pulls:
            shared = matrix.W.untyped_storage().data_ptr() == full.untyped_storage().data_ptr()
            W = matrix.W if shared else matrix.W.clone()
            for index, pull in found:
                self._apply(W, pull, rate, factors[index], (index, matrix.name))
            if W is not matrix.W:
                full.add_(self._back(name, kind, full, matrix.name, W - matrix.W))

    def _apply(
        self,
        W: Tensor,
        pull: Pull,
        rate: float | Tensor,
        factor: float,
        key: tuple[int, str],
    ) -> None:
        amount = rate * factor
        if pull.norm is not None:
            longest = LARGEST_STEP * torch.linalg.vector_norm(W)
            length = amount * pull.norm
            over = length > longest
            self._capped[key] = self._capped.get(key, torch.zeros_like(length)) + over
            tiny = torch.finfo(length.dtype).tiny
            amount = amount * torch.where(over, longest / length.clamp(min=tiny), 1.0)
        if isinstance(pull.scale, Tensor):
            W.mul_((1 - amount * pull.scale).clamp(min=0))
        elif pull.scale:
            W.mul_(1 - amount * pull.scale)
        if pull.left is not None and pull.right is not None:
            right = pull.right.clone() if pull.right is W else pull.right
            W.addmm_(-amount * pull.left, right)

    # What both share

    def _weights(self) -> Iterator[tuple[str, str, Tensor]]:
        """Name, kind and live tensor of each weight that a penalty acts on."""
        if self._fixed:
            yield from self._fixed
            return
        model = self._model()
        if model is None:
            raise UsageError("the model of this regularizer is gone; keep a reference to it")
        for layer in self._layers(model):
            yield layer.name, layer.kind, layer.load()

    def _layers(self, model: nn.Module) -> list[Layer]:
        return [one for one in read(model).layers if one.name in self._acting]

    def _factors(self, name: str) -> dict[int, float]:
        """Weight x schedule x factor of the layer, for the penalties that act at this step."""
        found = {}
        for index, own in self._acting[name].items():
            penalty = self.penalties[index]
            if self.step % penalty.every:
                continue
            factor = penalty.weight * penalty.every * penalty.schedule(self.step) * own
            if factor:
                found[index] = factor
        return found

    def _matrices(self, name: str, kind: str, weight: Tensor) -> Iterator[LiveMatrix]:
        for key, W in self._split(name, kind, weight.detach()):
            wide = W if W.dtype in (torch.float32, torch.float64) else W.float()
            yield LiveMatrix(key, wide, self._solver.setdefault(key, {}))

    def _split(self, name: str, kind: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The matrices of a weight with their names, attached to it."""
        for part in self._view_of(kind).split(name, weight):
            for place, W in enumerate(part.stack):
                yield name + part.label + (f"#{place}" if len(part.stack) > 1 else ""), W

    def _view_of(self, kind: str) -> View:
        if self._view is not None:
            return self._view
        return Flattened(outputs=1 if kind.startswith("transposed") else 0)

    def _pulls(
        self, matrix: LiveMatrix, factors: Mapping[int, float]
    ) -> Iterator[tuple[int, Pull]]:
        for index in factors:
            matrix.memory = self._memory.setdefault(f"{index} {matrix.name}", {})
            pull = self.penalties[index].pull(matrix)
            active = torch.ones_like(pull.value) if pull.norm is None else pull.norm
            self._last[index, matrix.name] = (pull.value, active)
            yield index, pull

    def _back(self, name: str, kind: str, weight: Tensor, key: str, change: Tensor) -> Tensor:
        """What a change of one of its matrices means for a weight: the view's adjoint."""
        with torch.enable_grad():
            leaf = weight.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(dict(self._split(name, kind, leaf))[key], leaf, change)
            return found

    # State

    def state_dict(self) -> State:
        """Step, followed vectors and memories; for a checkpoint."""
        return {
            "step": self.step,
            "penalties": [str(one) for one in self.penalties],
            "solver": {key: dict(one) for key, one in self._solver.items()},
            "memory": {key: dict(one) for key, one in self._memory.items() if one},
            "capped": {f"{i} {key}": one for (i, key), one in self._capped.items()},
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``.

        Raises:
            UsageError: The state is of other penalties.
        """
        mine = [str(one) for one in self.penalties]
        if state.get("penalties") != mine:
            raise UsageError(
                f"the state is of the penalties {state.get('penalties')}, but this regularizer has "
                f"{mine}; make it with the same ones"
            )
        self.step = int(state["step"])
        self._solver = {key: dict(one) for key, one in state["solver"].items()}
        self._memory = {key: dict(one) for key, one in state["memory"].items()}
        self._capped = {}
        for key, count in state["capped"].items():
            index, _, name = key.partition(" ")
            self._capped[int(index), name] = count

    def report(self) -> tuple[LayerPull, ...]:
        """What each penalty did to each matrix the last time that it acted."""
        return tuple(
            LayerPull(
                layer=name,
                penalty=type(self.penalties[index]).__name__,
                value=float(value),
                active=bool(norm > 0),
                capped=int(self._capped.get((index, name), 0)),
            )
            for (index, name), (value, norm) in self._last.items()
        )


class _Term(torch.autograd.Function):
    """The weighted penalties of one weight, with their closed gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        regularizer: Regularizer,
        name: str,
        kind: str,
        factors: Mapping[int, float],
    ) -> Tensor:
        """The sum over the weight's matrices of weight x value."""
        full = whole(weight)
        total, ctx.pulls = torch.zeros((), device=full.device), []
        with torch.autocast(full.device.type, enabled=False):
            for matrix in regularizer._matrices(name, kind, full):
                for index, pull in regularizer._pulls(matrix, factors):
                    total = total + factors[index] * pull.value
                    ctx.pulls.append((matrix, factors[index], pull))
        ctx.save_for_backward(weight)
        ctx.regularizer, ctx.name, ctx.kind = regularizer, name, kind
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient by the weight, spread as the weight is."""
        (weight,) = ctx.saved_tensors
        gradient: Tensor | None = None
        for matrix, factor, pull in ctx.pulls:
            G = pull.gradient(matrix.W) * (factor * upstream[0].to(matrix.W.dtype))
            if ctx.regularizer._view_of(ctx.kind) == Flattened():
                found = G.reshape(weight.shape)
            else:
                found = ctx.regularizer._back(ctx.name, ctx.kind, whole(weight), matrix.name, G)
            gradient = found if gradient is None else gradient + found
        if gradient is not None:
            gradient = spread_as(weight, gradient.to(weight.dtype))
        return gradient, None, None, None, None


def _factor(penalty: Penalty, name: str) -> float:
    fits = (own for pattern, own in penalty.per_layer.items() if fnmatchcase(name, pattern))
    return next(fits, 1.0)


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
