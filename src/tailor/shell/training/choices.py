"""Choices that ``tailor train`` offers as values: optimizers, balancing and early stopping."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tailor.numerics.powerlaw import MatrixFit, TailFit
from tailor.stages.balance import Assignment, TempBalance, layer_groups
from tailor.stages.train import Patience
from tailor.weights.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """``torch.optim.Adam``, whose documentation explains the fields."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def of(self, parameters: Any, lr: float) -> Optimizer:
        """The optimizer of parameters, or of groups of them.

        Raises:
            ValueError: A field is out of its range.
        """
        return torch.optim.Adam(parameters, lr=lr, **asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """``torch.optim.AdamW``, whose documentation explains the fields."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False

    def of(self, parameters: Any, lr: float) -> Optimizer:
        """See ``Adam.of``."""
        return torch.optim.AdamW(parameters, lr=lr, **asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """``torch.optim.SGD``, whose documentation explains the fields."""

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def of(self, parameters: Any, lr: float) -> Optimizer:
        """See ``Adam.of``."""
        return torch.optim.SGD(parameters, lr=lr, **asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The settings of ``TempBalance``, which explains them.

    Attributes:
        every: Optimizer steps from one update of the factors to the next.
        low: Factor of the layer with the least exponent.
        high: Factor of the layer with the largest.
        mapping: ``"linear"``, ``"sqrt"`` or ``"log"``.
        layers: Patterns of names.
        skip: Patterns of names to leave out all the same.
        spectrum: Fit of the eigenvalues.
        view: How a tensor becomes matrices.
    """

    every: int
    low: float = 0.5
    high: float = 1.5
    mapping: Assignment = "linear"
    layers: str | tuple[str, ...] | None = None
    skip: str | tuple[str, ...] = ()
    spectrum: TailFit | MatrixFit | None = None
    view: View | None = None

    def groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer."""
        return layer_groups(model, lr, layers=self.layers, skip=self.skip)

    def of(self, optimizer: Optimizer, model: nn.Module) -> TempBalance:
        """At work on an optimizer with such groups."""
        return TempBalance(
            optimizer,
            model,
            every=self.every,
            low=self.low,
            high=self.high,
            mapping=self.mapping,
            layers=self.layers,
            skip=self.skip,
            spectrum=self.spectrum,
            view=self.view,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPatience:
    """``Patience`` with the error on the held-out examples.

    Attributes:
        patience: Looks without a new least error after which training ends.
        every: Steps between two looks; None for an epoch.
        least: An error is new only if it is lower than the least one by more than this.
    """

    patience: int = 10
    every: int | None = None
    least: float = 0.0

    def __post_init__(self) -> None:
        self.of(lambda: 0.0, 1)  # refuses settings that make no sense

    def of(self, measure: Callable[[], float], epoch: int) -> Patience:
        """The rule, given what measures the error and how many steps make an epoch."""
        every = epoch if self.every is None else self.every
        return Patience(measure, patience=self.patience, every=every, least=self.least)
