"""Which examples come next: by their scores and their content, never by their place."""

import hashlib
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy import ndarray
from torch import Tensor, nn

from tailor.errors import TaskError
from tailor.tasks import Data
from tailor.tasks.data import lead

CHUNK = 512  # examples a call; always so many, so that no example's scores depend on the others

Order: TypeAlias = Literal["worst", "hashed"]
GOLDEN = (5**0.5 - 1) / 2  # how far the order by hash moves on each round, modulo 1


def places(data: Data, salt: str) -> Float64[ndarray, "n"]:
    """A number in [0, 1) for each example, from a salted hash of its content."""
    hashes = (hashlib.sha256(f"{salt} {record}".encode()).digest() for record in data.records())
    return np.array([int.from_bytes(one[:6], "big") / 2**48 for one in hashes])


def margins(model: nn.Module, data: Data) -> Float[Tensor, "n"]:
    """Score of an example's own class minus the best other one, as the model computes it.

    The examples go through the model in blocks of one size, the last one filled with zeros.
    """
    model.eval()
    found = []
    with torch.no_grad():
        for x, y in zip(torch.split(data.x, CHUNK), torch.split(data.y, CHUNK), strict=True):
            padded = torch.cat([x, x.new_zeros(CHUNK - len(x), *x.shape[1:])])
            found.append(_margin(model(padded)[: len(x)], y))
    return torch.cat(found).double()


def _margin(scores: Float[Tensor, "b classes"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    if int(y.max()) >= scores.shape[1]:
        raise TaskError(
            f"the data hold class {int(y.max())}, but the learner's network scores "
            f"{scores.shape[1]}"
        )
    return lead(scores, y)


def worst(
    model: nn.Module, data: Data, outside: Int[ndarray, "m"], place: Float64[ndarray, "n"]
) -> Int[ndarray, "k"]:
    """Wrong examples among those outside the picks, smallest margin first, then by place."""
    margin = margins(model, data.at(torch.from_numpy(outside))).numpy()
    wrong = outside[~(margin > 0)]  # NaN is wrong, too
    return wrong[np.lexsort((place[wrong], np.nan_to_num(margin[~(margin > 0)], nan=-np.inf)))]


def hashed(
    model: nn.Module,
    data: Data,
    outside: Int[ndarray, "m"],
    place: Float64[ndarray, "n"],
    number: int,
    count: int,
) -> tuple[Int[ndarray, "k"], int, int]:
    """The first ``count`` wrong examples in the order of places, turned on each round.

    The sample is searched only until so many are found, which is what makes this order cheap.

    Returns:
        Their indices, how many examples were searched, and how many of those were wrong.
    """
    turned = (place[outside] + number * GOLDEN) % 1.0
    queue = outside[np.lexsort((place[outside], turned))]
    found: list[int] = []
    for begin in range(0, len(queue), CHUNK):
        block = queue[begin : begin + CHUNK]
        margin = margins(model, data.at(torch.from_numpy(block))).numpy()
        found += block[~(margin > 0)].tolist()
        if len(found) >= count:
            return np.array(found[:count], dtype=np.int64), begin + len(block), len(found)
    return np.array(found, dtype=np.int64), len(queue), len(found)
