"""First layers that no data went into: oriented edges of images, random and quadratic features.

A certificate pays nothing for them. Wrap them in ``Frozen`` with a statement of where they come
from; edges are knowledge about images, so declare them with ``domain=True``.
"""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError

TINY = 1e-12


class OrientedEdges(nn.Module):
    """How much edge of each direction there is in each cell of a square image.

    Differences of neighbouring pixels, their half-rectified parts along equally spaced directions,
    averaged under overlapping triangular windows on a square grid of cells, raised to a power, and
    the whole vector brought to length 1 (histograms of gradients: Dalal & Triggs 2005).
    A last feature is constant, so that a layer on top needs no bias. It has no tensors, computes
    in float64, and an image's features depend on nothing but the image.

    Args:
        cells: Cells along each side.
        directions: Number of directions, over the full circle.
        deskew: First shear each image upright and centre it, by its moments.
        width: After that, stretch it sideways until the standard deviation of its ink is this
            share of the side (moment normalisation: Liu et al. 2004). 0 leaves it as it is.
        constant: Value of the last feature.
        power: Of each average; 1/2 makes faint and strong edges more alike.
        contrast: Share of the mean over the directions of a cell that is taken away. 1 leaves
            which way edges run there, and nothing of how much edge there is.
        concavities: Length of a second vector of 16 features, how much background there is that
            sees ink in each set of the four directions (Favata & Srikantan 1996): what a bay or
            a hole is. 0 leaves it out.

    Raises:
        UsageError: Fewer than one cell or two directions, or a width without deskewing.
    """

    def __init__(
        self,
        cells: int,
        directions: int,
        *,
        deskew: bool = False,
        width: float = 0.0,
        constant: float = 0.1,
        power: float = 0.5,
        contrast: float = 0.0,
        concavities: float = 0.0,
    ) -> None:
        super().__init__()
        if cells < 1 or directions < 2:
            raise UsageError(
                f"needs at least 1 cell and 2 directions, but got {cells} and {directions}"
            )
        if width < 0 or (width > 0 and not deskew):
            raise UsageError(f"width must be at least 0, and needs deskew=True, but is {width}")
        self.cells, self.directions = cells, directions
        self.deskew, self.width = deskew, width
        self.constant, self.power, self.contrast = constant, power, contrast
        self.concavities = concavities

    @property
    def out_features(self) -> int:
        """Features of an image, with the constant one."""
        return self.cells**2 * self.directions + 16 * (self.concavities > 0) + 1

    def forward(self, x: Float[Tensor, "n *pixels"]) -> Float[Tensor, "n features"]:
        """Features of images; any shape with s x s values for each image will do."""
        images = _square(x).to(torch.float64)
        if self.deskew:
            images = deskewed(images)
        if self.width:
            images = stretched(images, self.width * images.shape[-1])
        edges = self._edges(images) ** self.power
        edges = edges - self.contrast * edges.mean(dim=1, keepdim=True)
        found = [_unit(edges.flatten(1))]
        if self.concavities:
            found.append(self.concavities * _unit(_concavities(images) ** self.power))
        last = torch.full_like(found[0][:, :1], self.constant)
        return torch.cat([*found, last], dim=1).to(x.dtype)

    def _edges(
        self, images: Float[Tensor, "n side side"]
    ) -> Float[Tensor, "n directions cells cells"]:
        right, down = _differences(images)
        windows = _windows(images.shape[-1], self.cells).to(images.device)
        found = []
        for turn in range(self.directions):
            angle = 2 * math.pi * turn / self.directions
            edge = (math.cos(angle) * right + math.sin(angle) * down).clamp(min=0)
            found.append(windows @ edge @ windows.T)
        return torch.stack(found, dim=1)

    def extra_repr(self) -> str:
        """The settings, as they enter the digest of a ``Frozen`` part."""
        return (
            f"cells={self.cells}, directions={self.directions}, deskew={self.deskew}, "
            f"width={self.width}, constant={self.constant}, power={self.power}, "
            f"contrast={self.contrast}, concavities={self.concavities}"
        )


class RandomFeatures(nn.Module):
    """A layer of random weights under a ReLU or a cosine, and a constant.

    Random ReLU features, or random Fourier features (Rahimi & Recht 2007). Inputs are expected
    between 0 and 1. The weights are tensors: wrap the layer in ``Frozen``, or a file holds them.

    Args:
        inputs: Number of inputs.
        features: Number of features, with the constant one.
        seed: Of the weights; fixed before the data are seen.
        kind: ``"relu"`` or ``"fourier"``.
        scale: Size of the weights; for a cosine, the inverse width of the kernel.
    """

    weight: Tensor
    shift: Tensor

    def __init__(
        self,
        inputs: int,
        features: int,
        seed: int = 0,
        kind: Literal["relu", "fourier"] = "relu",
        *,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if inputs < 1 or features < 2 or kind not in ("relu", "fourier"):
            raise UsageError(
                f"needs inputs, 2 features and the kind relu or fourier, but got {inputs}, "
                f"{features} and {kind!r}"
            )
        generator = np.random.default_rng(seed)
        weight = generator.normal(size=(features - 1, inputs)) * scale
        shift = generator.uniform(size=features - 1)
        self.kind, self.scale, self.seed = kind, scale, seed
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    @property
    def out_features(self) -> int:
        """Features of an input, with the constant one."""
        return len(self.weight) + 1

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n features"]:
        """Features of inputs."""
        wide = 2 * x.to(torch.float64) - 1
        turned = wide @ self.weight.to(torch.float64).T
        if self.kind == "fourier":
            features = torch.cos(turned + 2 * math.pi * self.shift.to(torch.float64))
        else:
            features = (turned + self.scale * (2 * self.shift.to(torch.float64) - 1)).relu()
        return torch.cat([features, torch.ones_like(features[:, :1])], dim=1).to(x.dtype)

    def extra_repr(self) -> str:
        """The settings."""
        return f"features={self.out_features}, seed={self.seed}, {self.kind}, scale={self.scale}"


class Quadratic(nn.Module):
    """All inputs, all products of two of them, and a constant; inputs from 0 to 1.

    Args:
        inputs: Number of inputs.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        if inputs < 1:
            raise UsageError(f"needs at least one input, but got {inputs}")
        self.inputs = inputs

    @property
    def out_features(self) -> int:
        """Features of an input, with the constant one."""
        return self.inputs + self.inputs * (self.inputs + 1) // 2 + 1

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n features"]:
        """Features of inputs."""
        wide = 2 * x.to(torch.float64) - 1
        first, second = torch.triu_indices(self.inputs, self.inputs, device=x.device)
        products = wide[:, first] * wide[:, second]
        return torch.cat([wide, products, torch.ones_like(wide[:, :1])], dim=1).to(x.dtype)

    def extra_repr(self) -> str:
        """The settings."""
        return f"inputs={self.inputs}"


def deskewed(images: Float[Tensor, "n side side"]) -> Float[Tensor, "n side side"]:
    """Images sheared upright and centred: each row is moved sideways, each column down.

    The shear is the regression of the column on the row under the image as a mass. Values between
    pixels are interpolated linearly, and outside the image is zero.
    """
    side = images.shape[-1]
    place = torch.arange(side, dtype=images.dtype, device=images.device)
    mass = images.sum(dim=(1, 2)).clamp(min=TINY)
    row = (images.sum(dim=2) * place).sum(dim=1) / mass
    column = (images.sum(dim=1) * place).sum(dim=1) / mass
    off = place - row[:, None]
    weight = images.sum(dim=2)
    variance = (weight * off**2).sum(dim=1)
    both = ((images * place).sum(dim=2) - column[:, None] * weight) * off
    shear = both.sum(dim=1) / variance.clamp(min=TINY)
    middle = (side - 1) / 2
    upright = _shifted(images, (column[:, None] - middle + shear[:, None] * off)[:, :, None])
    down = (row - middle)[:, None, None]
    return _shifted(upright.transpose(1, 2), down).transpose(1, 2)


def stretched(images: Float[Tensor, "n side side"], width: float) -> Float[Tensor, "n side side"]:
    """Images in the middle, stretched sideways to a standard deviation of ``width`` pixels.

    To three times as wide at most, and to five eighths as wide at least.
    """
    side = images.shape[-1]
    off = torch.arange(side, dtype=images.dtype, device=images.device) - (side - 1) / 2
    mass = images.sum(dim=(1, 2)).clamp(min=TINY)
    spread = ((images.sum(dim=1) * off**2).sum(dim=1) / mass).sqrt()
    factor = (spread / width).clamp(1 / 3, 8 / 5)
    return _shifted(images, ((factor[:, None] - 1) * off)[:, None, :])


def _shifted(
    images: Float[Tensor, "n side side"], by: Float[Tensor, "n #rows #columns"]
) -> Float[Tensor, "n side side"]:
    """Each pixel's value taken from so many pixels to the right."""
    side = images.shape[-1]
    places = torch.arange(side, dtype=images.dtype, device=images.device) + by
    places = places.expand(-1, side, -1)
    low = places.floor()
    part = places - low
    padded = nn.functional.pad(images, (1, 2))  # one zero on the left, two on the right
    index = (low + 1).clamp(0, side + 1).long()
    left, right = padded.gather(2, index), padded.gather(2, index + 1)
    inside = (low >= -1) & (low <= side - 1)
    moved: Tensor = torch.where(inside, (1 - part) * left + part * right, 0.0)
    return moved


def _square(x: Float[Tensor, "n *pixels"]) -> Float[Tensor, "n side side"]:
    pixels = x[0].numel() if len(x) else math.prod(x.shape[1:])
    side = math.isqrt(pixels)
    if side * side != pixels or side < 2:
        raise UsageError(
            f"needs square images of one channel, but an input has shape {tuple(x.shape[1:])}"
        )
    return x.reshape(len(x), side, side)


def _differences(
    images: Float[Tensor, "n side side"],
) -> tuple[Float[Tensor, "n side side"], Float[Tensor, "n side side"]]:
    """To the right and down, between the two neighbours of each pixel; zero outside."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return right, down


def _unit(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    scaled: Tensor = features / features.norm(dim=1, keepdim=True).clamp(min=TINY)
    return scaled


def _concavities(images: Float[Tensor, "n side side"]) -> Float[Tensor, "n 16"]:
    """Background by the set of directions in which it sees ink; darkness counts as likelihood."""
    ink = images.clamp(min=0)
    ink = ink / ink.amax(dim=(1, 2), keepdim=True).clamp(min=TINY)
    seen = []
    for axis in (1, 2):
        seen.append(ink.cummax(dim=axis).values)
        seen.append(ink.flip(axis).cummax(dim=axis).values.flip(axis))
    parts = [1 - ink]
    for ray in seen:
        parts = [part * factor for factor in (1 - ray, ray) for part in parts]
    return torch.stack([part.mean(dim=(1, 2)) for part in parts], dim=1)


def _windows(side: int, cells: int) -> Float[Tensor, "cells side"]:
    """Triangles around the middles of the cells, each two cells wide."""
    place = torch.arange(side, dtype=torch.float64) + 0.5
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) * side / cells
    return (1 - (place - middle[:, None]).abs() * cells / side).clamp(min=0)
