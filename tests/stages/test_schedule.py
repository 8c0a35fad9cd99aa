"""Schedules against torch's own and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.schedule import Constant, CosineDecay, ExpDecay, LinearDecay, PowerDecay, Window


def by_torch(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_and_linear_are_torchs():
    lr = torch.optim.lr_scheduler
    ours = [CosineDecay(steps=7)(step) for step in range(8)]
    assert ours == pytest.approx(by_torch(lambda o: lr.CosineAnnealingLR(o, 7), 8), abs=1e-12)
    ours = [LinearDecay(steps=7)(step) for step in range(9)]
    assert ours == pytest.approx(by_torch(lambda o: lr.LinearLR(o, 1.0, 0.0, 7), 9), abs=1e-12)


def test_decays_by_hand():
    power = PowerDecay(period=2, rate=1.0, cutoff=0.3)
    assert [power(step) for step in range(8)] == pytest.approx(
        [1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 0, 0]
    )
    fall = ExpDecay(period=3, rate=0.5)
    assert [fall(step) for step in (0, 2, 3, 6)] == pytest.approx(
        [1, 1, math.exp(-0.5), math.exp(-1)]
    )
    assert [Window(start=1, stop=3)(step) for step in range(4)] == [0, 1, 1, 0]
    assert Window(start=2)(10**9) == 1


@given(
    st.sampled_from(
        [
            Constant(),
            PowerDecay(period=3),
            ExpDecay(period=2, cutoff=0.1),
            LinearDecay(steps=9),
            CosineDecay(steps=9),
            Window(stop=5),
        ]
    ),
    st.integers(0, 10**6),
)
def test_factors_lie_between_zero_and_one_and_never_rise(schedule, step):
    assert 1 >= schedule(step) >= schedule(step + 1) >= 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerDecay(period=0), "period >= 1"),
        (lambda: ExpDecay(period=1, rate=-1.0), "rate >= 0"),
        (lambda: ExpDecay(period=1, cutoff=1.0), "cutoff < 1"),
        (lambda: LinearDecay(steps=0), "at least one step"),
        (lambda: CosineDecay(steps=-3), "at least one step"),
        (lambda: Window(start=3, stop=3), "start < stop"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UsageError, match=message):
        make()
