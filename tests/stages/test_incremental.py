"""Every weight on a grid, step by step, and a search that counts in full what it keeps."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from tailor.errors import NonFinite, UsageError
from tailor.numerics.bounds import occam
from tailor.numerics.coding import Grid
from tailor.stages.compress import Adaptive, Uniform, pack
from tailor.stages.incremental import incremental, screened
from tailor.stages.incremental.rounds import retrain_rounded, round_in_rounds
from tailor.stages.incremental.screen import Kept
from tailor.stages.incremental.screened import _Search
from tailor.stages.polish import _Search as _Plain
from tailor.tasks import Data, zero_one

N = 90


def build():
    """A small network with everything that stands between two layers."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 3, bias=False),
    )


def data():
    """Images with a bright bar: at the top, on the left, or along the diagonal."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((N, 1, 6, 6), generator=generator)
    y = torch.arange(N) % 3
    line = torch.arange(6)
    for i, label in enumerate(y.tolist()):
        at = i // 3 % 2
        x[i, 0][[(at,), (line, at), (line, line)][label]] += 0.5
    return Data(x=x, y=y)


def fit(model, steps=6, rate=0.05):
    one, optimizer = data(), torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(one.x), one.y).backward()
        optimizer.step()


def jolt(model):
    """Training that moves weights by more than a step."""
    fit(model, 10, 0.3)


def trained():
    torch.manual_seed(1)
    model = build()
    fit(model, 50)
    return model


def bound(file):
    errors = int(zero_one(file.into(build), data()).sum())
    return occam(errors, N, 8.0 * len(file.stream), 0.05).binomial


def errors(file):
    return int(zero_one(file.into(build), data()).sum())


def random_file(seed):
    generator = torch.Generator().manual_seed(seed)
    grids = {
        name: Grid(levels=torch.randint(-2, 3, w.shape, generator=generator).numpy())
        for name, w in build().state_dict().items()
    }
    return pack(build(), grids, coder=Adaptive())


def test_every_weight_is_on_the_grid_and_the_model_is_as_it_was():
    model = trained()
    before = copy.deepcopy(model.state_dict())
    file = incremental(model, retrain=fit, quantizer=Uniform(top=2, unit_step=True))
    for name, tensor in file.state_dict().items():
        assert torch.equal(tensor, tensor.round().clamp(-2, 2)), name
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert set(file.grids()) == set(before)


def test_rounds_lose_less_than_rounding_at_once():
    model = trained()
    ternary = Uniform(top=1, unit_step=True)
    at_once = incremental(model, retrain=fit, quantizer=ternary, shares=(1.0,))
    slowly = incremental(model, retrain=fit, quantizer=ternary)
    assert errors(slowly) < errors(at_once)
    assert bound(slowly) < bound(at_once)


def test_held_weights_stay_and_zeros_stay_zero():
    model = trained()
    with torch.no_grad():
        for weight in model.parameters():
            weight[weight.abs() < weight.abs().median()] = 0
    zeros = {name: w == 0 for name, w in model.state_dict().items()}
    seen = []

    def retrain(network):
        start = {name: w.clone() for name, w in _values(network).items()}
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.01)
        seen.append((start, {name: w.clone() for name, w in _values(network).items()}))

    fitted = round_in_rounds(model, Uniform(top=3), retrain, (0.3, 0.7, 1.0))
    assert len(seen) == 2
    counts = []
    for start, end in seen:
        same = {name: start[name] == end[name] for name in start}
        assert all(bool((end[name] == 0)[zeros[name]].all()) for name in zeros)
        for name, w in start.items():
            on_grid = (fitted[name].round(w) == w) & ~zeros[name]
            assert bool(same[name][on_grid].all())  # what is on the grid is held
        counts.append(sum(int((s & ~zeros[name]).sum()) for name, s in same.items()))
    live = sum(int((~z).sum()) for z in zeros.values())
    assert counts == [round(0.3 * live), round(0.7 * live)]


def _values(network):
    return {f"{i}.weight": network[i].weight.detach() for i in (0, 3, 6)}


def test_training_through_the_rounding_ends_on_the_grid_and_holds_zeros():
    model = trained()
    fitted = round_in_rounds(model, Uniform(top=1), fit, (0.5, 1.0))
    zeros = {name: w == 0 for name, w in model.state_dict().items()}
    assert any(bool(z.any()) for z in zeros.values())
    before = {name: w.clone() for name, w in model.state_dict().items()}
    retrain_rounded(model, fitted, zeros, jolt)
    after = model.state_dict()
    assert list(after) == list(before)
    for name, w in after.items():
        assert torch.equal(fitted[name].round(w), w)
        assert not bool(w[zeros[name]].any())
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_the_best_scored_file_is_given_back():
    seen = []

    def score(file):
        seen.append(file)
        return float([3, 1, 2][len(seen) - 1])

    ternary = Uniform(top=1, unit_step=True)
    file = incremental(trained(), retrain=jolt, quantizer=ternary, straight=2, score=score)
    assert len(seen) == 3
    assert file == seen[1]
    assert file != seen[0]


def test_pruning_comes_first():
    file = incremental(trained(), retrain=fit, sparsities=(0.3, 0.6))
    live = sum(int((w != 0).sum()) for w in file.state_dict().values())
    assert live <= 1 + 0.4 * sum(w.numel() for w in file.state_dict().values())


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.4, 1.0), (0.0, 1.0), (0.5, 1.5)])
def test_shares_that_do_not_rise_to_one_are_refused(shares):
    with pytest.raises(UsageError, match="shares must rise"):
        incremental(trained(), retrain=fit, shares=shares)


def test_straight_without_score_is_refused():
    with pytest.raises(UsageError, match=r"straight=1 needs .* score"):
        incremental(trained(), retrain=fit, straight=1)


@pytest.mark.parametrize("shares", [(0.5, 1.0), (1.0,)])
def test_training_that_diverges_is_refused(shares):
    def diverge(network):
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(torch.nan)
        network(data().x)

    with pytest.raises(NonFinite, match="lower its learning rate"):
        incremental(
            trained(), retrain=diverge, shares=shares, straight=len(shares) % 2, score=bound
        )


@pytest.mark.parametrize("seed", range(3))
def test_the_search_is_never_worse_and_reports_falling_bounds(seed):
    before, seen = random_file(seed), []
    after = screened(before, build=build, data=data(), tries=60, seed=seed, watch=seen.append)
    assert bound(after) < bound(before)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("hard", [0.05, 0.3])
def test_the_screen_changes_nothing_about_what_is_accepted(hard):
    """The same changes in the same order are kept with any screen, as if all were counted."""
    few, all_ = (
        screened(random_file(7), build=build, data=data(), hard=share, tries=60)
        for share in (hard, 1.0)
    )
    assert few == all_
    assert few != random_file(7)


def test_the_screen_never_counts_more_than_there_are():
    search = _Search(random_file(3), build, data(), 0.05, 0.0, 0.2, None)
    generator = np.random.default_rng(0)
    missed_some = False
    for name, index in itertools.product(search.grids, range(12)):
        flat = search.tensors[name].view(-1)
        old, change = float(flat[index]), float(generator.choice([-3, -1, 1, 3]))
        flat[index] = old + change
        on_screen = search.screen.errors(name, index, change)
        everywhere = int(zero_one(search.model, search.data).sum())
        assert on_screen <= everywhere == search.screen.recount(name, index, change)
        missed_some |= on_screen < everywhere
        flat[index] = old
    assert missed_some


@pytest.mark.parametrize(
    "steps",
    [
        (nn.Conv2d(1, 2, 3, 2, 1, bias=False), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3)),
        (nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, dilation=2), nn.Flatten()),
        (nn.Conv2d(1, 3, 6, bias=False), nn.Flatten(), nn.Softmax(1), nn.Linear(3, 3)),
        (nn.Linear(6, 2), nn.Flatten(), nn.ReLU(), nn.Linear(12, 3)),
        (nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.GELU()),
        (nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3, groups=2), nn.AvgPool2d(2), nn.Flatten()),
    ],
)
def test_a_change_followed_through_its_unit_gives_the_scores_of_the_network(steps):
    model, x = nn.Sequential(*copy.deepcopy(steps)).double(), data().x[:20].double()
    kept = Kept.of(list(model), x)
    before = [output.clone() for output in kept.outputs]
    for part, step in enumerate(model):
        weight = getattr(step, "weight", None)
        for index in range(0 if weight is None else weight.numel()):
            flat = weight.detach().view(-1)
            old = float(flat[index])
            flat[index] = old + 0.5
            torch.testing.assert_close(kept.scores(part, index, 0.5), model(x))
            flat[index] = old
    for one, other in zip(before, kept.outputs, strict=True):
        assert torch.equal(one, other)


def test_a_finished_search_is_a_local_optimum_of_the_unscreened_one():
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False), nn.Linear(2, 3))

    levels = {"1.weight": (2, 36), "2.weight": (3, 2), "2.bias": (3,)}
    grids = {name: Grid(levels=np.zeros(shape, dtype=np.int64)) for name, shape in levels.items()}
    for grid in grids.values():
        grid.levels.flat[:2] = 1
    search = _Search(pack(build(), grids, coder=Adaptive()), build, data(), 0.05, 0.0, 0.1, None)
    generator = np.random.default_rng(0)
    while search.sweep(generator, float("inf"))[1]:
        pass
    file = pack(search.small.into(build), search.grids, coder=Adaptive())
    plain = _Plain(file, build, data(), 0.05, 1, zero_one)
    assert plain.bound == search.standing.bound
    assert plain.sweep(generator) == 0


def test_models_that_are_no_sequential_are_searched_too():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build()

        def forward(self, x):
            return self.inner(x)

    grids = {f"inner.{name}": grid for name, grid in random_file(2).grids().items()}
    file = pack(Wrapped(), grids, coder=Adaptive())
    inside = screened(random_file(2), build=build, data=data(), tries=30)
    outside = screened(file, build=Wrapped, data=data(), tries=30)
    assert inside.stream == outside.stream


@pytest.mark.parametrize(
    "wrong", [{"sweeps": -1}, {"choices": 0}, {"hard": 0.0}, {"hard": 1.5}, {"tries": -1}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="needs sweeps >= 0, choices >= 1, 0 < hard <= 1"):
        screened(random_file(0), build=build, data=data(), **wrong)


def test_tensors_off_the_grid_are_refused():
    file = pack(trained(), coder=Adaptive())
    with pytest.raises(UsageError, match=r"all tensors on grids, but 0\.weight is not"):
        screened(file, build=build, data=data())
