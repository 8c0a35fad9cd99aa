"""Pick-to-Learn: the rounds, and what they come to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import likely_window
from tailor.stages.certify.picks.learner import Learner, alone
from tailor.stages.certify.picks.order import Order, hashed, places, worst
from tailor.stages.compress import CompressedModel
from tailor.tasks import Data, ErrorCount, zero_one


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How examples are picked; everything here is fixed before the sample is seen.

    Attributes:
        stops: Numbers of picks, rising, at which a file is made; the last one ends the loop.
            Each of them takes its share of delta.
        per_round: How many examples are picked before the learner learns again.
        first: How many are picked by the hash of their content alone, before the first round.
        order: Which of the wrong examples are picked: the "worst", or the first in an order by
            hash that turns from round to round ("hashed"), for which few examples are searched.
        seed: Of the hashes that break ties.
        expected: Size of the compression set that the bound is made sharpest for, by 2 to 4 %;
            half or double of it still gains. None prefers no size.
    """

    stops: tuple[int, ...]
    per_round: int = 1
    first: int = 0
    order: Order = "hashed"
    seed: int = 0
    expected: int | None = None

    def __post_init__(self) -> None:
        if not self.stops or self.stops[0] < 0 or list(self.stops) != sorted(set(self.stops)):
            raise UsageError(
                f"stops must be rising numbers of picks, at least one, but are {self.stops}"
            )
        if self.per_round < 1:
            raise UsageError(f"per_round must be at least 1, but is {self.per_round}")
        if self.expected is not None and self.expected < 0:
            raise UsageError(f"expected must be a number of examples, but is {self.expected}")
        least = next((stop for stop in self.stops if stop > 0), self.first)
        if not 0 <= self.first <= least:
            raise UsageError(
                f"first must lie between 0 and the first stop, {least}, but is {self.first}"
            )

    def window(self, n: int, delta: float) -> tuple[int, int] | None:
        """The window of ``pick_to_learn`` for n examples; delta is the share of one stop."""
        if self.expected is None:
            return None
        return likely_window(min(self.expected, n - 1), n, delta)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stop:
    """A file, and the examples from which it could be made again.

    Attributes:
        small: The file.
        picks: Indices of the picked examples, in their order.
        leftover: Indices of the examples outside the picks that the file's network gets wrong.
        errors: Errors of the file's network on the whole sample, picks included.
        declared: The declared number of picks; the picks are fewer if nothing was wrong before.
    """

    small: CompressedModel
    picks: Int[ndarray, "m"]
    leftover: Int[ndarray, "e"]
    errors: int
    declared: int

    @property
    def size(self) -> int:
        """Number of examples in the compression set: picks and leftover errors."""
        return len(self.picks) + len(self.leftover)

    @property
    def kept(self) -> Int[ndarray, "k"]:
        """Indices of the compression set, rising."""
        return np.sort(np.concatenate([self.picks, self.leftover]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """Where the loop is.

    Attributes:
        number: Of the round, from 1; 0 before any pick.
        picks: Indices of the examples picked so far, in their order.
        new: Those of this round.
        searched: How many examples the learner's network was asked about to find the new ones; 0
            for the first picks and for those that were given.
        wrong: How many of these it got wrong.
        stop: What the file comes to, at a declared stop or where nothing is wrong any more.
    """

    number: int
    picks: Int[ndarray, "m"]
    new: Int[ndarray, "b"]
    searched: int
    wrong: int
    stop: Stop | None


def picking(
    learner: Learner,
    data: Data,
    rounds: Rounds,
    *,
    build: Callable[[], nn.Module],
    error: ErrorCount = zero_one,
    known: Sequence[Sequence[int]] = (),
    wanted: CompressedModel | None = None,
) -> Iterator[Round]:
    """Pick wrong examples and learn from them, round by round (Paccagnan et al. 2023).

    At each declared stop the learner makes a file. Its compression set c(S) is the picks T and
    the examples outside T that the file's network gets wrong. Take any V between c(S) and S.
    Every pick came first, among all examples outside the picks, in an order that depends on the
    learner's network and the examples' content; it is in V, so it still comes first among fewer.
    The same holds for the first b of them when b are picked in one round; fewer than b are
    picked only where fewer are wrong, and those are all in V. The rounds on V are therefore
    those on S, by induction, with the same networks and the same file, which gets the same
    examples wrong: c(V) = c(S). And a further example that the file gets wrong would change
    c(S). That is what the theorem needs ("preference"), whatever the learner does with the
    picks. The first picks, by hash alone, follow such an order too. Equal examples count as
    often as they occur, in S as in c(S); which of the copies is picked changes nothing.

    Args:
        learner: What learns.
        data: The sample.
        rounds: How examples are picked.
        build: Makes the network of the file.
        error: Which examples count as errors of the file.
        known: The picks of an interrupted run, round by round: they are learnt again, but the
            sample is not searched for them.
        wanted: A file to look for: errors are counted for no other, and the loop ends with it.

    Yields:
        Every round, with what the file comes to wherever one is made.

    Raises:
        UsageError: The sample is smaller than the last stop.
    """
    if rounds.stops[-1] > len(data):
        raise UsageError(f"{len(data)} examples are too few for {rounds.stops[-1]} picks")
    place = places(data, f"picks {rounds.seed}")
    with alone(rounds.seed, "start"):
        model = learner.start()
    picks = new = np.empty(0, dtype=np.int64)
    aims, number, searched, wrong = list(rounds.stops), 0, 0, 0
    while True:
        over = number > 0 and len(new) == 0
        stop = None
        if over or len(picks) == aims[0]:
            with alone(rounds.seed, "finish", number):
                small = learner.finish(model, _at(data, picks))
            declared = aims.pop(0)
            if wanted is None or small.payload == wanted.payload:
                stop = _stopped(small, data, picks, build, error, declared)
        yield Round(number=number, picks=picks, new=new, searched=searched, wrong=wrong, stop=stop)
        if over or not aims or (wanted is not None and stop is not None):
            return
        number += 1
        if number <= len(known):
            new, searched, wrong = np.asarray(known[number - 1], dtype=np.int64), 0, 0
        else:
            most = aims[0] - len(picks)
            new, searched, wrong = _search(model, data, rounds, place, picks, number, most)
        if len(new):
            picks = np.concatenate([picks, new])
            with alone(rounds.seed, "round", number):
                model = learner.update(model, _at(data, picks), _at(data, new), number)


def _search(
    model: nn.Module,
    data: Data,
    rounds: Rounds,
    place: Float64[ndarray, "n"],
    picks: Int[ndarray, "m"],
    number: int,
    most: int,
) -> tuple[Int[ndarray, "b"], int, int]:
    """The next picks, how many examples were searched for them, and how many were wrong."""
    if len(picks) == 0 and rounds.first:
        return place.argsort(kind="stable")[: rounds.first], 0, 0
    outside = np.delete(np.arange(len(data)), picks)
    count = min(rounds.per_round, most)
    with alone(rounds.seed, "search", number):
        if rounds.order == "hashed":
            return hashed(model, data, outside, place, number, count)
        wrong = worst(model, data, outside, place)
        return wrong[:count], len(outside), len(wrong)


def _stopped(
    small: CompressedModel,
    data: Data,
    picks: Int[ndarray, "m"],
    build: Callable[[], nn.Module],
    error: ErrorCount,
    declared: int,
) -> Stop:
    """Count what the file's network gets wrong."""
    with alone("count"):
        wrong = error(small.into(build), data).numpy()
    outside = np.ones(len(data), dtype=bool)
    outside[picks] = False
    return Stop(
        small=small,
        picks=picks,
        leftover=np.flatnonzero(wrong & outside),
        errors=int(wrong.sum()),
        declared=declared,
    )


def _at(data: Data, indices: Int[ndarray, "k"]) -> Data:
    """Copies of some examples: nothing leads from them to the others."""
    return data.at(torch.from_numpy(indices))
