"""What a stochastic predictor is: a law of networks, as a module whose tensors a file holds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.counter import Stream
from tailor.tasks import Data

TIE = 1e-9  # as where errors of one network are counted


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
            errors += int(wrong(scores, data.y[part]).sum())
    return Draws(errors=errors, draws=repeats * len(data))


def wrong(scores: Float[Tensor, "n classes"], y: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Which scores do not put the right class first, by more than rounding."""
    own = scores.gather(1, y.long()[:, None])
    rivals = scores.scatter(1, y.long()[:, None], -torch.inf).amax(dim=1, keepdim=True)
    size = scores.abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    return ~((own - rivals).squeeze(1) > TIE * size)


def pieces(count: int, size: int) -> Iterator[slice]:
    """Consecutive stretches of at most ``size``."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


Learner = Callable[[Data], Posterior]
