"""The code with contexts: lengths by counting, inverses, the Kraft inequality, hostile bytes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tailor.errors import PayloadError
from tailor.numerics.coding import (
    Before,
    Grid,
    Options,
    Raw,
    Spec,
    Steady,
    code_length,
    contextual,
    contextual_bits,
    contextual_length,
    contextual_lengths,
    contextual_options,
    contextual_prior,
    decode_contextual,
    encode_contextual,
    flip_lengths,
)
from tailor.numerics.coding.arithmetic import Encoder
from tailor.numerics.coding.contexts import OCCUPANCY, SIGNS

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)
tops = st.sampled_from([1, 1, 2, 4, 15, 16, 17, 900])
levels = st.tuples(shapes, tops).flatmap(
    lambda drawn: arrays(
        np.int64,
        drawn[0],
        elements=st.one_of(st.just(0), st.integers(-drawn[1], drawn[1])),
        fill=st.just(0),
    )
)
matrices = arrays(
    np.int64,
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.sampled_from([0, 0, 0, 1, -1, 3]),
)
steps = st.one_of(
    st.just(1.0),
    st.integers(-130, 120).map(lambda power: 2.0**power),
    st.integers(-90, 90).map(lambda power: 1.5 * 2.0**power),
)
choices = st.tuples(
    st.booleans(),
    st.booleans(),
    st.sampled_from(list(OCCUPANCY)),
    st.sampled_from(SIGNS),
    st.integers(1, 7),
)
# Plain values; `built` makes tensors of them, as type checks may not run inside a strategy.
messages = st.lists(
    st.one_of(st.tuples(levels, steps, choices), st.binary(min_size=4, max_size=4)), max_size=4
)


def options(choice):
    rows, columns, occupancy, signs, lag = choice
    made = Options(rows=rows, columns=columns, occupancy=occupancy, signs=signs, lag=lag)
    return made if made.uses_left else Options(**{**as_dict(made), "lag": 1})


def as_dict(made):
    return {name: getattr(made, name) for name in ("rows", "columns", "occupancy", "signs", "lag")}


def built(message):
    tensors, specs, chosen = [], [], []
    for item in message:
        if isinstance(item, bytes):
            tensors.append(Raw(data=item))
            specs.append(Spec(shape=(2,), dtype="float16"))
            chosen.append(Options())
        else:
            tensors.append(Grid(levels=item[0], step=item[1]))
            specs.append(Spec(shape=item[0].shape, dtype="float32"))
            chosen.append(options(item[2]))
    return tensors, specs, chosen


def total(tensors, chosen):
    """Ideal bits under given options."""
    before, bits = Before(), 0.0
    for tensor, one in zip(tensors, chosen, strict=True):
        bits += sum(contextual_length(tensor, one, before).values())
        if isinstance(tensor, Grid):
            shape = tensor.levels.shape
            before = before.after(
                tensor.levels.reshape(shape[0], math.prod(shape[1:])).astype(np.int64)
            )
    return bits


def head(seed, shape=(10, 37), entries=95):
    """A ternary head with that many weights that are not zero."""
    generator = np.random.default_rng(seed)
    values = np.zeros(math.prod(shape), dtype=np.int64)
    values[generator.permutation(values.size)[:entries]] = generator.choice([-1, 1], entries)
    return values.reshape(shape)


def every_matrix(shape):
    """All ternary matrices of a shape."""
    for entries in itertools.product((-1, 0, 1), repeat=math.prod(shape)):
        yield np.array(entries).reshape(shape)


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, Grid):
        np.testing.assert_array_equal(one.levels, other.levels)
        assert one.step == other.step
    else:
        assert one.data == other.data


@settings(max_examples=10)
@given(messages)
def test_decode_inverts_encode_under_any_options(message):
    tensors, specs, chosen = built(message)
    stream = encode_contextual(tensors, chosen)
    for one, other in zip(tensors, decode_contextual(stream, specs), strict=True):
        assert_equal(one, other)
    assert contextual_options(stream, specs) == chosen


class Meter(Encoder):
    """Adds up what each decision costs under its coin."""

    spent = 0.0

    def bit(self, coin, value=None):
        Meter.spent += math.log2((coin.zeros + coin.ones) / (coin.ones if value else coin.zeros))
        return super().bit(coin, value)


@settings(max_examples=10)
@given(messages)
def test_closed_form_is_what_the_coins_cost_one_by_one(message):
    tensors, _, chosen = built(message)
    Meter.spent = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contextual, "Encoder", Meter)
        written = contextual_bits(tensors, chosen)
    assert total(tensors, chosen) == pytest.approx(Meter.spent, rel=1e-12, abs=1e-9)
    assert Meter.spent - 1e-4 <= written <= Meter.spent + 2


@given(st.lists(st.tuples(matrices, st.just(1.0), choices), max_size=2))
@settings(max_examples=4)
def test_the_encoder_takes_the_shortest_and_the_sum_of_all_is_shorter(message):
    tensors, _, chosen = built(message)
    best = sum(sum(parts.values()) for parts in contextual_lengths(tensors))
    assert best <= total(tensors, chosen) + 1e-9
    assert contextual_bits(tensors) <= best + 2
    assert best - 3 * len(tensors) - 1 <= contextual_prior(tensors) <= best + 3e-6


def test_many_decisions_cost_their_ideal_length():
    """The coder's registers are wide enough: nothing but its end is lost."""
    sparse = Grid(levels=head(0, (20, 100), 60))
    ideal = sum(contextual_length(sparse, Options()).values())
    assert 0 <= contextual_bits([sparse], [Options()]) - ideal <= 2


def test_a_sparse_head_costs_its_entropy_and_little_more():
    """370 weights, 95 of them +-1. Version 1 spends 5 bits on its head and a little on its coin."""
    tensor = Grid(levels=head(1))
    share = 95 / 370
    entropy = -370 * (share * math.log2(share) + (1 - share) * math.log2(1 - share)) + 95
    ideal = sum(contextual_length(tensor, Options()).values())
    assert entropy < ideal < entropy + 5
    assert ideal < sum(code_length(tensor).values()) - 4
    assert contextual_bits([tensor], [Options()]) <= 405


@pytest.mark.parametrize(
    ("chosen", "levels"),
    [
        ("left", np.repeat(head(2, (20, 10), 40), 2, axis=1)),
        ("above", np.repeat(head(3, (10, 20), 40), 2, axis=0)),
        ("own column", head(4, (20, 20), 200) * (np.arange(20) % 3 == 0)),
        ("own row", head(5, (20, 20), 200) * (np.arange(20) % 3 == 0)[:, None]),
    ],
)
def test_structure_is_found_and_pays(chosen, levels):
    """Of contexts with one coin more (or one for each line), the one that fits is the shortest."""
    lengths = {
        name: contextual_length(Grid(levels=levels), Options(occupancy=name))["positions"]
        for name in ("one", "left", "above", "own column", "own row")
    }
    assert min(lengths, key=lengths.__getitem__) == chosen
    assert lengths[chosen] < 0.85 * lengths["one"]


def test_columns_of_dead_units_cost_next_to_nothing():
    """In the tensor behind a layer, which of its units are live is known."""
    live = np.arange(64) % 3 == 0
    first = head(3, (64, 20), 640) * live[:, None]
    second = head(4, (10, 64), 320) * live
    flagged = Options(rows=True, columns=True)
    alone = contextual_length(Grid(levels=second), flagged)
    behind = contextual_length(Grid(levels=second), flagged, Before().after(first))
    assert behind["rows and columns"] < 0.4 * alone["rows and columns"]


@settings(max_examples=20)
@given(matrices, choices, st.randoms(use_true_random=False))
def test_lines_may_change_places_under_steady_options(drawn, choice, random):
    """Permuting lines that all hold something, as the count of equal codewords assumes."""
    one = options(choice)
    for axis, steady in [(0, Steady(rows=True)), (1, Steady(columns=True))]:
        if not (steady.allows(one.occupancy) and steady.allows(one.signs)):
            continue
        live = np.flatnonzero((drawn != 0).any(axis=1 - axis))
        order = np.arange(drawn.shape[axis])
        order[live] = random.sample(live.tolist(), len(live))
        moved = np.take(drawn, order, axis=axis)
        lengths = [sum(contextual_length(Grid(levels=w), one).values()) for w in (drawn, moved)]
        assert lengths[0] == pytest.approx(lengths[1], abs=1e-9)


@settings(max_examples=15)
@given(matrices, st.booleans(), st.booleans(), st.lists(st.booleans(), min_size=1, max_size=6))
def test_change_by_each_entry(drawn, rows, columns, units):
    before = Before(units=np.array(units), top=len(units) % 3)
    one = Options(rows=rows, columns=columns)
    now = sum(contextual_length(Grid(levels=drawn), one, before).values())
    found = flip_lengths(drawn, one, before)
    for place in np.ndindex(drawn.shape):
        changed = drawn.copy()
        changed[place] = int(drawn[place] == 0)
        bits = sum(contextual_length(Grid(levels=changed), one, before).values()) - now
        assert found[place] == pytest.approx(bits, abs=1e-9)


def test_kraft_of_ideal_lengths_over_all_ternary_matrices():
    """Under given options all matrices of 2 x 2 together have a probability below 1."""
    for chosen in [Options(), Options(columns=True, occupancy="left", signs="one")]:
        together = sum(
            2.0 ** -sum(contextual_length(Grid(levels=matrix), chosen).values())
            for matrix in every_matrix((2, 3))
        )
        head_only = contextual_length(Grid(levels=np.zeros((2, 2), dtype=int)), chosen)["mode"]
        assert 0.05 * 2**-head_only < together <= 2**-head_only  # levels above 1 hold the rest


def test_kraft_of_the_prior_and_of_the_stream():
    """The prior adds up all codewords of a tensor, the stream is one of them."""
    real = prior = 0.0
    for found in every_matrix((1, 2)):
        tensor = Grid(levels=found)
        bits = contextual_bits([tensor])
        assert bits - 2 <= sum(contextual_length(tensor).values())
        real += 2.0**-bits
        prior += 2.0 ** -contextual_prior([tensor])
    assert 0.05 < real < prior <= 1


def test_the_prior_is_the_sum_over_all_options():
    levels = head(6, (2, 3), 3)
    total = 0.0
    flags = itertools.product((False, True), repeat=2)
    for rows, columns in flags:
        for occupancy, signs, lag in itertools.product(OCCUPANCY, SIGNS, (1, 2)):
            one = options((rows, columns, occupancy, signs, lag))
            if lag == one.lag:  # without the lag that is not sent
                total += 2.0 ** -sum(contextual_length(Grid(levels=levels), one).values())
    assert contextual_prior([Grid(levels=levels)]) == pytest.approx(-math.log2(total), abs=3e-6)


def test_no_stream_is_the_beginning_of_another():
    """Those of one content under several options included."""
    several = [Options(), Options(rows=True, signs="one"), Options(occupancy="left", lag=2)]
    words = [
        encode_contextual([Grid(levels=found)], [one])
        for found, one in itertools.product(every_matrix((1, 3)), several)
    ]
    assert len(set(words)) == 81
    for one, other in itertools.permutations(words, 2):
        assert not other.startswith(one)


@settings(max_examples=6)
@given(messages.filter(bool), messages.filter(bool))
def test_no_stream_is_the_beginning_of_another_for_the_same_shapes(message, other):
    tensors, specs, chosen = built(message)
    stream = encode_contextual(tensors, chosen)
    rest = encode_contextual(*built(other)[::2])
    with pytest.raises(PayloadError, match=r"damaged|ends too early"):
        decode_contextual(stream + rest, specs)


@settings(max_examples=12)
@given(messages.filter(bool), st.data())
def test_flipped_bits_and_cuts_are_refused_or_mean_something_else(message, data):
    tensors, specs, chosen = built(message)
    stream = bytearray(encode_contextual(tensors, chosen))
    with pytest.raises(PayloadError, match=r"damaged|ends too early"):
        decode_contextual(bytes(stream[:-1]), specs)
    place = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[place // 8] ^= 1 << place % 8
    try:
        decoded = decode_contextual(bytes(stream), specs)
    except PayloadError:
        return
    found = contextual_options(bytes(stream), specs)
    assert encode_contextual(decoded, found) == bytes(stream)
    same = all(
        type(a) is type(b)
        and (a.data == b.data if isinstance(a, Raw) else np.array_equal(a.levels, b.levels))
        for a, b in zip(tensors, decoded, strict=True)
    )
    steps = [getattr(t, "step", 0.0) for t in tensors] == [getattr(t, "step", 0.0) for t in decoded]
    assert not (same and steps and found == chosen)


@given(st.binary(max_size=80), st.lists(shapes, max_size=3))
@settings(max_examples=40)
def test_any_bytes_are_decoded_or_refused(stream, several):
    specs = [Spec(shape=shape, dtype="float32") for shape in several]
    try:
        decoded = decode_contextual(stream, specs)
    except PayloadError:
        return
    assert encode_contextual(decoded, contextual_options(stream, specs)) == stream


def test_a_level_that_is_too_large_is_refused():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailor.numerics.coding.tensors.MAX_LEVEL", 1 << 30)
        stream = encode_contextual([Grid(levels=np.array([(1 << 20) + 5]))], [Options()])
    with pytest.raises(PayloadError, match="must not exceed 1048576"):
        decode_contextual(stream, [Spec(shape=(1,), dtype="float32")])


def test_too_many_elements_are_refused_before_anything_is_made():
    with pytest.raises(PayloadError, match="claims 67108864 elements"):
        decode_contextual(b"", [Spec(shape=(1 << 13, 1 << 13), dtype="float32")])
