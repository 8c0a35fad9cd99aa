"""The network learner: deterministic, sparse, and a map of the picks alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.stages.certify.picks import NetworkLearner, PickToLearn, Rounds, Warp, picking, traced
from tailor.stages.prune import Masks
from tailor.tasks import Data, zero_one


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def sample(n: int, seed: int) -> Data:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draws)
    return Data(x=x, y=(x[:, 0] * x[:, 1] > 0).long())


LEARNER = NetworkLearner(
    build=build,
    density=0.4,
    thin_from=10,
    thin_to=16,
    first_steps=12,
    steps=4,
    last_steps=8,
    batch=16,
    rate=1e-2,
)
ROUNDS = Rounds(stops=(14, 18), per_round=4, first=10, expected=25)


def test_the_same_picks_and_bytes_again_and_the_density_that_was_asked() -> None:
    method, data = PickToLearn(learner=LEARNER, rounds=ROUNDS), sample(150, 0)
    with torch.random.fork_rng():
        one = method.run(data, build=build)
        torch.rand(7)  # the global generator has no part in it
        two = method.run(data, build=build)
    assert one.rounds == two.rounds
    for a, b in zip(one.stops, two.stops, strict=True):
        assert a.small.payload == b.small.payload
        assert 1 - Masks.of(a.small.into(build)).sparsity <= 0.41
    assert method.holds_alone(one.best(), data, build=build)


def test_twenty_picks_teach_a_simple_rule_to_the_others() -> None:
    x = torch.randn(150, 6, generator=torch.Generator().manual_seed(0))
    data = Data(x=x, y=(x[:, 0] > 0).long())
    learner = replace(LEARNER, first_steps=60, steps=20, last_steps=60, rate=0.1)
    method = PickToLearn(learner=learner, rounds=Rounds(stops=(20,), per_round=5))
    (stop,) = method.run(data, build=build).stops
    assert stop.errors < 30  # 4 to 10 with ten other seeds, 75 by guessing
    assert stop.errors == int(zero_one(stop.small.into(build), data).sum())


def test_seed_and_settings_make_another_learner() -> None:
    method, data = PickToLearn(learner=LEARNER, rounds=ROUNDS), sample(150, 0)
    other = replace(method, learner=replace(LEARNER, seed=1))
    assert method.learner.digest() != other.learner.digest()
    first, second = (one.run(data, build=build).stops[0] for one in (method, other))
    assert first.small.payload != second.small.payload


def test_a_prior_is_the_file_at_no_picks_and_its_zeros_stay() -> None:
    past, data = sample(200, 1), sample(200, 2)
    prior = PickToLearn(learner=LEARNER, rounds=ROUNDS).run(past, build=build).stops[-1].small
    learner = replace(LEARNER, density=1.0, prior=prior, beside=past, rate=1e-3)
    method = PickToLearn(learner=learner, rounds=Rounds(stops=(0, 4), per_round=2))
    stops = method.run(data, build=build).stops
    zeros = {name: ~keep for name, keep in Masks.of(prior.into(build)).items()}
    weights = dict(stops[1].small.into(build).named_parameters())
    assert all(bool((weights[name][gone] == 0).all()) for name, gone in zeros.items())
    assert stops[1].small.payload != stops[0].small.payload
    assert stops[0].size == stops[0].errors
    before = prior.into(build).state_dict()
    for name, tensor in stops[0].small.into(build).state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=0.05, rtol=0.05)


def test_a_prior_is_pruned_further_where_a_smaller_density_is_asked_for() -> None:
    past, data = sample(200, 1), sample(200, 2)
    prior = PickToLearn(learner=LEARNER, rounds=ROUNDS).run(past, build=build).stops[-1].small
    before = Masks.of(prior.into(build))
    learner = replace(LEARNER, density=0.1, thin_from=0, thin_to=4, prior=prior)
    rounds = Rounds(stops=(8,), per_round=4, first=4)
    after = Masks.of(traced(picking(learner, data, rounds, build=build)).stops[0].small.into(build))
    assert before.sparsity < 0.85
    assert after.sparsity >= 1 - 13 / 128  # a tenth of 128 weights, rounded up
    assert all(not bool((keep & ~before[name]).any()) for name, keep in after.items())


def test_learning_does_not_touch_what_it_was_given() -> None:
    data = sample(50, 3)
    before = data.digest()
    model = LEARNER.update(LEARNER.start(), data, data, 1)
    assert data.digest() == before
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    LEARNER.finish(model, data)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"density": 0.0}, "density must lie in"),
        ({"thin_from": 5, "thin_to": 4}, "thin_from must not be above thin_to"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(LEARNER, **change)


def test_no_warp_changes_nothing() -> None:
    x = torch.rand(5, 1, 8, 8)
    still = Warp()(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, x, atol=1e-5, rtol=0)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    """The largest angle is drawn with a generator whose first number is close to 1."""
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 8] = 1.0
    seed = next(
        s
        for s in range(10_000)
        if torch.rand(1, generator=torch.Generator().manual_seed(s)) > 0.999
    )
    turned = Warp(rotate=torch.pi / 2)(x, torch.Generator().manual_seed(seed))
    assert divmod(int(turned.argmax()), 9) in ((0, 4), (8, 4))


def test_a_shift_moves_the_mass_and_black_comes_in() -> None:
    x = torch.ones(400, 1, 8, 8)
    moved = Warp(shift=0.5)(x, torch.Generator().manual_seed(0))
    lost = 1 - moved.mean(dim=(1, 2, 3))
    # a shift by s of half the side loses s/2 of a row or column: 1 - (1 - |a|/2)(1 - |b|/2)
    expected = 1 - (1 - 0.125) ** 2
    assert float(lost.mean()) == pytest.approx(expected, abs=0.02)


def test_rows_are_warped_as_images() -> None:
    x = torch.rand(6, 64)
    rows = Warp(rotate=0.3, bend=0.1, shape=(1, 8, 8))(x, torch.Generator().manual_seed(1))
    images = Warp(rotate=0.3, bend=0.1)(x.reshape(6, 1, 8, 8), torch.Generator().manual_seed(1))
    assert torch.equal(rows, images.reshape(6, 64))
    assert not torch.allclose(rows, x, atol=0.05)
