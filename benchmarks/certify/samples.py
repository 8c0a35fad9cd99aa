"""The data sets of the certificates, read from a folder that holds them.

MNIST      mnist/train-images-idx3-ubyte.gz and the other three files, as on every mirror
letter     letter/letter-recognition.data (UCI; a CSV with header, first 16,000 rows train)
pendigits  pendigits/pendigits.tra and pendigits.tes (UCI; CSV with header)
"""

from pathlib import Path

import torch

import tailor as tl
from tailor.tasks import Data, read_idx, read_table


def mnist(folder: Path) -> tuple[Data, Data]:
    """60,000 and 10,000 images, pixels from 0 to 1, shape (n, 1, 28, 28)."""
    return _images(folder / "mnist", "train"), _images(folder / "mnist", "t10k")


def letter(folder: Path) -> tuple[Data, Data]:
    """16,000 and 4,000 rows of 16 whole numbers from 0 to 15, divided by 15; 26 classes.

    Of the first 16,000 rows 929 repeat another one, as draws of whole numbers may.
    """
    table = read_table(folder / "letter" / "letter-recognition.data", "class")
    table = Data(x=table.x / 15, y=table.y, repeats=True)
    return table.at(torch.arange(16_000)), table.at(torch.arange(16_000, 20_000))


def pendigits(folder: Path) -> tuple[Data, Data]:
    """7,494 and 3,498 rows of 16 coordinates from 0 to 100, divided by 100; 10 classes."""
    parts = [
        read_table(folder / "pendigits" / f"pendigits.{part}", "class") for part in ("tra", "tes")
    ]
    train, test = (Data(x=part.x / 100, y=part.y) for part in parts)
    return train, test


def digits(folder: Path | None = None) -> tuple[Data, Data]:
    """1,437 and 360 images of 8 x 8 pixels from 0 to 1, shape (n, 64); comes with scikit-learn."""
    held_out = tl.DIGITS.test()
    assert held_out is not None
    return tl.DIGITS.train(), held_out


def _images(folder: Path, part: str) -> Data:
    x = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    y = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return Data(x=x[:, None].float() / 255, y=y.long())


SAMPLES = {"digits": digits, "mnist": mnist, "letter": letter, "pendigits": pendigits}
