"""Tables of frequencies: exact sums, near the counts, cheap to send."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import PayloadError
from tailor.numerics.coding.arithmetic import Decoder, Encoder
from tailor.numerics.coding.coins import Coins
from tailor.numerics.coding.entropy import UNIT, fixed_log2, histogram, order0_bits
from tailor.numerics.coding.tables import COST, MAX_ROOT, TOTAL, RootsCoder, frequencies, roots

counts = st.lists(
    st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 10**9)), min_size=1, max_size=40
).filter(any)


@given(counts)
def test_frequencies_sum_to_the_total_and_keep_order_and_presence(drawn):
    drawn = np.array(drawn)
    found = frequencies(roots(drawn))
    assert found.sum() == TOTAL
    np.testing.assert_array_equal(found > 0, drawn > 0)
    order = np.argsort(drawn, kind="stable")
    assert (np.diff(found[order]) >= -1).all()  # equal roots may differ by a remainder


def test_thousand_symbols_that_occur_once_leave_the_rest_to_the_frequent_one():
    found = frequencies(np.array([MAX_ROOT] + [1] * 1000))
    assert found.tolist() == [TOTAL - 1000] + [1] * 1000


def test_exact_shares_stay_exact():
    assert frequencies(np.array([2, 0, 2, 2, 2])).tolist() == [4096, 0, 4096, 4096, 4096]
    assert frequencies(np.array([5])).tolist() == [TOTAL]
    assert frequencies(np.array([1, 1, 1])).tolist() == [5462, 5461, 5461]  # first among equals


@pytest.mark.parametrize("size", [400, 10_000, 1_000_000])
def test_rounding_costs_what_it_should(size):
    """Steps of sqrt(3) on the roots: 1/2 nat for each entry on average, whatever the size."""
    extra, entries = 0.0, 0
    for seed in range(20):
        shares = np.random.default_rng(seed).dirichlet(np.full(20, 2.0))
        drawn = np.random.default_rng(seed).multinomial(size, shares)
        drawn = drawn[drawn > 0]
        found = frequencies(roots(drawn))
        extra += float(drawn @ -np.log2(found / TOTAL * size / drawn))
        entries += len(drawn)
    assert 0.5 * entries < extra < 1.1 * entries  # bits; 1/2 nat is 0.72


def sent(tables, columns=1024, zero=512):
    coder = Encoder()
    book = RootsCoder(Coins(coder), columns, zero)
    for table in tables:
        book.walk(table)
    return coder.finish()


rows = st.lists(st.integers(0, MAX_ROOT), min_size=7, max_size=7).filter(any)


@settings(max_examples=12)
@given(st.lists(rows, min_size=1, max_size=4))
def test_received_tables_are_the_sent_ones(tables):
    data = sent(tables, columns=7, zero=3)
    book = RootsCoder(Coins(Decoder(data)), 7, 3)
    assert [book.walk(None) for _ in tables] == tables


def smooth(size, seed=0):
    levels = np.random.default_rng(seed).standard_normal(size) / 0.3
    return roots(np.bincount(np.rint(levels).astype(int) + 512, minlength=1024)).tolist()


def test_smooth_tables_cost_few_bits_an_entry():
    tables = [smooth(20_000, seed) for seed in range(20)]
    entries = sum(sum(root > 0 for root in table) for table in tables)
    bits = 8 * len(sent(tables))
    assert bits < 3 * entries  # one after the other; a root has 4 to 5 bits of its own
    assert 8 * len(sent(tables[:1] * 20)) < bits / 3


@settings(max_examples=25)
@given(st.binary(max_size=40))
def test_whatever_bytes_give_tables_or_are_refused(data):
    book = RootsCoder(Coins(Decoder(data)), 1024, 512)
    found = []
    with contextlib.suppress(PayloadError):
        for _ in range(20):
            found.append(book.walk(None))
    for table in found:
        assert frequencies(np.array(table)).sum() == TOTAL


def test_logarithms_are_the_same_on_every_platform():
    """No logarithm lies so near a half that another rounding of log2 could turn it."""
    exact = UNIT * np.log2(1 + np.arange(1 << 14) / (1 << 14))
    assert np.abs(exact % 1 - 0.5).min() > 1e-6
    numbers = np.array([1, 2, 3, 1000, 32767, 32769, 10**6, 10**12])
    np.testing.assert_allclose(fixed_log2(numbers), UNIT * np.log2(numbers), atol=3)
    assert COST[TOTAL] == 0
    assert COST[1] == 14 * UNIT


@given(st.lists(st.integers(-70_000, 70_000), max_size=50))
def test_histogram_and_entropy_are_those_of_numpy(drawn):
    values, numbers = np.unique(np.array(drawn, dtype=np.int64), return_counts=True)
    found = histogram(np.array(drawn, dtype=np.int64))
    np.testing.assert_array_equal(found[0], values)
    np.testing.assert_array_equal(found[1], numbers)
    entropy = sum(n * np.log2(len(drawn) / n) for n in numbers.tolist())
    assert order0_bits(np.array(drawn, dtype=np.int64)) == pytest.approx(entropy, abs=1e-9)
