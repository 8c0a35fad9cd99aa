"""Local search: never worse, and right about what it says."""

import numpy as np
import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import occam
from tailor.numerics.coding import Grid
from tailor.stages.compress import Adaptive, pack
from tailor.stages.polish import _Search, polish
from tailor.tasks import Data, zero_one


def build():
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))


def data():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    return Data(x=x, y=(x[:, 0] + 0.5 * x[:, 1] > 0).long())


def start(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (5, 6), "2.weight": (2, 5)}
    grids = {
        name: Grid(levels=torch.randint(-2, 3, shape, generator=generator).numpy())
        for name, shape in shapes.items()
    }
    return pack(build(), grids, coder=Adaptive())


def bound(small):
    errors = int(zero_one(small.into(build), data()).sum())
    return occam(errors, 200, 8.0 * len(small.stream), 0.05).binomial


@pytest.mark.parametrize("seed", range(5))
def test_a_random_start_gets_better_and_never_worse(seed):
    before = start(seed)
    after = polish(before, build=build, data=data(), sweeps=1, seed=seed)
    assert bound(after) < bound(before)
    assert bound(polish(after, build=build, data=data(), sweeps=1)) <= bound(after)


def test_reported_bounds_fall_and_the_file_keeps_the_last():
    seen = []
    after = polish(start(1), build=build, data=data(), sweeps=50, watch=seen.append)
    assert seen == sorted(seen, reverse=True)
    assert len(seen) < 50  # it stops by itself, with a sweep that changes nothing
    assert seen[-1] == seen[-2]
    errors = int(zero_one(after.into(build), data()).sum())
    bits = sum(sum(parts.values()) for parts in after.code_length().values())
    assert occam(errors, 200, bits, 0.05).binomial <= seen[-1] + 1e-9  # packing may save more


def test_no_sweep_returns_a_file_of_the_same_function():
    before = start(2)
    after = polish(before, build=build, data=data(), sweeps=0)
    x = data().x
    assert torch.equal(before.into(build)(x).argmax(1), after.into(build)(x).argmax(1))


def test_the_same_seed_gives_the_same_file():
    one, two = (polish(start(3), build=build, data=data(), seed=4) for _ in range(2))
    assert one == two


def test_the_search_ends_in_a_local_optimum():
    """No level of any one weight in reach gives a smaller bound: tried by brute force."""
    search = _Search(start(5), build, data(), 0.05, 1, zero_one)
    generator = np.random.default_rng(0)
    while search.sweep(generator):
        pass
    grids = {name: grid.levels.copy() for name, grid in search.grids.items()}

    def ideal():
        coded = {name: Grid(levels=levels) for name, levels in grids.items()}
        file = pack(build(), coded, coder=Adaptive())
        errors = int(zero_one(file.into(build), data()).sum())
        bits = sum(sum(parts.values()) for parts in file.code_length().values())
        return occam(errors, 200, bits, 0.05).binomial

    best = ideal()
    assert search.bound == pytest.approx(best, rel=1e-9)
    for levels in grids.values():
        for place in np.flatnonzero(levels).tolist():
            old = levels.flat[place]
            for level in {0, old - 1, old + 1, -old}:
                levels.flat[place] = level
                assert ideal() >= best - 1e-9
            levels.flat[place] = old


def test_a_vacuous_start_is_polished_too():
    few = Data(x=torch.zeros(6, 6), y=torch.zeros(6, dtype=torch.long))  # ties: all are wrong
    before = start(0)
    assert _Search(before, build, few, 0.05, 1, zero_one).bound == 1.0
    after = polish(before, build=build, data=few, sweeps=2)
    assert len(after.stream) < len(before.stream)


def test_refuses():
    with pytest.raises(UsageError, match="needs sweeps >= 0"):
        polish(start(0), build=build, data=data(), sweeps=-1)
