"""A hard limit on the stable rank: the nearest matrix that keeps it (Sanyal et al. 2020)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.spectrum.top import WARM_UP, Top, follow, start_block
from tailor.stages.targets import Target, overwrite, targets, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class StableRankProjection:
    """Keeps the stable rank of the weights at or below a limit (Sanyal et al. 2020).

    Attributes:
        rank: The largest stable rank allowed, from 1 on.
        keep_top: Keep the largest singular value and shrink the rest only, which moves the matrix
            further; otherwise the projection raises the one and shrinks the rest.
        layers: Patterns of names it acts on.
        skip: Patterns of names that it leaves alone all the same.
    """

    rank: float
    keep_top: bool = False
    layers: str | tuple[str, ...] = "*"
    skip: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rank >= 1:
            raise UsageError(f"a stable rank is at least 1, but rank is {self.rank}")

    def __call__(self, model: nn.Module) -> None:
        """Project every weight that fits, in place."""
        self._project(self._targets(model), {})

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        """Project after each step of the optimizer; the top vectors are followed meanwhile.

        Returns:
            A handle; its ``remove`` ends it.
        """
        found = self._targets(model)
        blocks: dict[str, Tensor] = {}

        def after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._project(found, blocks)

        return optimizer.register_step_post_hook(after_step)

    def _targets(self, model: nn.Module) -> tuple[Target, ...]:
        return targets(model, self.layers, self.skip, who="StableRankProjection")

    @torch.no_grad()
    def _project(self, found: tuple[Target, ...], blocks: dict[str, Tensor]) -> None:
        for one in found:
            full = whole(one.parameter)
            W = full.flatten(1)
            fresh = one.name not in blocks
            block = start_block(W, one.name) if fresh else blocks[one.name].to(W)
            top, blocks[one.name] = follow(W, block, WARM_UP if fresh else 2)
            nearest = _nearest(W, top, self.rank, self.keep_top)
            overwrite(one.parameter, nearest.reshape(full.shape))


def project_stable_rank(
    W: Float[Tensor, "rows columns"], rank: float, *, keep_top: bool = False
) -> Float[Tensor, "rows columns"]:
    """The nearest matrix, in Frobenius norm, of stable rank at most ``rank``.

    With the largest singular value s of W, its vectors u, v, the rest R = W - s u v' and
    g = sqrt(rank - 1) s / norm(R), the nearest matrix is g1 s u v' + g2 R with
    g2 = (g + rank - 1) / rank and g1 = g2 / g.

    Args:
        W: The matrix; returned as it is where its stable rank is within the limit.
        rank: The limit, from 1 on.
        keep_top: g1 = 1 and g2 = g instead: the largest singular value stays.

    Raises:
        UsageError: The limit is below 1.
    """
    if not rank >= 1:
        raise UsageError(f"a stable rank is at least 1, but rank is {rank}")
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    return _nearest(W, Top(value=S[0], left=U[:, 0], right=Vt[0]), rank, keep_top)


def _nearest(W: Tensor, top: Top, rank: float, keep_top: bool) -> Tensor:
    first = top.value * torch.outer(top.left, top.right)
    rest = W - first
    tiny = torch.finfo(W.dtype).tiny ** 0.5
    size = torch.linalg.vector_norm(rest)
    g = (rank - 1) ** 0.5 * top.value / size.clamp(min=tiny)
    within = (g >= 1) | (size <= tiny)
    shrink = g if keep_top else (g + rank - 1) / rank
    grow = torch.ones_like(g) if keep_top or rank == 1 else shrink / g.clamp(min=tiny)
    found: Tensor = torch.where(within, W, grow * first + shrink * rest)
    return found
