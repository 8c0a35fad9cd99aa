"""From shares to counts: exact totals, caps and floors, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.allocate import Ramp, UniformAllocation
from tailor.stages.allocate.shares import apportion, fill, share_out
from tests.stages.allocate.layers import SCORE, layers, random, shapes, total_dropped

SIZES = st.lists(st.integers(2, 400), min_size=1, max_size=8)


def redistributed(rates, weights, total, cap):
    """Cap, and share the surplus out among the others in proportion, until none is above."""
    values = rates * total / (weights @ rates)
    capped = np.zeros(len(values), dtype=bool)
    while (over := ~capped & (values > cap + 1e-15)).any():
        surplus = float(weights[over] @ (values[over] - cap))
        values[over] = cap
        capped |= over
        values[~capped] *= 1 + surplus / float(weights[~capped] @ values[~capped])
    return values


@settings(max_examples=30)
@given(SIZES, st.floats(0, 0.9), st.data())
def test_fill_is_capping_and_redistributing_until_stable(sizes, sparsity, data):
    rates = np.array(
        data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    )
    weights = np.array(sizes, dtype=np.float64)
    total = sparsity * weights.sum()
    cap = np.full(len(sizes), 0.95)
    found = fill(rates, weights, total, low=np.zeros(len(sizes)), high=cap)
    np.testing.assert_allclose(found, redistributed(rates, weights, total, 0.95), atol=1e-9)
    assert weights @ found == pytest.approx(total, rel=1e-12, abs=1e-9)


@settings(max_examples=30)
@given(SIZES, st.floats(0.1, 0.9), st.data())
def test_fill_with_a_floor_is_one_factor_between_the_bounds(sizes, sparsity, data):
    rates = np.array(
        data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    )
    weights = np.array(sizes, dtype=np.float64)
    low, high = np.full(len(sizes), 0.1), np.full(len(sizes), 0.9)
    found = fill(rates, weights, sparsity * weights.sum(), low=low, high=high)
    assert weights @ found == pytest.approx(sparsity * weights.sum(), rel=1e-12)
    inside = (found > 0.1 + 1e-12) & (found < 0.9 - 1e-12)
    if inside.any():
        factor = (found[inside] / rates[inside]).mean()
        np.testing.assert_allclose(found[inside], factor * rates[inside], rtol=1e-9)
        np.testing.assert_allclose(found, np.clip(factor * rates, low, high), rtol=1e-9)


@settings(max_examples=30)
@given(
    st.lists(st.integers(10, 400), min_size=1, max_size=8), st.floats(0, 0.7), st.integers(0, 99)
)
def test_totals_are_exact_and_counts_next_to_their_shares(sizes, sparsity, seed):
    rates = np.random.default_rng(seed).uniform(0.9, 1.1, len(sizes))
    given_layers = shapes({f"w{i}": (1, size) for i, size in enumerate(sizes)})
    ratios = {one.name: float(rate) for one, rate in zip(given_layers, rates, strict=True)}
    found = share_out("it", given_layers, ratios, sparsity, cap=0.99)
    assert total_dropped(found) == round(sparsity * sum(sizes))
    exact = rates * sizes * total_dropped(found) / (rates @ sizes)
    counts = np.array(list(found.drop.values()))
    if (exact <= 0.89 * np.array(sizes)).all():  # nothing is capped
        assert (counts >= np.floor(exact - 1e-9)).all()
        assert (counts <= np.floor(exact + 1e-9) + 1).all()


def test_largest_remainders_get_one_more_and_of_equal_ones_the_first():
    exact = np.array([1.5, 2.75, 0.5, 3.25])
    most = np.array([9, 9, 9, 9])
    assert apportion(exact, 8, most).tolist() == [2, 3, 0, 3]
    assert apportion(exact, 8, np.array([1, 9, 9, 9])).tolist() == [1, 3, 1, 3]
    assert apportion(exact, 10, np.array([2, 3, 1, 4])).tolist() == [2, 3, 1, 4]


def test_a_large_network_meets_its_sparsity_to_1e_12():
    given_layers = shapes({f"{i}.w": (4096 + i, 11008) for i in range(224)})
    ratios = {one.name: 1 + (i % 7) / 10 for i, one in enumerate(given_layers)}
    found = share_out("it", given_layers, ratios, 0.7, cap=0.99)
    size = sum(found.sizes.values())
    assert total_dropped(found) == round(0.7 * size)
    factor = 0.7 * size / sum(ratios[n] * s for n, s in found.sizes.items())
    for name, ratio in ratios.items():  # a count is at most one entry off
        assert found.ratio(name) == pytest.approx(factor * ratio, abs=1 / found.sizes[name])


def test_zeros_count_and_nothing_is_loaded():
    found = UniformAllocation().allocate(shapes({"a": (10, 10), "b": (0, 4)}), 0.5, score=SCORE)
    assert found.drop == {"a": 50, "b": 0}
    assert found.ratio("b") == 0.0
    assert found.sparsity == 0.5


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan"), True])
def test_a_sparsity_out_of_range(sparsity):
    with pytest.raises(UsageError, match=r"sparsity must be a number in \[0, 1\), but is"):
        share_out("it", shapes({"a": (2, 2)}), {"a": 1.0}, sparsity, cap=0.9)


def test_no_sparsity():
    with pytest.raises(UsageError, match=r"shares out a given sparsity; give one, such as 0\.5"):
        UniformAllocation().allocate(layers(random()), None, score=SCORE)


def test_no_matrix_or_two_of_one_name():
    with pytest.raises(UsageError, match="there is no matrix to prune"):
        UniformAllocation().allocate([], 0.5, score=SCORE)
    with pytest.raises(UsageError, match="2 layers have only 1 names"):
        UniformAllocation().allocate(shapes({"a": (2, 2)}) * 2, 0.5, score=SCORE)


def test_above_the_cap_the_largest_possible_sparsity_is_named_and_works():
    few = shapes({"a": (10, 10), "b": (1, 3)})
    with pytest.raises(UsageError, match=r"at most 0\.8932 of all entries with the cap 0\.9"):
        UniformAllocation(cap=0.9).allocate(few, 0.95, score=SCORE)
    assert UniformAllocation(cap=0.9).allocate(few, 0.8932, score=SCORE).drop == {"a": 90, "b": 2}


def test_no_matrix_is_emptied_even_with_a_cap_of_one():
    found = UniformAllocation(cap=1.0).allocate(
        shapes({"a": (99, 10), "b": (1, 3)}), 0.99, score=SCORE
    )
    assert found.dropped("b") == 2


def test_below_the_floor():
    with pytest.raises(UsageError, match=r"a sparsity of 0\.1 is below the floor 0\.2"):
        Ramp(beta=0.1, floor=0.2).allocate(layers(random()), 0.1, score=SCORE)


@pytest.mark.parametrize(
    ("cap", "floor"), [(0.5, 0.5), (1.1, 0.0), (0.9, -0.1), (float("nan"), 0.0)]
)
def test_bounds_that_are_none(cap, floor):
    with pytest.raises(UsageError, match="need 0 <= floor < cap <= 1"):
        Ramp(beta=0.1, cap=cap, floor=floor)


def test_as_a_table():
    found = UniformAllocation().allocate(shapes({"a": (10, 10), "b": (2, 5)}), 0.5, score=SCORE)
    frame = found.to_frame()
    assert frame.columns.tolist() == ["name", "size", "dropped", "ratio", "metric"]
    assert frame["dropped"].tolist() == [50, 5]
    assert frame["ratio"].tolist() == [0.5, 0.5]
