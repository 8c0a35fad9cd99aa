"""Pick-to-Learn: the theorem's premise as laws of the loop, and what a replay finds out."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import PayloadError, UsageError
from tailor.numerics.bounds import likely_window, pick_to_learn
from tailor.stages.certify.method import Case
from tailor.stages.certify.picks import Learner, PickToLearn, Rounds, picking, traced
from tailor.stages.compress import Adaptive, CompressedModel, pack
from tailor.tasks import Data, zero_one

CLASSES = 3


def nearest() -> nn.Module:
    """Class scores linear in the inputs and one."""
    return nn.Linear(2, CLASSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means(Learner):
    """The nearest mean of the picks of each class; in the file, rounded to eighths."""

    def start(self) -> nn.Module:
        model = nearest().double()
        for tensor in model.parameters():
            nn.init.zeros_(tensor)
        return model

    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        assert isinstance(model, nn.Linear)
        with torch.no_grad():
            for label in set(new.y.tolist()):
                mean = picked.x[picked.y == label].mean(0)
                model.weight[label] = mean
                model.bias[label] = -mean.square().sum() / 2
        return model

    def finish(self, model: nn.Module, picked: Data) -> CompressedModel:
        rounded = {name: (8 * t).round() / 8 for name, t in model.state_dict().items()}
        return pack({name: t.float() for name, t in rounded.items()}, coder=Adaptive())


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking(Means):
    """Looks at examples that it was not given."""

    seen: ClassVar[list[Data]] = []

    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        model = Means.update(self, model, picked, new, round)
        assert isinstance(model, nn.Linear)
        with torch.no_grad():
            model.bias[0] += self.seen[-1].x.mean()
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Restless(Means):
    """Learns something else every time."""

    calls: ClassVar[list[int]] = [0]

    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        self.calls[0] += 1
        model = Means.update(self, model, picked, new, round)
        assert isinstance(model, nn.Linear)
        with torch.no_grad():
            model.bias[0] += self.calls[0] / 4
        return model


def sample(n: int, seed: int, spread: float = 0.8) -> Data:
    """Three overlapping clouds, on a coarse grid so that some examples repeat."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=draws)
    centre = torch.tensor([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[y]
    x = centre + spread * torch.randn(n, 2, generator=draws)
    return Data(x=(4 * x).round().double() / 4, y=y)


def contents(data: Data, indices: np.ndarray) -> list[str]:
    names = data.records()
    return [names[i] for i in indices.tolist()]


ways = st.fixed_dictionaries(
    {
        "stops": st.sampled_from([(6,), (3, 9), (0, 5)]),
        "per_round": st.integers(1, 4),
        "first": st.integers(0, 3),
        "order": st.sampled_from(["worst", "hashed"]),
        "seed": st.integers(0, 3),
    }
)


@settings(max_examples=6, deadline=None)
@given(way=ways, seed=st.integers(0, 1000), drop=st.integers(0, 2**31))
def test_the_compression_set_is_preferent(way: Any, seed: int, drop: int) -> None:
    """c(V) = c(S) for every V between c(S) and S, with the same picks and the same file."""
    data, rounds = sample(30, seed), Rounds(**way)
    for at, stop in enumerate(traced(picking(Means(), data, rounds, build=nearest)).stops):
        others = np.setdiff1d(np.arange(len(data)), stop.kept)
        left = np.random.default_rng(drop).random(len(others)) < 0.5
        keep = np.random.default_rng(drop + 1).permutation(
            np.concatenate([stop.kept, others[left]])
        )
        part = data.at(torch.from_numpy(keep))
        shorter = replace(rounds, stops=rounds.stops[: at + 1])
        if shorter.stops[-1] > len(part):
            continue
        again = traced(picking(Means(), part, shorter, build=nearest)).stops[-1]
        assert contents(part, again.picks) == contents(data, stop.picks)
        assert sorted(contents(part, again.kept)) == sorted(contents(data, stop.kept))
        assert again.small.payload == stop.small.payload


@settings(max_examples=6, deadline=None)
@given(way=ways, seed=st.integers(0, 1000), new=st.integers(0, 1000))
def test_what_the_file_gets_wrong_changes_the_compression_set(
    way: Any, seed: int, new: int
) -> None:
    """Each further example that errs changes c(S); one that is right all the way does not."""
    data, more = sample(30, seed), sample(1, new + 5000)
    rounds = Rounds(**(way | {"stops": way["stops"][-1:]}))
    stop = traced(picking(Means(), data, rounds, build=nearest)).stops[-1]
    both = Data(x=torch.cat([data.x, more.x]), y=torch.cat([data.y, more.y]))
    again = traced(picking(Means(), both, rounds, build=nearest)).stops[-1]
    same = sorted(contents(both, again.kept)) == sorted(contents(data, stop.kept))
    if bool(zero_one(stop.small.into(nearest), more)[0]):
        assert not same
    elif len(data) not in again.kept:
        assert same
        assert again.small.payload == stop.small.payload


@pytest.mark.parametrize("order", ["worst", "hashed"])
def test_order_of_the_sample_changes_nothing(order: str) -> None:
    rounds = Rounds(stops=(4, 12), per_round=2, first=2, order=order)
    data = sample(80, 3)
    turned = data.at(torch.arange(79, -1, -1))
    one = traced(picking(Means(), data, rounds, build=nearest))
    two = traced(picking(Means(), turned, rounds, build=nearest))
    for a, b in zip(one.stops, two.stops, strict=True):
        assert contents(data, a.picks) == contents(turned, b.picks)
        assert a.small.payload == b.small.payload
        assert a.size == b.size


def test_picks_come_worst_first_against_a_plain_loop() -> None:
    """One pick a round, against a loop that recomputes everything from the picks."""
    data = sample(60, 7, spread=0.5)
    rounds = Rounds(stops=(10,), order="worst")
    found = traced(picking(Means(), data, rounds, build=nearest)).stops[0]
    picks: list[int] = []
    for _ in range(10):
        means = {c: data.x[[i for i in picks if int(data.y[i]) == c]] for c in range(CLASSES)}
        scores = torch.zeros(60, CLASSES, dtype=torch.float64)
        for label, rows in means.items():
            if len(rows):
                mean = rows.mean(0)
                scores[:, label] = data.x @ mean - mean.square().sum() / 2
        own = scores.gather(1, data.y[:, None])[:, 0]
        margin = own - scores.scatter(1, data.y[:, None], -torch.inf).amax(1)
        outside = [i for i in range(60) if i not in picks and margin[i] <= 0]
        if not outside:
            break
        worst = min(float(margin[i]) for i in outside)
        at = found.picks[len(picks)].item()
        assert at in outside
        assert float(margin[at]) == pytest.approx(worst, abs=1e-12)
        picks.append(at)
    assert picks == found.picks.tolist()


def test_the_loop_ends_where_nothing_is_wrong() -> None:
    x = torch.tensor([[0.0, 2.0], [2.0, -2.0], [-2.0, -2.0]], dtype=torch.float64)
    y = torch.arange(3)
    data = Data(x=x.repeat(5, 1) + torch.arange(15)[:, None] / 100, y=y.repeat(5))
    stop = traced(picking(Means(), data, Rounds(stops=(12,)), build=nearest)).stops[-1]
    assert len(stop.picks) < 12
    assert stop.declared == 12
    assert stop.errors == 0


def test_hashed_rounds_search_only_until_they_have_found_enough() -> None:
    data = sample(3000, 1)
    rounds = list(picking(Means(), data, Rounds(stops=(9,), per_round=3), build=nearest))
    assert [len(one.new) for one in rounds] == [0, 3, 3, 3]
    assert all(0 < one.searched < 3000 for one in rounds[1:])
    assert all(3 <= one.wrong <= one.searched for one in rounds[1:])


def test_an_interrupted_run_goes_on() -> None:
    data, rounds = sample(100, 4), Rounds(stops=(5, 15), per_round=2, first=3)
    whole = traced(picking(Means(), data, rounds, build=nearest))
    again = traced(picking(Means(), data, rounds, build=nearest, known=whole.rounds[:3]))
    assert again.rounds == whole.rounds
    assert [s.small.payload for s in again.stops] == [s.small.payload for s in whole.stops]


def case_of(small: CompressedModel, data: Data, choices: int = 1) -> Case:
    return Case(
        small=small,
        model=small.into(nearest).double().eval(),
        build=nearest,
        data=data,
        error=zero_one,
        delta=0.05,
        choices=choices,
    )


def test_the_proof_is_the_run_and_pays_for_stops_and_choices() -> None:
    data = sample(150, 5)
    method = PickToLearn(learner=Means(), rounds=Rounds(stops=(5, 10, 15), per_round=2))
    trace = method.run(data, build=nearest)
    best = trace.best()
    said = method.prove(case_of(best.small, data, choices=4))
    assert said.k == best.size == said.picks + said.leftover == min(s.size for s in trace.stops)
    assert said.risk_bound == pick_to_learn(said.k, 150, 0.05 / 4 / 3)
    assert said.errors == int(zero_one(best.small.into(nearest), data).sum())
    assert said.indices == tuple(best.picks.tolist())
    assert said == method.evidence(trace, best.small, data, 0.05 / 4)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_proof_learns_up_to_its_file_and_counts_no_other(at: int) -> None:
    data, counted = sample(150, 5), []
    method = PickToLearn(learner=Means(), rounds=Rounds(stops=(5, 10, 15), per_round=2))
    trace = method.run(data, build=nearest)
    small = trace.stops[at].small
    assert len({stop.small.payload for stop in trace.stops}) == 3

    def error(model: nn.Module, part: Data) -> torch.Tensor:
        counted.append(len(part))
        return zero_one(model, part)

    said = method.prove(replace(case_of(small, data), error=error))
    assert counted == [150]
    assert said == method.evidence(trace, small, data, 0.05)


def test_an_expected_size_sharpens_the_bound_and_is_part_of_the_method() -> None:
    data = sample(150, 5)
    plain = PickToLearn(learner=Means(), rounds=Rounds(stops=(5, 10), per_round=2))
    trace = plain.run(data, build=nearest)
    small, k = trace.best().small, trace.best().size
    method = replace(plain, rounds=replace(plain.rounds, expected=k))
    assert repr(method) != repr(plain)
    said = method.evidence(trace, small, data, 0.05)
    assert said.window == likely_window(k, 150, 0.025)
    assert said.risk_bound == pick_to_learn(k, 150, 0.025, said.window)
    assert said.risk_bound < plain.evidence(trace, small, data, 0.05).risk_bound
    assert plain.evidence(trace, small, data, 0.05).window is None
    more = replace(plain.rounds, expected=1000)  # of 150: as many as there can be
    assert more.window(150, 0.05) == likely_window(149, 150, 0.05)


def test_another_file_is_refused() -> None:
    data = sample(60, 5)
    method = PickToLearn(learner=Means(), rounds=Rounds(stops=(5,)))
    with pytest.raises(PayloadError, match="gives other files"):
        method.prove(case_of(Means().finish(Means().start(), data), data))


def test_a_learner_that_is_not_deterministic_is_found_out() -> None:
    data = sample(60, 5)
    method = PickToLearn(learner=Restless(), rounds=Rounds(stops=(8,)))
    small = method.run(data, build=nearest).best().small
    with pytest.raises(PayloadError, match="gives other files"):
        method.prove(case_of(small, data))


def test_a_learner_that_peeks_is_found_out_on_the_compression_set_alone() -> None:
    data = sample(60, 5)
    rounds = Rounds(stops=(8,))
    honest = PickToLearn(learner=Means(), rounds=rounds)
    assert honest.holds_alone(honest.run(data, build=nearest).best(), data, build=nearest)
    peeking = PickToLearn(learner=Peeking(), rounds=rounds)
    Peeking.seen.append(data)
    stop = peeking.run(data, build=nearest).best()
    Peeking.seen.append(data.at(torch.from_numpy(stop.kept)))
    assert not peeking.holds_alone(stop, data, build=nearest)


def test_the_bound_covers_on_fresh_samples() -> None:
    """The true error is that on 20,000 further draws; delta is 0.2, so that it could fail."""
    method = PickToLearn(learner=Means(), rounds=Rounds(stops=(4, 8), per_round=2))
    truth, failed = sample(20_000, 99), 0
    for seed in range(10):
        data = sample(40, 1000 + seed)
        trace = method.run(data, build=nearest)
        small = trace.best().small
        said = method.evidence(trace, small, data, 0.2)
        risk = float(zero_one(small.into(nearest), truth).double().mean())
        assert said.risk_bound > said.k / 40
        failed += risk > said.risk_bound
    assert failed <= 2


def test_learners_tell_what_they_are() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settled(Means):
        rate: float
        beside: Data

    one = Settled(rate=0.1, beside=sample(5, 0)).digest()
    assert one == Settled(rate=0.1, beside=sample(5, 0)).digest()
    assert one != Settled(rate=0.2, beside=sample(5, 0)).digest()
    assert one != Settled(rate=0.1, beside=sample(5, 1)).digest()
    method = PickToLearn(learner=Means(), rounds=Rounds(stops=(5,)))
    assert Means().digest() in repr(method)
    assert "0x" not in repr(method)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stops": ()}, "rising numbers"),
        ({"stops": (5, 3)}, "rising numbers"),
        ({"stops": (5,), "per_round": 0}, "per_round must be at least 1"),
        ({"stops": (5,), "expected": -1}, "expected must be a number of examples, but is -1"),
        ({"stops": (5,), "first": 6}, "first must lie between 0 and the first stop, 5"),
    ],
)
def test_bad_rounds_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Rounds(**change)  # type: ignore[arg-type]


def test_too_small_a_sample_is_refused() -> None:
    with pytest.raises(UsageError, match="10 examples are too few for 11 picks"):
        next(picking(Means(), sample(10, 0), Rounds(stops=(11,)), build=nearest))
