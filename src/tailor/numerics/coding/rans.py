"""Interleaved range coder of asymmetric numeral systems, vectorised over lanes, integers only.

rANS (Duda 2013, arXiv 1311.2540) keeps a message in one whole number, the state. With a symbol
of frequency f out of 2^14, before which in its table stand frequencies of sum c, the encoder
turns the state x into (x // f) 2^14 + c + x mod f, and the decoder inverts it, last symbol first.
Here L lanes have a state each, kept in [2^16, 2^32) by moving 16-bit words out and in (Giesen
2014, arXiv 1402.3392). Position i of the message belongs to lane i mod L, so one numpy call
serves L positions.

Every position has a context known to the decoder, which says whose table it uses. Positions
whose table holds a single symbol cost nothing and take no part.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt16
from numpy import ndarray

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding.entropy import UNIT
from tailor.numerics.coding.tables import BITS, COST, TOTAL

START = 1 << 16  # lowest state, and the one that an encoder begins with
WORD = 16
LANE_SHARE = 4096  # bytes of the stream for each lane, whose state takes 4: 0.1 %
LANE_STEPS = 1 << 16  # positions of a lane at most, so that a decoder's time is bounded
MAX_LANES = 4096
BLOCK = 1 << 16  # positions whose frequencies are looked up at once


def encode(
    symbols: Integer[ndarray, "n"],
    contexts: Integer[ndarray, "n"],
    tables: Int64[ndarray, "tables symbols"],
    *,
    lanes: int | None = None,
) -> bytes:
    """Code symbols, each under the table that its context names.

    Args:
        symbols: Column of ``tables`` of each symbol.
        contexts: Row of ``tables`` of each symbol.
        tables: Frequencies; each row sums to ``TOTAL``.
        lanes: Number of lanes; chosen by the expected length when not given.

    Raises:
        UsageError: A symbol has frequency zero in its table.
    """
    coded = _varying(tables)[contexts]
    bits = _ideal(symbols, contexts, tables)
    if not coded.all():
        symbols, contexts = symbols[coded], contexts[coded]
    if not len(symbols):
        return b""
    lanes = choose_lanes(len(symbols), bits) if lanes is None else lanes
    states = np.full(lanes, START, dtype=np.int64)
    push = _Push.of(tables)
    words = [
        push.block(states, contexts[a:b].astype(np.int64) * tables.shape[1] + symbols[a:b])
        for a, b in reversed(list(_blocks(len(symbols), lanes)))
    ]
    head = struct.pack("<H", lanes) + states.astype("<u4").tobytes()
    return head + b"".join(part.astype("<u2").tobytes() for part in reversed(words))


def decode(
    data: bytes | memoryview,
    contexts: Integer[ndarray, "n"],
    tables: Int64[ndarray, "tables symbols"],
) -> UInt16[ndarray, "n"]:
    """Invert ``encode``.

    Raises:
        PayloadError: The bytes are no stream of so many symbols under these tables.
    """
    varying = _varying(tables)
    coded = varying[contexts]
    if coded.all():
        return _decode(data, contexts, tables)
    symbols: ndarray = tables.argmax(axis=1).astype(np.uint16)[contexts]
    symbols[coded] = _decode(data, contexts[coded], tables)
    return symbols


def choose_lanes(count: int, bits: float) -> int:
    """As many lanes as cost a thousandth of the stream, but enough to bound the steps."""
    share = int(bits) // (8 * LANE_SHARE)
    return min(count, MAX_LANES, max(1, share, -(-count // LANE_STEPS)))


def _decode(
    data: bytes | memoryview, contexts: Integer[ndarray, "n"], tables: Int64[ndarray, "t s"]
) -> UInt16[ndarray, "n"]:
    if not len(contexts):
        if len(data):
            raise PayloadError("the stream is damaged: bytes follow its end")
        return np.zeros(0, dtype=np.uint16)
    states, words = _split(data, len(contexts))
    pull = _Pull.of(tables)
    symbols = np.empty(len(contexts), dtype=np.uint16)
    place = 0
    for a, b in _blocks(len(contexts), len(states)):
        here = words[place : place + b - a].astype(np.int64)  # a position takes one at most
        symbols[a:b], used = pull.block(states, contexts[a:b], here)
        place += used
    if place != len(words) or bool((states != START).any()):
        raise PayloadError("the stream is damaged: it does not end where its symbols end")
    return symbols


def _split(
    data: bytes | memoryview, count: int
) -> tuple[Int64[ndarray, "lanes"], UInt16[ndarray, "words"]]:
    """States and words of a stream of ``count`` symbols."""
    lanes = struct.unpack("<H", data[:2])[0] if len(data) >= 2 else 0
    start = 2 + 4 * lanes
    if not 0 < lanes <= min(count, MAX_LANES) or len(data) < start or len(data) % 2:
        raise PayloadError("the stream is damaged: it has no whole head")
    if count > lanes * max(LANE_STEPS, -(-count // MAX_LANES)):
        raise PayloadError("the stream is damaged: it has too few lanes for its symbols")
    states = np.frombuffer(data[2:start], dtype="<u4").astype(np.int64)
    if bool((states < START).any()):
        raise PayloadError("the stream is damaged: a state is too small")
    return states, np.frombuffer(data[start:], dtype="<u2")


def _blocks(count: int, lanes: int) -> Iterator[tuple[int, int]]:
    """Ranges of positions, each whole steps of all lanes; the last step may be a part of one."""
    size = max(1, BLOCK // lanes) * lanes
    whole = count // lanes * lanes
    for start in range(0, whole, size):
        yield start, min(start + size, whole)
    if whole < count:
        yield whole, count


def _varying(tables: Int64[ndarray, "tables symbols"]) -> Bool[ndarray, "tables"]:
    """Which tables hold more than one symbol."""
    varying: ndarray = tables.max(axis=1, initial=0) < TOTAL
    return varying


def _ideal(
    symbols: Integer[ndarray, "n"],
    contexts: Integer[ndarray, "n"],
    tables: Int64[ndarray, "tables symbols"],
) -> float:
    """Bits of the symbols under their tables."""
    counts = np.zeros(tables.size, dtype=np.int64)
    for a in range(0, len(symbols), 1 << 20):
        part = slice(a, a + (1 << 20))
        index = contexts[part].astype(np.int64) * tables.shape[1] + symbols[part]
        counts += np.bincount(index, minlength=tables.size)
    if bool((counts[tables.ravel() == 0] != 0).any()):
        raise UsageError("a symbol has frequency zero in its table")
    return int(counts @ COST[tables.ravel()]) / UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Push:
    """What an encoder looks up for each symbol.

    Attributes:
        frequency: f.
        gap: 2^14 - f: the new state is x + (x // f) gap + before.
        before: Sum of the frequencies of the symbols before.
        bound: A state from here on has to move out a word first.
    """

    frequency: Int64[ndarray, "entries"]
    gap: Int64[ndarray, "entries"]
    before: Int64[ndarray, "entries"]
    bound: Int64[ndarray, "entries"]

    @classmethod
    def of(cls, tables: Int64[ndarray, "tables symbols"]) -> "_Push":
        return cls(
            frequency=tables.ravel(),
            gap=TOTAL - tables.ravel(),
            before=(tables.cumsum(axis=1) - tables).ravel(),
            bound=tables.ravel() << (2 * WORD - BITS),
        )

    def block(
        self, states: Int64[ndarray, "lanes"], entries: Int64[ndarray, "n"]
    ) -> Int64[ndarray, "words"]:
        """Push symbols, last one first, onto the states; gives the words that moved out."""
        lanes = min(len(states), len(entries))
        x = states[:lanes]  # a view: the states change in place
        rows = [
            looked_up[entries].reshape(-1, lanes)[::-1]
            for looked_up in (self.frequency, self.gap, self.before, self.bound)
        ]
        words = np.empty(len(entries), dtype=np.int64)
        place = len(words)
        quotient, full = np.empty_like(x), np.empty(lanes, dtype=bool)
        word = np.full(lanes, WORD)  # numpy takes an array faster than a number
        for f, gap, before, bound in zip(*rows, strict=True):
            np.greater_equal(x, bound, full)
            which = full.nonzero()[0]
            count = which.size
            if count:
                moved = x[which]
                words[place - count : place] = moved
                place -= count
                x[which] = np.right_shift(moved, word[:count], moved)
            np.floor_divide(x, f, quotient)
            np.multiply(quotient, gap, quotient)
            np.add(x, quotient, x)
            np.add(x, before, x)
        moved_out: ndarray = words[place:] & (START - 1)
        return moved_out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pull:
    """What a decoder looks up for each slot (the lowest 14 bits of a state) of each table.

    Attributes:
        frequency: f of the symbol in the slot.
        offset: Slot minus the sum of the frequencies before.
        symbol: The symbol.
    """

    frequency: Int64[ndarray, "slots"]
    offset: Int64[ndarray, "slots"]
    symbol: UInt16[ndarray, "slots"]

    @classmethod
    def of(cls, tables: Int64[ndarray, "tables symbols"]) -> "_Pull":
        table, symbol = tables.nonzero()
        frequency = tables[table, symbol]
        before = (tables.cumsum(axis=1) - tables)[table, symbol]
        slots = np.arange(len(tables) * TOTAL) & (TOTAL - 1)
        return cls(
            frequency=frequency.repeat(frequency),
            offset=slots - before.repeat(frequency),
            symbol=symbol.astype(np.uint16).repeat(frequency),
        )

    def block(
        self,
        states: Int64[ndarray, "lanes"],
        contexts: Integer[ndarray, "n"],
        words: Int64[ndarray, "words"],
    ) -> tuple[UInt16[ndarray, "n"], int]:
        """Pull a symbol for each context off the states; also says how many words moved in."""
        lanes = min(len(states), len(contexts))
        x = states[:lanes]  # a view: the states change in place
        slots = (contexts.astype(np.int64) << BITS).reshape(-1, lanes)
        found, low, need = np.empty_like(x), np.empty_like(x), np.empty(lanes, dtype=bool)
        frequency, offset, place = self.frequency.take, self.offset.take, 0
        # numpy takes an array faster than a number
        mask, bits, start, word = (np.full(lanes, n) for n in (TOTAL - 1, BITS, START, WORD))
        for slot in slots:
            np.bitwise_and(x, mask, low)
            np.add(slot, low, slot)
            np.right_shift(x, bits, x)
            np.multiply(x, frequency(slot, None, found, "wrap"), x)
            np.add(x, offset(slot, None, found, "wrap"), x)
            which = np.less(x, start, need).nonzero()[0]
            count = which.size
            if count:
                if place + count > len(words):
                    raise PayloadError("the stream is damaged: it ends too early")
                moved = x[which]
                np.left_shift(moved, word[:count], moved)
                x[which] = np.bitwise_or(moved, words[place : place + count], moved)
                place += count
        return self.symbol[slots.ravel()], place
