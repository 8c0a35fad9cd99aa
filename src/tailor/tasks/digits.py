"""scikit-learn's digits: 1,797 images of 8 x 8 pixels, 10 classes."""

import hashlib

import torch
from torch import nn

from tailor.errors import TaskError
from tailor.tasks.data import Data
from tailor.tasks.task import Task

DIGITS_TRAIN = 1437  # four fifths, chosen by a hash of the index: the same on every machine


def _digits() -> tuple[Data, Data]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise TaskError(
            "the digits task needs scikit-learn; install it: pip install scikit-learn"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels, dtype=torch.float32) / 16  # pixels are 0, ..., 16
    y = torch.as_tensor(labels, dtype=torch.int64)
    shuffled = sorted(range(len(y)), key=lambda i: hashlib.sha256(b"digits %d" % i).digest())
    train, test = shuffled[:DIGITS_TRAIN], shuffled[DIGITS_TRAIN:]
    return Data(x=x[train], y=y[train]), Data(x=x[test], y=y[test])


def _digits_network() -> nn.Module:
    """A ReLU network without biases: its decisions do not change when a layer is scaled."""
    return nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 10, bias=False))


DIGITS = Task(
    name="digits",
    build=_digits_network,
    train=lambda: _digits()[0],
    test=lambda: _digits()[1],
)
