"""Round a growing share of the weights, hold them, and let the rest make up for it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrize

from tailor.errors import NonFinite, UsageError
from tailor.stages.compress import Quantizer, Train
from tailor.stages.compress.held import matrices, retrain_held, write_back
from tailor.stages.compress.quantize import Fitted

ROUNDS = (0.25, 0.5, 0.7, 0.82, 0.9, 0.95, 0.98, 1.0)  # tuned by us, on 10,000 images of digits

Places = dict[str, Bool[Tensor, "..."]]


def round_in_rounds(
    model: nn.Module, quantizer: Quantizer, retrain: Train, shares: Sequence[float]
) -> dict[str, Fitted]:
    """Put all matrices on their grids, in place; zeros stay zero, and more may come.

    In each round the weights closest to their grid points, in units of their layer's root mean
    square and over all layers together, are put there and held; then the rest is retrained.
    """
    check_shares(shares)
    weights = matrices(model)
    fitted = {key: quantizer.fit(w) for key, w in weights.items()}
    sizes = {key: _size(w) for key, w in weights.items()}
    held: Places = {key: w == 0 for key, w in weights.items()}
    free = sum(int((~h).sum()) for h in held.values())
    zeros = sum(int(h.sum()) for h in held.values())
    for share in shares:
        weights = matrices(model)
        targets = {key: fitted[key].round(w) for key, w in weights.items()}
        far = {key: (targets[key] - w).abs().double() / sizes[key] for key, w in weights.items()}
        held = _closest(far, held, zeros + round(share * free))
        write_back(model, {k: torch.where(held[k], targets[k], w) for k, w in weights.items()})
        if share < 1:
            retrain_held(model, held, retrain)
    return fitted


def retrain_rounded(
    model: nn.Module, fitted: Mapping[str, Fitted], zeros: Places, retrain: Train
) -> None:
    """Train through the rounding: straight-through gradients (Bengio et al. 2013), in place.

    The network computes with rounded weights, the gradient moves hidden ones, and at the end the
    rounded weights stay. The given zeros stay zero.
    """
    parts = {name: _owner(model, name) for name in fitted}
    orders = {part: list(part._parameters) for part, _ in parts.values()}
    for name, (part, attribute) in parts.items():
        way = _Through(fitted[name], zeros[name])
        parametrize.register_parametrization(part, attribute, way)
    try:
        retrain(model)
    finally:
        for part, attribute in parts.values():
            parametrize.remove_parametrizations(part, attribute, leave_parametrized=True)
            for key in orders[part]:  # removal put the weight behind the bias
                part._parameters[key] = part._parameters.pop(key)
    matrices(model, "retraining made them so; lower its learning rate")


def check_shares(shares: Sequence[float]) -> None:
    """Refuse shares that do not rise to 1."""
    rising = all(a < b for a, b in itertools.pairwise(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] != 1:
        raise UsageError(
            f"shares must rise from above 0 to 1, the share of weights that are rounded after "
            f"each round, but are {tuple(shares)}"
        )


class _Rounding(Function):
    """The rounded values forwards, the identity backwards."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Through(nn.Module):
    """A parametrization that rounds."""

    def __init__(self, fitted: Fitted, zeros: Bool[Tensor, "..."]) -> None:
        super().__init__()
        self.fitted = fitted
        self.register_buffer("zeros", zeros)

    def forward(self, weight: Tensor) -> Tensor:
        if not bool(torch.isfinite(weight).all()):
            raise NonFinite("training made weights NaN or infinite; lower its learning rate")
        rounded: Tensor = _Rounding.apply(weight, self.fitted.round(weight.detach()))  # type: ignore[no-untyped-call]
        return torch.where(self.zeros, 0.0, rounded)  # type: ignore[arg-type]


def _closest(far: Mapping[str, Tensor], held: Places, count: int) -> Places:
    """The places already held, and those with the smallest distances, ``count`` in all."""
    together = torch.cat([torch.where(held[key], -1.0, d).flatten() for key, d in far.items()])
    chosen = torch.zeros(len(together), dtype=torch.bool)
    chosen[together.argsort(stable=True)[:count]] = True
    pieces = torch.split(chosen, [d.numel() for d in far.values()])
    return {key: piece.reshape(far[key].shape) for key, piece in zip(far, pieces, strict=True)}


def _size(weights: Tensor) -> float:
    """Root mean square of the weights that are not zero."""
    live = weights[weights != 0].double()
    return float(live.square().mean().sqrt()) if live.numel() else 1.0


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
