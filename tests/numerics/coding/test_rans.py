"""The vectorised coder: exact inverses, lengths, the format in plain Python, hostile bytes."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import rans
from tailor.numerics.coding.tables import TOTAL, frequencies


def tables_of(*weights):
    """Tables with frequencies in proportion to the squares of the weights."""
    return np.array([frequencies(np.array(row)) for row in weights])


@st.composite
def messages(draw):
    """Tables (some with a single symbol), contexts, symbols that the tables have, lanes."""
    columns = draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 40), min_size=columns, max_size=columns).filter(any)
    weights = draw(st.lists(row, min_size=1, max_size=4))
    present = [[k for k, weight in enumerate(row) if weight] for row in weights]
    contexts = draw(st.lists(st.integers(0, len(weights) - 1), max_size=60))
    symbols = [draw(st.sampled_from(present[context])) for context in contexts]
    return weights, contexts, symbols, draw(st.none() | st.integers(1, 20))


@given(messages())
def test_decode_inverts_encode(message):
    weights, contexts, symbols, lanes = message
    tables = tables_of(*weights)
    contexts, symbols = np.array(contexts, dtype=np.uint8), np.array(symbols, dtype=np.uint16)
    coded = int((tables.max(axis=1) < TOTAL)[contexts].sum())
    data = rans.encode(symbols, contexts, tables, lanes=lanes and min(lanes, max(1, coded)))
    np.testing.assert_array_equal(rans.decode(data, contexts, tables), symbols)


def example(size=30_000, seed=0):
    """Two contexts: a bell over 25 symbols, and nine zeros in ten."""
    rng = np.random.default_rng(seed)
    bell = np.exp(-(((np.arange(25) - 12) / 6) ** 2))
    tables = tables_of(np.rint(100 * bell).astype(int), [90] + [6] * 24)
    contexts = rng.integers(0, 2, size).astype(np.uint8)
    symbols = np.empty(size, dtype=np.uint16)
    for context in (0, 1):
        here = contexts == context
        symbols[here] = rng.choice(25, int(here.sum()), p=tables[context] / TOTAL)
    return symbols, contexts, tables


def scalar_decode(data, contexts, tables):
    """The format as it is described, one position at a time."""
    (lanes,) = struct.unpack("<H", data[:2])
    states = list(struct.unpack(f"<{lanes}I", data[2 : 2 + 4 * lanes]))
    words = iter(struct.unpack(f"<{(len(data) - 2 - 4 * lanes) // 2}H", data[2 + 4 * lanes :]))
    found = []
    for start in range(0, len(contexts), lanes):
        for lane, context in enumerate(contexts[start : start + lanes].tolist()):
            table, x = tables[context].tolist(), states[lane]
            slot, symbol = x % TOTAL, 0
            while slot >= table[symbol]:
                slot, symbol = slot - table[symbol], symbol + 1
            x = table[symbol] * (x // TOTAL) + slot
            states[lane] = x if x >= 1 << 16 else x << 16 | next(words)
            found.append(symbol)
    assert next(words, None) is None
    assert states == [1 << 16] * lanes
    return found


@pytest.mark.parametrize("lanes", [1, 7, 100])
def test_the_format_read_in_plain_python(lanes):
    symbols, contexts, tables = example(size=3000)
    data = rans.encode(symbols, contexts, tables, lanes=lanes)
    assert scalar_decode(data, contexts, tables) == symbols.tolist()


def test_one_lane_is_as_long_as_in_constriction():
    """Same integer frequencies, another implementation (Bamler 2022): 4 bytes apart at most."""
    constriction = pytest.importorskip("constriction")
    symbols, contexts, tables = example()
    coder = constriction.stream.stack.AnsCoder()
    model = constriction.stream.model.Categorical(perfect=False)
    coder.encode_reverse(symbols.astype(np.int32), model, (tables / TOTAL)[contexts].astype("f4"))
    ours = 8 * len(rans.encode(symbols, contexts, tables, lanes=1)) - 16  # without the head
    assert abs(ours - coder.num_valid_bits()) <= 32


def test_length_is_the_ideal_one_and_three_bytes_for_each_lane():
    symbols, contexts, tables = example()
    ideal = -np.log2(tables[contexts, symbols] / TOTAL).sum() / 8
    one = len(rans.encode(symbols, contexts, tables, lanes=1))
    many = len(rans.encode(symbols, contexts, tables, lanes=201))
    assert ideal < one < ideal + 8
    assert 200 * 2 < many - one < 200 * 4  # a state is stored in 4, and holds 0 to 2 of the rest


def test_chosen_lanes_cost_a_thousandth_and_bound_the_steps():
    symbols, contexts, tables = example(size=200_000)
    data = rans.encode(symbols, contexts, tables)
    (lanes,) = struct.unpack("<H", data[:2])
    assert 0.0005 * len(data) < 4 * lanes < 0.001 * len(data)
    assert rans.choose_lanes(1 << 20, 0.0) == 16
    assert rans.choose_lanes(5, 1e9) == 5
    assert rans.choose_lanes(1 << 30, 1e12) == rans.MAX_LANES


def test_a_state_at_the_bound_moves_a_word_out():
    """After the symbol 0 the state is 2^18, the first that does not fit for frequency 1."""
    tables = np.array([[4096, 1, TOTAL - 4097]])
    symbols, contexts = np.array([1, 0]), np.zeros(2, dtype=np.uint8)
    data = rans.encode(symbols, contexts, tables, lanes=1)
    assert len(data) == 2 + 4 + 2
    assert scalar_decode(data, contexts, tables) == [1, 0]


def test_what_is_certain_costs_nothing():
    tables = tables_of([0, 3, 0], [1, 1, 1])
    ones = np.ones(1000, dtype=np.uint16)
    assert rans.encode(ones, np.zeros(1000, dtype=np.uint8), tables) == b""
    contexts = np.arange(1000) % 2
    half = rans.encode(ones, contexts, tables)
    assert half == rans.encode(ones[:500], np.ones(500, dtype=np.uint8), tables)
    np.testing.assert_array_equal(rans.decode(half, contexts, tables), ones)


def test_a_symbol_that_its_table_lacks_is_refused():
    with pytest.raises(UsageError, match="frequency zero"):
        rans.encode(np.array([2]), np.array([0]), tables_of([1, 1, 0]))


def test_other_lengths_are_refused():
    symbols, contexts, tables = example(size=300)
    data = rans.encode(symbols, contexts, tables)
    for end in range(len(data)):
        with pytest.raises(PayloadError, match="damaged"):
            rans.decode(data[:end], contexts, tables)
    for more in (b"\0", b"\0\0", b"ab"):
        with pytest.raises(PayloadError, match="damaged"):
            rans.decode(data + more, contexts, tables)
    with pytest.raises(PayloadError, match="damaged"):
        rans.decode(data, contexts[:-1], tables)
    with pytest.raises(PayloadError, match="bytes follow"):
        rans.decode(data, contexts[:0], tables)


def test_every_edited_byte_is_refused_or_gives_other_symbols():
    symbols, contexts, tables = example(size=100)
    data = rans.encode(symbols, contexts, tables, lanes=3)
    rng = np.random.default_rng(1)
    refused = 0
    for place in range(len(data)):
        edited = bytearray(data)
        edited[place] ^= int(rng.integers(1, 256))
        try:
            assert (rans.decode(bytes(edited), contexts, tables) != symbols).any()
        except PayloadError:
            refused += 1
    assert refused > 0.9 * len(data)  # rarely do all states end as they should


def test_too_few_lanes_are_refused_before_any_work():
    contexts = np.zeros((1 << 16) + 1, dtype=np.uint8)
    data = struct.pack("<HI", 1, 1 << 16)
    with pytest.raises(PayloadError, match="too few lanes"):
        rans.decode(data, contexts, tables_of([1, 1]))
