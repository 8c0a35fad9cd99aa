"""Classes of rows and columns: planted ones are found, chance is not taken for structure."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailor.errors import PayloadError
from tailor.numerics.coding.arithmetic import Decoder, Encoder
from tailor.numerics.coding.classes import (
    MAX_LINES,
    Classes,
    allowed,
    bins,
    find_classes,
    walk_classes,
)


def assert_same_partition(found, planted):
    pairs = set(zip(found.tolist(), planted.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(planted.tolist()))


def test_planted_classes_are_found():
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 2, 200), rng.integers(0, 2, 150)
    scale = np.array([[0.3, 3.0], [8.0, 1.0]])[rows[:, None], columns]
    matrix = np.clip(np.rint(rng.standard_normal((200, 150)) * scale) + 15, 0, 30)
    found = find_classes(matrix.astype(np.uint8), 31)
    assert found.pairs == 4
    assert_same_partition(found.rows, rows)
    assert_same_partition(found.columns, columns)


def test_rows_alone_have_classes_where_columns_are_alike():
    rng = np.random.default_rng(1)
    dead = rng.random(120) < 0.5
    matrix = rng.integers(0, 4, (120, 100)) * ~dead[:, None]
    found = find_classes(matrix.astype(np.uint8), 4)
    assert (found.n_rows, found.n_columns) == (2, 1)
    assert_same_partition(found.rows, dead)


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_not_taken_for_structure(seed):
    matrix = np.random.default_rng(seed).binomial(8, 0.5, (300, 100)).astype(np.uint8)
    assert find_classes(matrix, 9).pairs == 1


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 5000), (5000, 1), (20, 20)])
def test_matrices_too_small_or_too_thin_have_one_class(shape):
    matrix = np.zeros(shape, dtype=np.uint8)
    matrix[::2] = 1
    assert find_classes(matrix, 2).pairs == 1


@st.composite
def lines(draw):
    number = draw(st.integers(1, 5))
    return number, draw(st.lists(st.integers(0, number - 1), min_size=8, max_size=30))


@settings(max_examples=40)
@given(lines(), lines())
def test_received_classes_are_the_sent_ones(rows, columns):
    assume(allowed((len(rows[1]), len(columns[1]))))
    classes = Classes(
        rows=np.array(rows[1], dtype=np.uint8),
        columns=np.array(columns[1], dtype=np.uint8),
        n_rows=rows[0],
        n_columns=columns[0],
    )
    coder = Encoder()
    walk_classes(coder, classes, (len(rows[1]), len(columns[1])))
    sides = len(rows[1]), len(columns[1])
    found = walk_classes(Decoder(coder.finish()), None, sides)
    np.testing.assert_array_equal(found.rows, classes.rows)
    np.testing.assert_array_equal(found.columns, classes.columns)
    assert (found.n_rows, found.n_columns) == (rows[0], columns[0])
    np.testing.assert_array_equal(
        found.contexts().reshape(sides), classes.rows[:, None] * columns[0] + classes.columns
    )


@settings(max_examples=50)
@given(st.binary(max_size=30))
def test_whatever_bytes_give_classes_in_range_or_are_refused(data):
    try:
        found = walk_classes(Decoder(data), None, (20, 30))
    except PayloadError:
        return
    assert found.rows.max() < found.n_rows
    assert found.columns.max() < found.n_columns
    assert found.pairs <= 64


@pytest.mark.parametrize("sides", [(MAX_LINES, 64), (1 << 12, 4)])
def test_classes_of_very_many_rows_are_refused_at_once(sides):
    with pytest.raises(PayloadError, match="too many rows"):
        walk_classes(Decoder(bytes(100)), None, sides)


def test_groups_of_symbols_keep_what_is_frequent_apart():
    counts = np.array([0, 1, 2, 5, 10_000, 5, 2, 1, 0])
    groups = bins(counts, 8)
    assert (np.diff(groups.astype(int)) >= 0).all()
    assert groups[3] < groups[4] < groups[5]
    assert bins(np.zeros(4, dtype=np.int64)).tolist() == [0, 0, 0, 0]
