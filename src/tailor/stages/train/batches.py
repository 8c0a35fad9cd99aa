"""Batches: pairs of inputs and targets, in groups that make one optimizer step each."""

import zlib
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from tailor.errors import UsageError
from tailor.tasks import Data

Pair: TypeAlias = Sequence[Any]  # (inputs, targets)


class Batches(Iterator[tuple[Tensor, Tensor]]):
    """Shuffled minibatches of a data set, as ``batches`` gives them; can be gone through once."""

    def __init__(self, data: Data, size: int, epochs: int, seed: int) -> None:
        self._data = data
        self._places = _places(len(data), size, epochs, seed)

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the next batch."""
        chosen = next(self._places)
        return self._data.x[chosen], self._data.y[chosen]

    def skip(self, count: int) -> int:
        """Leave out so many batches without touching the data; gives how many there were."""
        return sum(1 for _ in islice(self._places, count))


def batches(data: Data, *, size: int, epochs: int, seed: int = 0) -> Batches:
    """Shuffled minibatches; each epoch sees every example once.

    Raises:
        UsageError: ``size`` or ``epochs`` is below 1.
    """
    if size < 1 or epochs < 1:
        raise UsageError(f"size and epochs must be at least 1, but are {size} and {epochs}")
    return Batches(data, size, epochs, seed)


def _places(n: int, size: int, epochs: int, seed: int) -> Iterator[Int[Tensor, "_"]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)
        for start in range(0, n, size):
            yield order[start : start + size]


def after(batches: Iterable[Pair], used: int) -> tuple[Iterator[Pair], Pair | None]:
    """What follows the first ``used`` batches, and the last of these.

    Raises:
        UsageError: There are not so many.
    """
    source = iter(batches)
    if used == 0:
        return source, None
    ahead = used - 1
    skipped = source.skip(ahead) if isinstance(source, Batches) else _drop(source, ahead)
    last = next(source, None)
    if skipped < ahead or last is None:
        raise UsageError(
            f"the checkpoint has used {used} batches, but batches ends after {skipped}; "
            "give the same sequence of batches again, from its beginning"
        )
    return source, last


def _drop(source: Iterator[Pair], count: int) -> int:
    return sum(1 for _ in islice(source, count))


def grouped(source: Iterator[Pair], size: int, used: int) -> Iterator[list[Pair]]:
    """Groups of ``size`` batches, the last one possibly smaller.

    Raises:
        UsageError: A batch is no pair, or has no examples.
    """
    while group := list(islice(source, size)):
        for number, batch in enumerate(group, start=used + 1):
            _check(batch, number)
        used += len(group)
        yield group


def _check(batch: object, number: int) -> None:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise UsageError(
            f"batch {number} is a {type(batch).__name__}{size}, but a pair (inputs, targets) is "
            "needed; turn each batch into one"
        )
    if count(batch) == 0:
        raise UsageError(f"batch {number} has no examples; leave empty batches out")


def count(batch: Pair) -> int:
    """Number of examples: the length of the targets."""
    target = batch[1]
    if isinstance(target, Tensor):
        return len(target) if target.ndim > 0 else 1
    return len(target) if isinstance(target, Sized) else 1


def checksum(batch: Pair) -> int:
    """CRC-32 of the tensors of a batch, to recognise it in another run."""
    found = 0
    for tensor in (one for one in batch if isinstance(one, Tensor)):
        data = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        found = zlib.crc32(data.view(torch.uint8).numpy().data, found)
    return found
