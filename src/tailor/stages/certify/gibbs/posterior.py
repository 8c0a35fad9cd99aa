"""What a stochastic predictor is: a law of networks, as a module whose tensors a file holds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.counter import Stream
from tailor.tasks import Data
from tailor.tasks.data import wrong_scores


class Posterior(nn.Module, ABC):
    """A law of networks; a fresh network is drawn for every prediction.

    Called as a module it gives the class scores of one network, the mean or the likeliest, which
    is not the predictor that a bound is about.
    """

    @abstractmethod
    def scores(
        self, data: Data, repeats: int, bits: Stream
    ) -> Iterator[tuple[slice, Float[Tensor, "n classes"]]]:
        """Scores of each example by a network of its own, again and again, piece by piece.

        All networks are independent: of other examples and of other repeats. With n examples,
        that of example i in repeat r is drawn with row r n + i of the stream.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Errors of fresh networks.

    Attributes:
        errors: How many of the draws erred.
        draws: How many there were: examples times repeats.
    """

    errors: int
    draws: int


def count_draws(posterior: Posterior, data: Data, repeats: int, bits: Stream) -> Draws:
    """Let a fresh network judge each example, ``repeats`` times, and count the errors.

    A margin within rounding of 0 counts as an error, and so does one that is not a number.

    Raises:
        UsageError: There are no examples or no repeats.
    """
    if len(data) < 1 or repeats < 1:
        raise UsageError(
            f"needs at least one example and one draw for each, but got {len(data)} and {repeats}"
        )
    errors = 0
    with torch.no_grad():
        for part, scores in posterior.scores(data, repeats, bits):
            errors += int(wrong_scores(scores, data.y[part]).sum())
    return Draws(errors=errors, draws=repeats * len(data))


def pieces(count: int, size: int) -> Iterator[slice]:
    """Consecutive stretches of at most ``size``."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


Learner = Callable[[Data], Posterior]
