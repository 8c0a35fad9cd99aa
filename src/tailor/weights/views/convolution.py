"""Convolutions: their taps, the operator itself, and groups.

Kernel axes are the axes from the third on, in PyTorch's order (outputs, inputs, kernel ...). A
transposed convolution is stored as (inputs, outputs, kernel ...), which turns every matrix
here into its transpose and changes no singular value.
"""

import itertools
import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Complex128, Shaped
from torch import Tensor

from tailor.errors import UsageError
from tailor.weights.views.view import Flattened, Part, View, described


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps(View):
    """Every kernel position (tap) as a matrix (outputs, inputs); all of them pooled.

    For convolutions of any number of kernel axes. A tensor of two axes is its own matrix, not
    scaled. With ``scale = sqrt(1/2)`` a 2-D convolution has the eigenvalues that ``analyze``
    of WeightWatcher 0.7.7 pools by default (unpooled, it scales by sqrt(taps / 2)). That
    program guesses from the sizes which axes are the kernel's; here they are those from the
    third on.

    Attributes:
        scale: Factor of every matrix.
        pool: Whether all taps give one spectrum; otherwise each is a part with its position
            as a label, such as ``"[0,2]"``.
    """

    scale: float = 1.0
    pool: bool = True

    def __post_init__(self) -> None:
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise UsageError(f"scale must be positive and finite, but is {self.scale}")

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        _refuse_vector(name, tensor)
        if tensor.ndim == 2:
            return [Part(stack=tensor[None])]
        stack = tensor.flatten(2).permute(2, 0, 1)
        if self.scale != 1:  # in double: bfloat16 times sqrt(1/2) would round the spectrum
            stack = stack.contiguous().double() * self.scale
        if self.pool:
            return [Part(stack=stack)]
        positions = itertools.product(*map(range, tensor.shape[2:]))
        return [
            Part(label=f"[{','.join(map(str, position))}]", stack=tap)
            for position, tap in zip(positions, stack.chunk(len(stack)), strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circulant(View):
    """The operator that a convolution is on a periodic grid, exactly.

    Sedghi, Gupta & Long (2019), *The singular values of convolutional layers*: the discrete
    Fourier transform makes the circular convolution (stride 1) block diagonal, with one
    complex matrix (outputs, inputs) for each frequency. Their singular values together are
    those of the whole operator. Any number of kernel axes is allowed; a tensor of two axes is
    its own matrix. A kernel longer than the grid is wrapped around it, as the operator does.

    Frequencies are taken in double precision. The stack holds all of them: 16 bytes x outputs
    x inputs x grid points (0.6 GB for 192 x 192 channels on 32 x 32). A real kernel has
    conjugate matrices at opposite frequencies, so all eigenvalues but those of frequencies
    opposite to themselves come twice (``copies`` is 2). Along a kernel axis with one tap the
    frequency changes nothing: ``copies`` counts these repetitions, which cost no memory in a
    1 x 1 convolution.

    Attributes:
        grid: Points of the grid along each kernel axis, or one number for all of them.
        groups: Groups of the convolution; see ``Grouped``.
    """

    grid: int | tuple[int, ...] = 32
    groups: int = 1

    def __post_init__(self) -> None:
        points = self.grid if isinstance(self.grid, tuple) else (self.grid,)
        if not points or min(points) < 1:
            raise UsageError(f"a grid needs at least one point along each axis, not {self.grid}")
        _refuse_groups(self.groups)

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        _refuse_vector(name, tensor)
        if self.groups > 1:
            each = replace(self, groups=1)
            return Grouped(groups=self.groups, view=each).split(name, tensor)
        if tensor.ndim == 2:
            return [Part(stack=tensor[None])]
        grid = self._points(name, tensor)
        waves = _frequencies(tensor, grid)
        return [Part(stack=waves.flatten(2).permute(2, 0, 1), copies=_copies(tensor, grid))]

    def _points(self, name: str, tensor: Shaped[Tensor, "out in *kernel"]) -> tuple[int, ...]:
        axes = tensor.ndim - 2
        grid = self.grid if isinstance(self.grid, tuple) else (self.grid,) * axes
        if len(grid) != axes:
            raise UsageError(
                f"{described(name, tensor)} has {axes} kernel axes, but the grid {self.grid} "
                f"has {len(grid)}; give one number for all axes, or {axes}"
            )
        return grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped(View):
    """A layer whose channels are in groups: its blocks, each seen by another view, pooled.

    Output channels of one group read the inputs of that group only, so the operator is block
    diagonal and its spectrum is the union of the blocks' spectra. Flattening the whole tensor
    would instead set the blocks on top of each other as if they read the same inputs. In a
    depthwise convolution each block is one filter, whose one singular value is its norm.

    A state dict stores no number of groups, so the caller has to say it, for instance for some
    layers with ``ByName``. Blocks are cut along the first axis, which is right for transposed
    convolutions too (there with ``view=Flattened(outputs=1)``).

    Attributes:
        groups: Number of groups.
        view: How each block is seen.
    """

    groups: int
    view: View = field(default_factory=Flattened)

    def __post_init__(self) -> None:
        _refuse_groups(self.groups)

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        if len(tensor) % self.groups:
            raise UsageError(
                f"{described(name, tensor)} cannot be cut into {self.groups} equal groups along "
                "its first axis; give the groups of this convolution"
            )
        seen = [self.view.split(name, block) for block in tensor.chunk(self.groups)]
        return [_pooled(parts) for parts in zip(*seen, strict=True)]


def _pooled(parts: tuple[Part, ...]) -> Part:
    """The same part of every block as one."""
    if len(parts) == 1:
        return parts[0]
    return replace(parts[0], stack=torch.cat([part.stack for part in parts]))


def _frequencies(
    kernel: Shaped[Tensor, "out in *kernel"], grid: tuple[int, ...]
) -> Shaped[Tensor, "out in *grid"]:
    """The discrete Fourier transform of a kernel at every frequency of the grid.

    Written as a product with the waves themselves: no padded copy of the kernel is needed, and
    taps beyond the grid wrap around by themselves. Each step takes the first kernel axis and
    puts its frequencies last, so that in the end the axes are in their old order.
    """
    waves = kernel
    for points in grid:
        if waves.shape[2] == 1:
            waves = waves.movedim(2, -1)
        else:
            phases = _phases(points, waves.shape[2]).to(waves.device)
            waves = torch.tensordot(waves.to(phases.dtype), phases, dims=([2], [1]))
    return waves.expand(*kernel.shape[:2], *grid)


def _phases(points: int, taps: int) -> Complex128[Tensor, "points taps"]:
    """exp(-2 pi i f t / points) for every frequency f and tap t."""
    turns = torch.outer(torch.arange(points), torch.arange(taps)) % points  # exact, as integers
    angles = turns.double() * (-2 * math.pi / points)
    return torch.polar(torch.ones_like(angles), angles)


def _copies(kernel: Shaped[Tensor, "out in *kernel"], grid: tuple[int, ...]) -> int:
    """Times that one frequency's eigenvalues come back at others, at most."""
    taps = kernel.shape[2:]
    repeated = math.prod(n for n, k in zip(grid, taps, strict=True) if k == 1)
    mirrored = any(n > 2 for n, k in zip(grid, taps, strict=True) if k > 1)
    return repeated * (2 if mirrored else 1)


def _refuse_vector(name: str, tensor: Shaped[Tensor, "..."]) -> None:
    if tensor.ndim < 2:
        raise UsageError(
            f"{described(name, tensor)} is no convolution and no matrix; "
            "give a tensor of shape (outputs, inputs, kernel ...)"
        )


def _refuse_groups(groups: int) -> None:
    if groups < 1:
        raise UsageError(f"groups must be at least 1, but is {groups}")
