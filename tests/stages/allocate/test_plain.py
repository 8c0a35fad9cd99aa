"""Allocations that look at no weight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import UsageError
from tailor.stages.allocate import ERK, FixedAllocation, Ramp, UniformAllocation
from tailor.weights.source import read
from tests.stages.allocate.layers import SCORE, shapes, total_dropped

SIX = {f"blocks.{i}.{k}": (20, 50) for i in range(6) for k in "ab"}


@settings(max_examples=30)
@given(st.floats(0, 0.98))
def test_uniform(sparsity):
    found = UniformAllocation().allocate(shapes(SIX), sparsity, score=SCORE)
    assert total_dropped(found) == round(sparsity * 12000)
    assert {found.dropped(name) - int(1000 * sparsity) for name in SIX} <= {-1, 0, 1}


def test_ramp_is_an_arithmetic_progression_over_blocks():
    found = Ramp(beta=0.06).allocate(shapes(SIX), 0.7, score=SCORE)
    ratios = [found.ratio(name) for name in SIX]
    np.testing.assert_allclose(
        ratios, np.repeat([0.55, 0.61, 0.67, 0.73, 0.79, 0.85], 2), atol=1e-12
    )
    assert total_dropped(found) == 8400
    assert found.metric["blocks.4.b"] == 4


def test_ramp_of_blocks_of_different_size_keeps_the_sparsity():
    given_layers = shapes({"0.w": (100, 100), "1.w": (10, 10), "2.w": (10, 10)})
    found = Ramp(beta=0.1).allocate(given_layers, 0.5, score=SCORE)
    assert total_dropped(found) == 5100
    steps = np.diff([found.ratio(name) for name in ("0.w", "1.w", "2.w")])
    np.testing.assert_allclose(steps, 0.1, atol=0.01)  # one of a hundred entries


def test_ramp_falls_with_a_negative_beta_and_meets_the_cap():
    found = Ramp(beta=-0.2).allocate(shapes(SIX), 0.7, score=SCORE)
    ratios = [found.ratio(f"blocks.{i}.a") for i in range(6)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == ratios[1] == 0.99
    assert total_dropped(found) == 8400


def test_ramp_follows_the_modules_of_a_model():
    model = nn.ModuleDict({name: nn.Linear(10, 10) for name in ("stem", "body", "fc")})
    found = Ramp(beta=0.1).allocate(read(model).layers, 0.5, score=SCORE, model=model)
    assert found.drop == {"stem.weight": 40, "body.weight": 50, "fc.weight": 60}


def test_ramp_that_is_none():
    with pytest.raises(UsageError, match="beta must lie between -1 and 1, but is nan"):
        Ramp(beta=float("nan"))


def erk_densities(given_shapes, sparsity):
    """RigL's loop: scale, make dense what is above 1, and again (Evci et al. 2020)."""
    dense = set()
    size = {n: int(np.prod(s)) for n, s in given_shapes.items()}
    raw = {n: sum(s) / size[n] for n, s in given_shapes.items()}
    while True:
        left = (1 - sparsity) * sum(size.values()) - sum(size[n] for n in dense)
        epsilon = left / sum(raw[n] * size[n] for n in raw if n not in dense)
        over = {n for n in raw if n not in dense and epsilon * raw[n] > 1}
        if not over:
            return {n: 1.0 if n in dense else epsilon * raw[n] for n in raw}
        dense |= over


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9])
def test_erk_is_that_of_rigl(sparsity):
    given_shapes = {
        "conv1": (32, 3, 3, 3),
        "conv2": (64, 32, 3, 3),
        "fc": (400, 576),
        "out": (10, 400),
    }
    found = ERK().allocate(shapes(given_shapes), sparsity, score=SCORE)
    expected = erk_densities(given_shapes, sparsity)
    for name in given_shapes:
        assert found.ratio(name) == pytest.approx(1 - expected[name], abs=1 / found.sizes[name])
    assert total_dropped(found) == round(sparsity * sum(found.sizes.values()))
    assert found.ratio("fc") > found.ratio("conv2") > found.ratio("conv1")


def test_erk_stays_below_the_cap():
    found = ERK(cap=0.95).allocate(shapes({"a": (500, 500), "b": (20, 20)}), 0.949, score=SCORE)
    assert found.ratio("a") == 0.95
    with pytest.raises(UsageError, match=r"can drop at most 0\.9500 of all entries"):
        ERK(cap=0.95).allocate(shapes({"a": (500, 500), "b": (20, 20)}), 0.96, score=SCORE)


def test_fixed_shares_as_they_are_or_scaled():
    given_layers = shapes({"a": (10, 10), "b": (10, 20), "c": (5, 5)})
    fixed = FixedAllocation(ratios={"a": 0.5, "b": 0.25})
    assert fixed.allocate(given_layers, None, score=SCORE).drop == {"a": 50, "b": 50, "c": 0}
    scaled = fixed.allocate(given_layers, 0.6, score=SCORE)
    assert scaled.drop == {"a": 98, "b": 97, "c": 0}
    with pytest.raises(UsageError, match=r"can drop at most 0\.9138 of all entries"):
        fixed.allocate(given_layers, 0.95, score=SCORE)


def test_fixed_shares_of_what_is_not_there():
    with pytest.raises(UsageError, match="ratios name z, but the matrices are a; name these"):
        FixedAllocation(ratios={"z": 0.5}).allocate(shapes({"a": (2, 2)}), None, score=SCORE)
    with pytest.raises(UsageError, match=r"the share of a must lie in \[0, 1\), but is 1.0"):
        FixedAllocation(ratios={"a": 1.0})
