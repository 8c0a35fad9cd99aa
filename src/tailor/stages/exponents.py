"""The density exponent of a weight's spectrum, by whatever method and view."""

from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from tailor.numerics.powerlaw import MatrixFit, NoFit, PowerLawFit, TailFit
from tailor.numerics.spectrum import positive_floor, spectrum
from tailor.weights.views import Part, View

SpectrumFit: TypeAlias = TailFit | MatrixFit


def exponent(
    name: str,
    weight: Shaped[Tensor, "out *rest"],
    *,
    view: View,
    fit: SpectrumFit,
    device: str | torch.device,
) -> float | str:
    """The mean density exponent of the parts of a weight, or why there is none.

    Equal eigenvalues, as of an orthogonal matrix, differ by rounding of the weights; the huge
    exponent of that says nothing and is refused.
    """
    if not bool(torch.isfinite(weight).all()):
        return "some weights are NaN or infinite"
    rounding = max(weight.shape) * torch.finfo(weight.dtype).eps
    found = []
    for part in view.split(name, weight):
        one = _fitted(fit, part, device)
        if isinstance(one, NoFit):
            return one.reason
        if (one.alpha - 1) * rounding >= 1:
            return "the eigenvalues are equal but for rounding"
        found.append(one.alpha)
    return float(np.mean(found))


def _fitted(method: SpectrumFit, part: Part, device: str | torch.device) -> PowerLawFit | NoFit:
    if isinstance(method, MatrixFit):
        return method.fit_matrices(part.stack)
    return method.fit(_eigenvalues(part.stack, device))


def _eigenvalues(
    stack: Shaped[Tensor, "count rows columns"], device: str | torch.device
) -> Float[ndarray, "n"]:
    """Pooled and rising, without those that are rounding errors."""
    values = spectrum(stack, device=device).eigenvalues
    floor = positive_floor(values, rows=stack.shape[1], columns=stack.shape[2])
    return values[np.searchsorted(values, floor, side="right") :]
