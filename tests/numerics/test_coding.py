"""The coder: exact inverses, ideal lengths, the Kraft inequality, and hostile bytes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import (
    MAX_LEVEL,
    Grid,
    Raw,
    Spec,
    code_length,
    decode,
    encode,
    round_step,
)

shapes = st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)
steps = st.one_of(st.just(1.0), st.integers(-90, 90).map(lambda power: 1.5 * 2.0**power))


tops = st.sampled_from([1, 2, 3, 14, 15, 16, 17, 900])
levels = st.tuples(shapes, tops).flatmap(
    lambda drawn: arrays(
        np.int64,
        drawn[0],
        elements=st.one_of(st.just(0), st.integers(-drawn[1], drawn[1])),
        fill=st.just(0),
    )
)
WIDTHS = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "uint8": 1, "bool": 1}
raws = st.sampled_from(sorted(WIDTHS)).flatmap(
    lambda dtype: st.tuples(
        st.just(dtype), st.binary(min_size=3 * WIDTHS[dtype], max_size=3 * WIDTHS[dtype])
    )
)
# Plain values; `built` makes tensors of them, as type checks may not run inside a strategy.
messages = st.lists(st.one_of(st.tuples(levels, steps), raws), max_size=4)


def built(message):
    tensors, specs = [], []
    for first, second in message:
        if isinstance(first, str):
            tensors.append(Raw(data=second))
            specs.append(Spec(shape=(3,), dtype=first))
        else:
            tensors.append(Grid(levels=first, step=second))
            specs.append(Spec(shape=first.shape, dtype="float32"))
    return tensors, specs


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, Grid):
        np.testing.assert_array_equal(one.levels, other.levels)
        assert one.step == other.step
    else:
        assert one.data == other.data


@given(messages)
def test_decode_inverts_encode(message):
    tensors, specs = built(message)
    decoded = decode(encode(tensors), specs)
    assert len(decoded) == len(tensors)
    for one, other in zip(tensors, decoded, strict=True):
        assert_equal(one, other)


@given(messages)
def test_length_is_the_ideal_length_and_at_most_two_bits_then_whole_bytes(message):
    tensors, _ = built(message)
    ideal = sum(sum(code_length(tensor).values()) for tensor in tensors)
    written = 8 * len(encode(tensors))
    assert ideal - 1e-6 <= written + 0.01  # the coder's whole numbers may gain a hair
    assert written < ideal + 2 + 8 + 1e-3


def test_ideal_length_of_positions_is_the_sequential_product():
    """The closed form against the product of the coin's probabilities, one by one."""
    levels = np.random.default_rng(0).integers(0, 2, (5, 7))
    bits, seen = 0.0, [0, 0]
    for bit in levels.flatten().tolist():
        bits -= math.log2((seen[bit] + 0.5) / (sum(seen) + 1))
        seen[bit] += 1
    found = code_length(Grid(levels=levels))
    assert found["positions"] == pytest.approx(bits, rel=1e-12)
    assert found["signs"] == levels.sum()


def test_sparse_matrix_costs_what_the_enumerative_code_costs():
    """370 weights, 95 of them +-1: 403.7 bits in the adaptive code with one coin."""
    levels = np.zeros((10, 37), dtype=int)
    levels.flat[np.random.default_rng(1).permutation(370)[:95]] = 1
    parts = code_length(Grid(levels=levels))
    assert parts["positions"] + parts["signs"] == pytest.approx(403.7, abs=0.05)


def test_empty_rows_and_columns_are_cheap():
    levels = np.zeros((64, 64), dtype=int)
    levels[:16, 10:40] = np.random.default_rng(2).integers(0, 2, (16, 30))
    flagged = sum(code_length(Grid(levels=levels)).values())
    spread = np.random.default_rng(3).permutation(levels.flatten()).reshape(64, 64)
    assert flagged < 0.6 * sum(code_length(Grid(levels=spread)).values())


def test_kraft_no_codeword_begins_another():
    """All matrices of 2 x 2 ternary weights, and all of 1 x 3: distinct, prefix-free words."""
    for shape in [(2, 2), (1, 3)]:
        words = [
            encode([Grid(levels=np.array(entries).reshape(shape))])
            for entries in itertools.product((-1, 0, 1), repeat=math.prod(shape))
        ]
        assert len(set(words)) == 3 ** math.prod(shape)
        assert sum(2.0 ** (-8 * len(word)) for word in words) <= 1
        for one, other in itertools.permutations(words, 2):
            assert not other.startswith(one)


@given(messages.filter(bool), st.data())
def test_every_other_string_of_bytes_is_refused_or_means_something_else(message, data):
    tensors, specs = built(message)
    stream = bytearray(encode(tensors))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(bytes(stream), specs)
    except PayloadError:
        return
    # a codeword of another message, or of the same one with other (longer) options
    assert bytes(stream) != encode(tensors)
    assert len(encode(decoded)) <= len(stream)


@given(messages.filter(bool), st.binary(min_size=1, max_size=3))
def test_truncated_and_lengthened_streams_are_refused(message, more):
    tensors, specs = built(message)
    stream = encode(tensors)
    with pytest.raises(PayloadError, match=r"damaged|ends too early"):
        decode(stream[:-1], specs)
    with pytest.raises(PayloadError, match=r"damaged|ends too early"):
        decode(stream + more, specs)


@given(st.binary(max_size=60), st.lists(shapes, max_size=3))
def test_any_bytes_are_decoded_or_refused(stream, several):
    specs = [Spec(shape=shape, dtype="float32") for shape in several]
    try:
        decoded = decode(stream, specs)
    except PayloadError:
        return
    assert len(encode(decoded)) <= len(stream)


@given(st.floats(1e-37, 1e37))
def test_round_step_is_within_one_part_in_256(step):
    rounded = round_step(step)
    assert abs(rounded - step) <= step / 256
    assert round_step(rounded) == rounded


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Grid(levels=np.ones(3, int), step=0.1), UsageError, "bfloat16 number"),
        (lambda: Grid(levels=np.ones(3, int), step=-1.0), UsageError, "positive"),
        (lambda: Grid(levels=np.ones(3, int), step=math.inf), UsageError, "positive"),
        (lambda: Grid(levels=np.full(3, MAX_LEVEL + 1)), UsageError, "must not exceed"),
        (lambda: Spec(shape=(2,), dtype="complex64"), PayloadError, "complex64 cannot be stored"),
        (lambda: Spec(shape=(-2,), dtype="float32"), PayloadError, "not a shape"),
        (
            lambda: decode(b"", [Spec(shape=(1 << 13, 1 << 13), dtype="float32")]),
            PayloadError,
            "claims 67108864 elements",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_any_choice_of_options_decodes_to_the_same_tensor(monkeypatch):
    """A decoder never needs to know which options would have been the shortest."""
    levels = np.random.default_rng(0).integers(-1, 2, (4, 5))
    spec = Spec(shape=(4, 5), dtype="float32")
    streams = set()
    for shortest in range(4):
        monkeypatch.setattr(np, "argmin", lambda _, chosen=shortest: chosen)
        stream = encode([Grid(levels=levels)])
        streams.add(stream)
        (back,) = decode(stream, [spec])
        np.testing.assert_array_equal(back.levels, levels)
    assert len(streams) == 4
