"""The largest singular value and its vectors, followed from step to step by a block of vectors."""

import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

VECTORS = 4  # one vector loses track where the two largest singular values cross
WARM_UP = 20  # iterations from a random block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Top:
    """The largest singular value of a matrix and its vectors.

    Attributes:
        value: The singular value, never above the true one but for rounding.
        left: Its left vector, of norm 1.
        right: Its right vector, of norm 1.
    """

    value: Float[Tensor, ""]
    left: Float[Tensor, "rows"]
    right: Float[Tensor, "columns"]


def start_block(
    W: Float[Tensor, "rows columns"], name: str, vectors: int = VECTORS
) -> Float[Tensor, "side vectors"]:
    """Random orthonormal vectors of the smaller side of W, the same for the same name everywhere.

    Args:
        W: The matrix.
        name: What the random numbers depend on; the global random state is not touched.
        vectors: How many; fewer where the side is shorter.
    """
    side = min(W.shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    block = torch.randn(side, min(vectors, side), generator=generator, dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(block).Q
    return orthonormal.to(W)


def follow(
    W: Float[Tensor, "rows columns"], block: Float[Tensor, "side vectors"], iterations: int = 1
) -> tuple[Top, Float[Tensor, "side vectors"]]:
    """Bring a block of vectors closer to the leading singular space, and read the top pair off.

    Each iteration multiplies by W and its transpose (subspace iteration); a small singular value
    decomposition of what the block sees of W (Rayleigh-Ritz) then gives the pair. It only ever
    underestimates the singular value: for a bound take a full decomposition.

    Args:
        W: The matrix, in float32 or float64.
        block: Orthonormal vectors of the smaller side, from ``start_block`` or from here.
        iterations: How often to multiply.

    Returns:
        The pair, and the block to go on with.
    """
    rows, columns = W.shape
    if rows < columns:
        top, block = follow(W.T, block, iterations)
        return Top(value=top.value, left=top.right, right=top.left), block
    for _ in range(iterations):
        U = torch.linalg.qr(W @ block).Q  # rows x vectors
        block, R = torch.linalg.qr(W.T @ U)  # W' U = block R, so U' W block = R'
    A, S, Bt = torch.linalg.svd(R.T)
    return Top(value=S[0], left=U @ A[:, 0], right=block @ Bt[0]), block
