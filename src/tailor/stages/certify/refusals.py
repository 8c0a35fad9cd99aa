"""What a certificate refuses before it counts anything."""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tailor.errors import TaskError, UsageError
from tailor.tasks import Data, ErrorCount

STANDARD = 1e-4  # means and deviations this near to 0 and 1 were fitted to these very examples


def must_be_sample(data: Data, records: list[str]) -> int:
    """Refuse data that cannot be a sample; returns the number of repeated examples.

    Args:
        data: The examples.
        records: Their hashes.

    Raises:
        UsageError: No examples, repeated ones that are not declared, or inputs that were
            standardised with these very examples.
    """
    if len(data) < 1:
        raise UsageError("a certificate needs at least one example, but the data are empty")
    repeated = len(records) - len(set(records))
    if repeated and not data.repeats:
        raise UsageError(
            f"{repeated} of the {len(records)} examples are repetitions of others; remove them "
            "(copies and augmented images are no further draws), or declare Data(..., "
            "repeats=True) if equal examples were really drawn independently"
        )
    if looks_standardised(data):
        raise UsageError(
            "every input has mean 0 and deviation 1 over these very examples, so its scaling was "
            "fitted to them and is a part of the network that nobody pays for; use constants that "
            "were fixed before the data, or put the scaling into the network"
        )
    return repeated


def looks_standardised(data: Data) -> bool:
    """Whether each input that varies has mean 0 and deviation 1 over the examples."""
    if len(data) < 10 or not data.x.is_floating_point():
        return False
    x = data.x.flatten(1) if data.x.ndim > 1 else data.x[:, None]
    mean, deviation = x.double().mean(dim=0), x.double().std(dim=0, correction=0)
    varies = deviation > 0
    if not bool(varies.any()):
        return False
    near_one = (deviation[varies] * (1 + 0.5 / len(data)) - 1).abs() < max(STANDARD, 1 / len(data))
    return bool((mean[varies].abs() < STANDARD).all() and near_one.all())


def count_errors(
    model: nn.Module, data: Data, error: ErrorCount, check: bool = True
) -> Bool[Tensor, "n"]:
    """Which examples are wrong, counted twice: as they stand, and in two halves turned round.

    So other examples go through the network together the second time, whatever their number.

    Raises:
        TaskError: The two counts differ.
    """
    wrong = error(model, data)
    if not check:
        return wrong
    back = torch.arange(len(data)).flip(0).roll(-1)
    again = [error(model, data.at(half)) for half in back.chunk(2)]
    if not torch.equal(wrong[back], torch.cat(again)):
        raise TaskError(
            "two evaluations of the same network differ: its answer to one example depends on "
            "chance or on the other examples; switch off noise and batch statistics"
        )
    return wrong


def must_not_change(read: Callable[[], Data]) -> Data:
    """Read the data twice.

    Raises:
        TaskError: The two readings differ.
    """
    first = read()
    if first.digest() != read().digest():
        raise TaskError(
            "the data change between two readings; seed what is random in them, and write down "
            "augmented examples as what they are"
        )
    return first
