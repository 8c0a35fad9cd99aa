"""The spectrum of a low-rank product without forming it."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def product_core(
    left: Float[Tensor, "rows r"], right: Float[Tensor, "r columns"]
) -> Float64[Tensor, "p q"]:
    """A small matrix with the non-zero singular values of ``left @ right``.

    With QR decompositions left = Q R and right^H = P S, the product is Q (R S^H) P^H, and Q and
    P have orthonormal columns, so R S^H has its singular values; the other
    min(rows, columns) - min(p, q) of them are exactly zero. Costs rows + columns times r^2 where
    the product would cost rows x columns x r (the singular values of an update such as LoRA, Hu
    et al. 2022, cost next to nothing).

    Returns:
        The core, in float64, of shape (min(rows, r), min(columns, r)).
    """
    return _triangle(left) @ _triangle(right.mT).mT


def _triangle(tall: Float[Tensor, "rows r"]) -> Float64[Tensor, "p r"]:
    """R of a QR decomposition."""
    factors = torch.linalg.qr(tall.detach().to(torch.float64), mode="r")
    triangle: Tensor = factors.R
    return triangle
