"""The spectrum of every layer at one moment of training."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from tailor.errors import NonFinite
from tailor.numerics.powerlaw import MatrixFit, NoFit, PowerLawFit, TailFit
from tailor.numerics.spectrum import positive_floor, spectrum, stable_rank
from tailor.stages.targets import whole
from tailor.weights.source import read
from tailor.weights.views import Part, View


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTail:
    """The spectrum of one matrix, or of one pool of matrices.

    Attributes:
        name: Canonical name of the tensor, and which part of it.
        fit: Power law of the eigenvalues (squared singular values), or why not.
        stable_rank: (Frobenius norm / spectral norm)^2.
        spectral_norm: Largest singular value.
        frobenius_norm: Root of the sum of squares.
    """

    name: str
    fit: PowerLawFit | NoFit
    stable_rank: float
    spectral_norm: float
    frobenius_norm: float

    @property
    def alpha(self) -> float | None:
        """Density exponent; None without a fit."""
        return self.fit.alpha if isinstance(self.fit, PowerLawFit) else None


@torch.no_grad()
def tails(model: nn.Module, fit: TailFit | MatrixFit, view: View) -> tuple[LayerTail, ...]:
    """One record for each matrix of the model, as ``analyze`` has it; on the model's device.

    Every process of a sharded model has to take part.

    Raises:
        NonFinite: A weight is NaN or infinite.
        NoMatrices: The model holds no matrix.
    """
    found = []
    for layer in read(model).layers:
        for part in view.split(layer.name, whole(layer.load())):
            try:
                found.append(_tail(layer.name + part.label, part, fit))
            except NonFinite as error:
                raise NonFinite(f"{layer.name}: {error}") from error
    return tuple(found)


def _tail(name: str, part: Part, fit: TailFit | MatrixFit) -> LayerTail:
    stack = part.stack
    values = spectrum(stack, device=stack.device).eigenvalues
    rows, columns = stack.shape[1:]
    floor = positive_floor(values, rows=rows, columns=columns)
    if isinstance(fit, MatrixFit):
        found = fit.fit_matrices(stack)
    else:
        found = fit.fit(values[values > floor])
    return LayerTail(
        name=name,
        fit=found,
        stable_rank=stable_rank(values),
        spectral_norm=math.sqrt(values[-1]),
        frobenius_norm=math.sqrt(values.sum()),
    )
