"""What a penalty is: a value that gives, for one matrix, its size and its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.regularize.matrix import LiveMatrix
from tailor.stages.schedule import Constant, Schedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pull:
    """A penalty's value on a matrix W and its gradient G = scale * W + left @ right.

    Every penalty on singular values has this form: with W = U diag(s) V', a function of s and
    of the squared Frobenius norm has the gradient a W + U diag(c) V'.

    Attributes:
        value: The penalty, without its weight.
        scale: A number, or a tensor that broadcasts against W.
        left: First factor; None for none.
        right: Second factor.
        norm: Frobenius norm of G where it costs nothing to know.
    """

    value: Float[Tensor, ""]
    scale: float | Float[Tensor, "..."] = 0.0
    left: Float[Tensor, "rows rank"] | None = None
    right: Float[Tensor, "rank columns"] | None = None
    norm: Float[Tensor, ""] | None = None

    def gradient(self, W: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """G, as a matrix of its own."""
        scaled = W * self.scale
        if self.left is None or self.right is None:
            return scaled
        return torch.addmm(scaled, self.left, self.right)

    def times(self, factor: Float[Tensor, ""]) -> "Pull":
        """The gradient of a function of the value, whose derivative is ``factor``."""
        return Pull(
            value=self.value,
            scale=self.scale * factor,
            left=None if self.left is None else self.left * factor,
            right=self.right,
            norm=None if self.norm is None else self.norm * factor.abs(),
        )

    def beyond(self, threshold: float | Float[Tensor, ""] | None) -> "Pull":
        """max(value - threshold, 0): the penalty sleeps where it is not above the threshold."""
        if threshold is None:
            return self
        excess = self.value - threshold
        awake = self.times((excess > 0).to(self.value.dtype))
        return Pull(
            value=excess.clamp(min=0),
            scale=awake.scale,
            left=awake.left,
            right=awake.right,
            norm=awake.norm,
        )

    @classmethod
    def by_autograd(
        cls, function: Callable[[Tensor], Tensor], W: Float[Tensor, "rows columns"]
    ) -> "Pull":
        """The pull of any differentiable function of the matrix, for penalties of your own."""
        with torch.enable_grad():
            leaf = W.detach().clone().requires_grad_()
            value = function(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        eye = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        return cls(value=value.detach(), left=gradient, right=eye)


class Bindings:
    """The regularizers that a penalty has made, by model; no part of its value."""

    def __init__(self) -> None:
        self.by_model: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[object, ...]:
        """A copy begins empty."""
        return Bindings, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Bindings":
        """A copy begins empty."""
        return Bindings()


@dataclass(frozen=True, slots=True)
class Penalty(ABC):
    """A term that pulls the matrices of a model somewhere, summed over them.

    A penalty acts in one of three ways: ``loss + penalty(model)``; decoupled from the loss, as
    weight decay in AdamW, by ``penalty.attach(model, optimizer)``; or in ``train(penalties=...)``.

    Attributes:
        weight: Coefficient of the term; 0 switches it off. The term is a sum over layers, so
            deeper networks need a smaller one.
        layers: Patterns of names it acts on, as in a shell.
        skip: Patterns of names that it leaves alone all the same.
        per_layer: Further factors by pattern of names; the first that fits counts.
        schedule: Factor over the steps, such as ``PowerDecay(period=...)``.
        every: Act at every so many steps only, with so many times the weight (lazy
            regularization, Karras et al. 2020, section 3.1), where it is dear.
    """

    weight: float
    layers: str | tuple[str, ...] = field(default="*", kw_only=True)
    skip: str | tuple[str, ...] = field(default=(), kw_only=True)
    per_layer: dict[str, float] = field(default_factory=dict, kw_only=True)
    schedule: Schedule = field(default_factory=Constant, kw_only=True)
    every: int = field(default=1, kw_only=True)
    _bound: Bindings = field(default_factory=Bindings, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        who = type(self).__name__
        for one in (self.weight, *self.per_layer.values()):
            if not 0 <= one < float("inf"):
                raise UsageError(
                    f"{who} needs weights of 0 or more, but got {one}; a negative one would push "
                    "the wrong way"
                )
        if self.every < 1:
            raise UsageError(f"{who} needs every >= 1, but got {self.every}")
        self.check()

    def check(self) -> None:
        """Refuse fields that make no sense; for subclasses.

        Raises:
            UsageError: A field is out of its range.
        """
        return

    @abstractmethod
    def pull(self, matrix: LiveMatrix) -> Pull:
        """Value and gradient on one matrix, without the weight; never NaN."""

    def why_not(self, shape: tuple[int, int]) -> str | None:
        """Why a matrix of this shape is left alone; None if it is not."""
        return None

    def on(self, model: nn.Module) -> Any:
        """The ``Regularizer`` of this penalty alone on a model: the same at every call."""
        from tailor.stages.regularize.regularizer import Regularizer

        bound = self._bound.by_model
        if model not in bound:
            bound[model] = Regularizer(model, [self])
        return bound[model]

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        """The term to add to the loss; call it once for each optimizer step."""
        term: Tensor = self.on(model)()
        return term

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """Act in every step of the optimizer instead of through the loss; see ``Regularizer``."""
        return self.on(model).attach(optimizer)
