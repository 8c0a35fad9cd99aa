"""Global magnitude and LAMP against sorting everything, and their memory."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import NonFinite, UsageError
from tailor.stages.allocate import LAMP, GlobalMagnitude, smallest
from tailor.weights.layer import Layer
from tests.stages.allocate.layers import SCORE, layers, random, total_dropped


def among_the_smallest(scores, drop):
    """Counts by matrix of the smallest scores of all; of equal ones the first of the first."""
    names = [name for name, score in scores.items() for _ in range(score.numel())]
    order = torch.cat([score.flatten() for score in scores.values()]).argsort(stable=True)[:drop]
    return {name: sum(names[i] == name for i in order.tolist()) for name in scores}


def in_units_of_their_rms(tensors):
    sizes = {name: w.abs().double() for name, w in tensors.items()}
    return {name: s / (s[s > 0] ** 2).mean().sqrt() for name, s in sizes.items()}


def lamp_scores(tensors):
    """w^2 over the sum of all squares that are at least as large, weight by weight."""
    found = {}
    for name, w in tensors.items():
        square = w.flatten().double().square()
        order = square.argsort(stable=True)
        score = torch.zeros_like(square)
        for place, i in enumerate(order.tolist()):
            score[i] = square[i] / square[order[place:]].sum()
        found[name] = score
    return found


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0, 0.98))
def test_as_many_as_lie_among_the_smallest(seed, sparsity):
    tensors = random(seed)
    found = GlobalMagnitude().allocate(layers(tensors), sparsity, score=SCORE)
    total = round(sparsity * 216)
    expected = among_the_smallest({n: w.abs() for n, w in tensors.items()}, total)
    if all(expected[n] < w.numel() for n, w in tensors.items()):
        assert found.drop == expected
    assert total_dropped(found) == total


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0, 0.85))
def test_relative_sizes_are_in_units_of_each_matrix(seed, sparsity):
    tensors = random(seed)
    tensors["blocks.0.w"][0] = 0.0
    found = GlobalMagnitude(relative=True).allocate(layers(tensors), sparsity, score=SCORE)
    expected = among_the_smallest(in_units_of_their_rms(tensors), round(sparsity * 216))
    assert found.drop == expected


def test_the_scale_of_a_matrix_does_not_matter_where_sizes_are_relative():
    tensors, rule = random(), GlobalMagnitude(relative=True)
    before = rule.allocate(layers(tensors), 0.5, score=SCORE).drop
    tensors["blocks.1.w"] = tensors["blocks.1.w"] * 2.0**-20
    assert rule.allocate(layers(tensors), 0.5, score=SCORE).drop == before


@settings(max_examples=25)
@given(st.integers(0, 99), st.floats(0, 0.95))
def test_lamp_is_its_definition(seed, sparsity):
    tensors = random(seed)
    found = LAMP().allocate(layers(tensors), sparsity, score=SCORE)
    assert found.drop == among_the_smallest(lamp_scores(tensors), round(sparsity * 216))


VALUES = st.sampled_from([0.0, 1e-300, 0.25, 0.5, 0.5 + 2**-50, 1.0, 3.0, 1e300])


@settings(max_examples=30)
@given(
    st.lists(st.lists(VALUES, min_size=1, max_size=30), min_size=1, max_size=4),
    st.floats(0, 0.99),
    st.sampled_from([3, 20]),
    st.integers(0, 8),
)
def test_passes_over_the_bits_find_what_sorting_finds(values, sparsity, bits, few):
    tensors = {f"w{i}": torch.tensor([v], dtype=torch.float64) for i, v in enumerate(values)}
    drop = int(sparsity * sum(map(len, values)))
    sources = [
        lambda w=w: [w.flatten().numpy()[:3], w.flatten().numpy()[3:]] for w in tensors.values()
    ]
    sizes = [w.numel() for w in tensors.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smallest, "FEW", few)
        patch.setattr(smallest, "BITS", bits)
        found = smallest.smallest(sources, sizes, drop, sizes)
    assert dict(zip(tensors, found, strict=True)) == among_the_smallest(tensors, drop)


def test_many_weights_take_several_passes(monkeypatch):
    monkeypatch.setattr(smallest, "FEW", 100)
    tensors = random(rows=60, columns=50)
    found = GlobalMagnitude().allocate(layers(tensors), 0.6, score=SCORE)
    total = sum(w.numel() for w in tensors.values())
    assert found.drop == among_the_smallest(
        {n: w.abs() for n, w in tensors.items()}, round(0.6 * total)
    )


def test_what_a_capped_matrix_keeps_the_others_lose():
    tensors = {
        "a": 1e-3 * torch.rand(10, 10),
        "b": 1 + torch.rand(10, 10),
        "c": 5 + torch.rand(10, 10),
    }
    found = GlobalMagnitude(cap=0.9).allocate(layers(tensors), 0.5, score=SCORE)
    assert found.drop == {"a": 90, "b": 60, "c": 0}
    assert GlobalMagnitude().allocate(layers(tensors), 0.5, score=SCORE).drop == {
        "a": 99,
        "b": 51,
        "c": 0,
    }
    with pytest.raises(
        UsageError, match=r"can drop at most 0\.9000 of all entries with the cap 0\.9"
    ):
        GlobalMagnitude(cap=0.9).allocate(layers(tensors), 0.91, score=SCORE)


def test_ties_do_not_drop_too_much():
    tensors = {"a": torch.ones(4, 4), "b": torch.ones(4, 4)}
    assert GlobalMagnitude().allocate(layers(tensors), 0.5, score=SCORE).drop == {"a": 15, "b": 1}


@pytest.mark.parametrize("rule", [GlobalMagnitude(), GlobalMagnitude(relative=True), LAMP()])
def test_zeros_go_first(rule):
    tensors = random()
    tensors["blocks.2.w"] = torch.zeros(9, 9)
    found = rule.allocate(layers(tensors), 0.3, score=SCORE)
    assert found.drop == {"blocks.0.w": 0, "blocks.1.w": 0, "blocks.2.w": 65}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_types_are_compared_exactly(dtype):
    wide = (1e-9, 1.5e-9, 1e9) if dtype == torch.bfloat16 else (1.0, 3.0, 0.2)
    tensors = {name: (8 * w).to(dtype) for name, w in random(scales=wide).items()}
    found = GlobalMagnitude().allocate(layers(tensors), 0.5, score=SCORE)
    assert found.drop == among_the_smallest({n: w.double().abs() for n, w in tensors.items()}, 108)


def test_one_matrix_at_a_time():
    alive = weakref.WeakSet()
    most = []

    def loader(i):
        def load():
            most.append(len(alive))
            tensor = torch.randn(8, 8, generator=torch.Generator().manual_seed(i))
            alive.add(tensor)
            return tensor

        return load

    few = [
        Layer(name=f"{i}", key="", shape=(8, 8), dtype="float32", load=loader(i)) for i in range(6)
    ]
    GlobalMagnitude(relative=True).allocate(few, 0.5, score=SCORE)
    LAMP().allocate(few, 0.5, score=SCORE)
    assert len(most) >= 12
    assert max(most) <= 1  # the one before may still be a loop variable


def test_weights_that_are_not_finite_or_not_real():
    tensors = random()
    tensors["blocks.1.w"][0, :2] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(NonFinite, match=r"blocks\.1\.w holds 2 NaN or infinite weights"):
        GlobalMagnitude().allocate(layers(tensors), 0.5, score=SCORE)
    with pytest.raises(
        UsageError, match="a is complex, but the sizes of real weights are compared"
    ):
        LAMP().allocate(layers({"a": torch.ones(2, 2, dtype=torch.complex64)}), 0.5, score=SCORE)


def test_a_matrix_without_entries_and_a_view_with_strides():
    tensors = {"a": torch.randn(6, 8).mT, "b": torch.zeros(0, 3), "c": torch.randn(4, 2, 3, 3)}
    found = GlobalMagnitude().allocate(layers(tensors), 0.5, score=SCORE)
    assert found.drop["b"] == 0
    assert total_dropped(found) == 60
