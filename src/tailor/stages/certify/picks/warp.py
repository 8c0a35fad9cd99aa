"""Random small deformations of images, so that few picked images teach more."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

GRID = 4  # points along each side of the field of displacements that bends an image


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """Turn, stretch, shift and bend each image by a little; black comes in from outside.

    The bending is a smooth random field of displacements (Simard, Steinkraus & Platt 2003),
    here 4 x 4 normal draws, interpolated.

    Attributes:
        rotate: Largest angle in radians.
        scale: Largest relative change of width and height, and of their ratio.
        shift: Largest shift, as a share of half the side.
        shear: Largest tangent of the slant.
        bend: Standard deviation of the displacements, as a share of half the side.
        shape: Channels, height and width of inputs that come as rows of numbers.
    """

    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    bend: float = 0.0
    shape: tuple[int, int, int] | None = None

    def __call__(
        self, x: Float[Tensor, "b *features"], generator: torch.Generator
    ) -> Float[Tensor, "b *features"]:
        """Deformed copies of images of shape (b, channels, height, width), or of rows."""
        images = x if self.shape is None else x.reshape(len(x), *self.shape)
        grid = functional.affine_grid(
            self._maps(len(x), generator).to(x.dtype), list(images.shape), align_corners=False
        )
        if self.bend:
            field = torch.randn(len(x), 2, GRID, GRID, generator=generator) * self.bend
            smooth = functional.interpolate(
                field, images.shape[-2:], mode="bicubic", align_corners=True
            )
            grid = grid + smooth.permute(0, 2, 3, 1).to(x.dtype)
        return functional.grid_sample(images, grid, align_corners=False).reshape(x.shape)

    def _maps(self, count: int, generator: torch.Generator) -> Float[Tensor, "b 2 3"]:
        """One affine map an image, from places in the new image to places in the old one."""
        draw = 2 * torch.rand(count, 6, generator=generator) - 1
        angle, slant = draw[:, 0] * self.rotate, draw[:, 1] * self.shear
        wide, high = (torch.exp(draw[:, i] * math.log1p(self.scale)) for i in (2, 3))
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [
            torch.stack([cos * wide, (slant * cos - sin) * high, draw[:, 4] * self.shift], 1),
            torch.stack([sin * wide, (slant * sin + cos) * high, draw[:, 5] * self.shift], 1),
        ]
        return torch.stack(rows, 1)
