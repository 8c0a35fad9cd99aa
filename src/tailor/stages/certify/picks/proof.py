"""Pick-to-Learn as a kind of certificate: its proof is to do everything again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from tailor.errors import PayloadError
from tailor.numerics.bounds import pick_to_learn
from tailor.stages.certify.method import Case, Method
from tailor.stages.certify.picks.learner import Learner
from tailor.stages.certify.picks.loop import Round, Rounds, Stop, picking
from tailor.stages.compress import CompressedModel
from tailor.tasks import Data, ErrorCount, zero_one


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedEvidence:
    """What a Pick-to-Learn bound was computed from.

    Attributes:
        n: Sample size.
        errors: Errors of the file's network on the whole sample.
        risk_bound: eps(k, delta / stops), rounded up.
        window: First and last sample size that the bound prefers; None prefers none.
        picks: Number of picked examples.
        leftover: Errors outside the picks.
        k: Size of the compression set, the sum of the two.
        stop: The declared stop at which the file was made.
        stops: Number of declared stops, among which delta is divided.
        per_round: Examples picked in a round.
        rounds: Number of rounds up to the stop.
        order: Which of the wrong examples are picked.
        indices: Of the picked examples in the sample, in their order.
        picks_sha256: Hash of the contents of the picks in their order.
        kept_sha256: Hash of the contents of the compression set, sorted.
        learner_sha256: Hash of everything that the learner is.
        replay_sha256: Hash of the picks round by round and of the file.
    """

    n: int
    errors: int
    risk_bound: float
    window: tuple[int, ...] | None
    picks: int
    leftover: int
    k: int
    stop: int
    stops: int
    per_round: int
    rounds: int
    order: str
    indices: tuple[int, ...]
    picks_sha256: str
    kept_sha256: str
    learner_sha256: str
    replay_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """A whole run.

    Attributes:
        rounds: Indices of the examples picked in each round.
        stops: What was made at each declared stop.
    """

    rounds: tuple[tuple[int, ...], ...]
    stops: tuple[Stop, ...]

    def best(self) -> Stop:
        """The file with the smallest compression set."""
        return min(self.stops, key=lambda stop: stop.size)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PickToLearn(Method):
    """The file was learnt from picked examples: the bound eps(k, delta) of Pick-to-Learn.

    With probability at least 1 - delta over n independent examples, the true error of the
    network in the file is at most eps(k, delta / M), where k counts the picks and the further
    examples that it gets wrong, and M the declared stops (Paccagnan, Campi & Garatti 2023;
    Campi & Garatti 2023). All n examples are learnt from and counted at once.

    ``certify`` runs the learner again up to this file, and counts the errors of no other. The
    rounds of a network are computed in float32, and another processor or version of PyTorch may
    round them otherwise and pick other examples: then the file is refused, not certified wrongly.

    Attributes:
        learner: What learns.
        rounds: How examples are picked.
    """

    learner: Learner
    rounds: Rounds
    kind: ClassVar[str] = "pick-to-learn"

    def __repr__(self) -> str:
        name = type(self.learner).__name__
        return f"PickToLearn(learner={name} {self.learner.digest()}, rounds={self.rounds!r})"

    def picking(
        self,
        data: Data,
        *,
        build: Callable[[], nn.Module],
        error: ErrorCount = zero_one,
        known: Sequence[Sequence[int]] = (),
        wanted: CompressedModel | None = None,
    ) -> Iterator[Round]:
        """The run, round by round; see ``picking``."""
        return picking(
            self.learner, data, self.rounds, build=build, error=error, known=known, wanted=wanted
        )

    def run(
        self,
        data: Data,
        *,
        build: Callable[[], nn.Module],
        error: ErrorCount = zero_one,
        known: Sequence[Sequence[int]] = (),
        wanted: CompressedModel | None = None,
    ) -> Trace:
        """The whole run."""
        rounds = self.picking(data, build=build, error=error, known=known, wanted=wanted)
        return traced(rounds)

    def prove(self, case: Case) -> PickedEvidence:
        """Run everything again, and compare the file.

        Raises:
            PayloadError: The learner makes no such file.
        """
        found = self.run(case.data, build=case.build, error=case.error, wanted=case.small)
        return self.evidence(found, case.small, case.data, case.delta / case.choices)

    def evidence(
        self, trace: Trace, small: CompressedModel, data: Data, delta: float
    ) -> PickedEvidence:
        """What a run that has just been made comes to, for one of its files.

        Raises:
            PayloadError: None of its files is this one.
        """
        stop = next((s for s in trace.stops if s.small.payload == small.payload), None)
        if stop is None:
            raise PayloadError(
                "picking and learning again gives other files than this one; use the learner, "
                "the data, the processor and the version of PyTorch that made it"
            )
        names = data.records()
        rounds: list[tuple[int, ...]] = []
        size = 0
        while size < len(stop.picks):
            rounds.append(trace.rounds[len(rounds)])
            size += len(rounds[-1])
        n, each = len(data), delta / len(self.rounds.stops)
        window = self.rounds.window(n, each)
        return PickedEvidence(
            n=n,
            errors=stop.errors,
            risk_bound=pick_to_learn(stop.size, n, each, window),
            window=window,
            picks=len(stop.picks),
            leftover=len(stop.leftover),
            k=stop.size,
            stop=stop.declared,
            stops=len(self.rounds.stops),
            per_round=self.rounds.per_round,
            rounds=len(rounds),
            order=self.rounds.order,
            indices=tuple(stop.picks.tolist()),
            picks_sha256=_sha256(names[i] for i in stop.picks.tolist()),
            kept_sha256=_sha256(sorted(names[i] for i in stop.kept.tolist())),
            learner_sha256=self.learner.digest(),
            replay_sha256=_sha256(
                [
                    *(" ".join(names[i] for i in one) for one in rounds),
                    hashlib.sha256(small.payload).hexdigest(),
                ]
            ),
        )

    def holds_alone(self, stop: Stop, data: Data, *, build: Callable[[], nn.Module]) -> bool:
        """Whether the compression set without the other examples gives the same picks and file.

        It must, by the theorem. Where it does not, the learner has seen more than its picks.
        """
        alone = data.at(torch.from_numpy(stop.kept))
        stops = tuple(one for one in self.rounds.stops if one < stop.declared)
        stops = (*stops, min(stop.declared, len(alone)))
        rounds = replace(self.rounds, stops=tuple(sorted(set(stops))))
        found = replace(self, rounds=rounds).run(alone, build=build).stops[-1]
        names, original = alone.records(), data.records()
        return (
            [names[i] for i in found.picks.tolist()] == [original[i] for i in stop.picks.tolist()]
            and found.small.payload == stop.small.payload
            and len(found.leftover) == len(stop.leftover)
        )


def traced(rounds: Iterator[Round]) -> Trace:
    """Run to the end."""
    picks, stops = [], []
    for one in rounds:
        if len(one.new):
            picks.append(tuple(one.new.tolist()))
        if one.stop is not None:
            stops.append(one.stop)
    return Trace(rounds=tuple(picks), stops=tuple(stops))


def _sha256(lines: Sequence[str] | Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
