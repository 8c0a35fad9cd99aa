"""Symbols of numbers of any range, bits without gaps, fields of floating-point numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import PayloadError
from tailor.numerics.coding.floats import FIELDS, Fields
from tailor.numerics.coding.symbols import (
    COLUMNS,
    DIRECT,
    KEPT,
    LARGEST,
    ZERO,
    Split,
    pack_bits,
    packed_size,
    unpack_bits,
)

SPLITS = [Split(direct=d, kept=k) for d in DIRECT for k in KEPT if k <= d]
EDGES = np.array([2**k + j for k in range(21) for j in (-1, 0, 1)] + [LARGEST])


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_numbers_come_back_from_symbols_and_rests(split):
    numbers = np.concatenate([-EDGES, EDGES, np.arange(-700, 700)])
    columns = split.columns(numbers)
    widths = split.widths()[columns]
    rests = split.rests(numbers)
    assert 0 <= columns.min() <= columns.max() < COLUMNS
    assert (rests >> widths.astype(np.uint64) == 0).all()
    np.testing.assert_array_equal(split.values(columns, rests[widths > 0]), numbers)
    small = np.abs(numbers) < 1 << split.direct
    np.testing.assert_array_equal(columns[small], numbers[small] + ZERO)
    assert (np.diff(columns[np.argsort(numbers, kind="stable")]) >= 0).all()


def test_a_column_that_stands_for_no_number_is_refused():
    with pytest.raises(PayloadError, match="no number"):
        Split(direct=2, kept=0).values(np.array([COLUMNS - 1]), np.zeros(1, dtype=np.uint64))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0)), max_size=30))
def test_bits_come_back(pairs):
    widths = np.array([width for width, _ in pairs], dtype=np.int64)
    numbers = np.array([number % (1 << width) for width, number in pairs], dtype=np.uint64)
    data = pack_bits(numbers, widths)
    assert len(data) == packed_size(widths)
    assert 8 * len(data) - widths.sum() in range(8)  # no gaps
    np.testing.assert_array_equal(unpack_bits(memoryview(data), widths), numbers)


def test_fill_bits_must_be_zero():
    with pytest.raises(PayloadError, match="fill a byte"):
        unpack_bits(memoryview(b"\xe1"), np.array([3]))


@settings(max_examples=30)
@given(st.sampled_from(sorted(FIELDS)), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_every_bit_of_a_float_comes_back(dtype, drawn):
    exponent, fraction = FIELDS[dtype]
    size = 1 + exponent + fraction
    special = [0, 1, 1 << (size - 1), ((1 << exponent) - 1) << fraction, (1 << size) - 1]
    words = np.array([n % (1 << size) for n in drawn] + special, dtype=f"u{size // 8}")
    fields = Fields.of(words, dtype)
    found = fields.words(fields.symbols(words), fields.rests(words).astype(np.uint64))
    np.testing.assert_array_equal(found, words)


@pytest.mark.parametrize(("values", "kept"), [([1.0, -2.0, 0.0, 0.5], 0), ([0.75, 3.5], 2)])
def test_fractions_that_end_in_zeros_are_not_stored(values, kept):
    words = np.array(values, dtype="f4").view("u4")
    fields = Fields.of(words, "float32")
    assert fields.kept == kept
    rests = fields.rests(words).astype(np.uint64)
    assert int(rests.max()) < 1 << kept
    np.testing.assert_array_equal(fields.words(fields.symbols(words), rests), words)


def test_halves_stored_as_float32_keep_ten_bits():
    halves = np.random.default_rng(0).standard_normal(50).astype("f2").astype("f4")
    assert Fields.of(halves.view("u4"), "float32").kept == 10


def test_an_exponent_out_of_range_is_refused():
    fields = Fields(exponent=5, fraction=10, lowest=30, dropped=0)
    with pytest.raises(PayloadError, match="exponent"):
        fields.words(np.array([5]), np.zeros(1, dtype=np.uint64))
