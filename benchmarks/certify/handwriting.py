"""Handwritten figures of other samples, made to look like MNIST's, to learn from before MNIST.

pendigits holds eight places of a pen along each figure; they are joined by strokes. The images of
scikit-learn's digits are enlarged. Neither has anything to do with NIST's writers.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.certify.samples import digits, pendigits
from tailor.tasks import Data

SIDE, BOX = 28, 19.0  # pixels of an image, and of the longer side of the pen's track
PEN, SOFT = 1.0, 1.2  # half the width of a stroke, and of its blurred edge
DARKER, MARGIN = 1.6, 4


def other_hands(folder: Path) -> Data:
    """10,992 drawn figures of pendigits and 1,797 enlarged ones of digits, (n, 1, 28, 28)."""
    tracks, images = pendigits(folder), digits()
    x = torch.cat(
        [
            *(drawn(part.x.float().reshape(-1, 8, 2)) for part in tracks),
            *(enlarged(part.x.float().reshape(-1, 8, 8)) for part in images),
        ]
    )
    return Data(x=x[:, None], y=torch.cat([part.y for part in (*tracks, *images)]))


def drawn(tracks: Tensor) -> Tensor:
    """Images of tracks of shape (n, points, 2), y pointing up; 1 within a stroke."""
    places = torch.stack([tracks[..., 0], 1 - tracks[..., 1]], dim=-1)
    low, high = places.amin(1, keepdim=True), places.amax(1, keepdim=True)
    longer = (high - low).amax(2, keepdim=True).clamp(min=1e-6)
    places = (places - (low + high) / 2) / longer * BOX + (SIDE - 1) / 2
    line = torch.arange(SIDE, dtype=places.dtype)
    pixels = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 2)
    return torch.cat([_strokes(part, pixels) for part in places.split(500)])


def _strokes(places: Tensor, pixels: Tensor) -> Tensor:
    """By the distance of each pixel to the nearest of the lines between neighbouring points."""
    start, along = places[:, :-1, None], (places[:, 1:] - places[:, :-1])[:, :, None]
    share = ((pixels - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-9)
    nearest = start + share.clamp(0, 1)[..., None] * along
    distance = (pixels - nearest).norm(dim=-1).amin(1)
    return (1 - (distance - PEN) / SOFT).clamp(0, 1).reshape(-1, SIDE, SIDE)


def enlarged(images: Tensor) -> Tensor:
    """Images of 8 x 8 pixels at 20 x 20, the faint ones taken off, with a margin."""
    size = SIDE - 2 * MARGIN
    large = functional.interpolate(images[:, None], size=(size, size), mode="bilinear")[:, 0]
    return functional.pad(((large - 0.25) * DARKER).clamp(0, 1), (MARGIN,) * 4)
