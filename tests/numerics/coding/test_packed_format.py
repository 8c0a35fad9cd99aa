"""The packed stream of grids, read in plain Python as docs/format_packed.md describes it.

Nothing of the reader under test is used but the binary arithmetic decoder, which has its own tests.
"""

import struct
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest

from tailor.numerics.coding import Grid, Spec, encode_packed
from tailor.numerics.coding.arithmetic import Coin, Decoder

TOTAL = 1 << 14


class Reader:
    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, size):
        self.place += size
        assert self.place <= len(self.data)
        return self.data[self.place - size : self.place]

    def varint(self):
        number, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def section(self, shapes):
        side, symbols = self.varint(), self.varint()
        self.coder = Decoder(self.take(side))
        self.coins, self.tables = defaultdict(Coin), []
        self.before = [0] * 1024
        coded = self.take(symbols)
        heads = [self.head(shape) for shape in shapes]
        found = iter(rans(coded, [t for *_, places in heads for t in places], self.tables))
        for shape, (step, direct, kept, places) in zip(shapes, heads, strict=True):
            columns = [next(found) for _ in places]
            yield step, np.array(self.numbers(columns, direct, kept)).reshape(shape)

    def bit(self, *kind):
        return self.coder.bit(self.coins[kind])

    def number(self, width, *kind):
        r = 1
        for _ in range(width):
            r = 2 * r + self.bit(*kind, r)
        return r - (1 << width)

    def head(self, shape):
        assert self.number(3, "mode") == 1
        (step,) = struct.unpack("<f", struct.pack("<I", self.number(16, "header", 1, 0) << 16))
        direct, kept = 2 + self.number(3, "direct"), self.number(3, "kept")
        rows, columns = [0] * shape[0], [0] * int(np.prod(shape[1:]))
        n_rows = n_columns = 1
        if self.bit("classes"):
            n_rows, n_columns = self.coder.number(None, 4) + 1, self.coder.number(None, 4) + 1
            rows, columns = self.line(n_rows, len(rows)), self.line(n_columns, len(columns))
        tables = [self.table() for _ in range(n_rows * n_columns)]
        return step, direct, kept, [tables[k * n_columns + m] for k in rows for m in columns]

    def line(self, number, length):
        width, coins, last, found = (number - 1).bit_length(), defaultdict(Coin), 0, []
        for _ in range(length):
            r = 1
            for _ in range(width):
                r = 2 * r + self.coder.bit(coins[last, r])
            last = r - (1 << width)
            found.append(last)
        return found

    def table(self):
        if self.tables and self.bit("latest"):
            return self.latest
        if self.tables and not self.bit("new"):
            self.latest = self.coder.number(None, (len(self.tables) - 1).bit_length())
            return self.latest
        self.before = self.roots()
        self.tables.append(shares(self.before))
        self.latest = len(self.tables) - 1
        return self.latest

    def roots(self):
        first, last, method = self.number(10, "first"), self.number(10, "last"), 0
        method, t = self.number(3, "method"), [0] * 1024
        for i in range(first, last + 1):
            e = self.expected(method, t, first, last, i)
            t[i] = e + self.residual(method, e)
        return t

    def expected(self, method, t, first, last, i):
        twin = {2: 1024 - i, 3: first + last - i}.get(method)
        if method == 4:
            near = slice(max(first, i - 8), i)
            return min(4096, self.before[i] * (1 + sum(t[near])) // (1 + sum(self.before[near])))
        if twin is not None and first <= twin < i:
            return t[twin]
        if method == 0 or i <= first + 1:
            return t[i - 1] if i > first else 0
        return max(0, min(4096, 2 * t[i - 1] - t[i - 2]))

    def residual(self, method, e):
        kind = method, min(e.bit_length(), 8)
        if not self.bit("any", *kind):
            return 0
        sign = -1 if e > 0 and self.bit("sign", *kind) else 1
        k = 0
        while self.bit("length", k, *kind):
            k += 1
        return sign * ((1 << k) + self.coder.number(None, k))

    def numbers(self, columns, direct, kept):
        sizes, widths = [], []
        for column in columns:
            b, width = abs(column - 512), 0
            if b >= 1 << direct:
                o, mantissa = divmod(b - (1 << direct), 1 << kept)
                width = o + direct - kept
                b = ((1 << kept) + mantissa) << width
            sizes.append(b)
            widths.append(width)
        order = sorted((w, i) for i, w in enumerate(widths) if w)
        high = sum(w % 8 for w, _ in order)
        bits = "".join(f"{byte:08b}" for byte in self.take(-(-high // 8)))
        place = 0
        for w, i in order:
            rest = int(bits[place : place + w % 8] or "0", 2) << (w // 8 * 8)
            place += w % 8
            sizes[i] += rest | int.from_bytes(self.take(w // 8), "little")
        return [-n if column < 512 else n for n, column in zip(sizes, columns, strict=True)]


def shares(t):
    """Frequencies by the definition, with exact fractions."""
    left, large, f = TOTAL, {i for i, root in enumerate(t) if root}, [0] * len(t)
    while True:
        whole = sum(t[i] ** 2 for i in large)
        small = {i for i in large if Fraction(t[i] ** 2 * left, whole) < 1}
        if not small:
            break
        for i in small:
            f[i] = 1
        large, left = large - small, left - len(small)
    quotas = {i: Fraction(t[i] ** 2 * left, whole) for i in sorted(large)}
    for i, quota in quotas.items():
        f[i] = int(quota)
    for i in sorted(quotas, key=lambda i: int(quotas[i]) - quotas[i])[: TOTAL - sum(f)]:
        f[i] += 1
    return f


def rans(data, places, tables):
    """A generator of columns, as they stand in the stream."""
    varying = [t for t in places if max(tables[t]) < TOTAL]
    lanes = struct.unpack("<H", data[:2])[0] if varying else 0
    states = list(struct.unpack(f"<{lanes}I", data[2 : 2 + 4 * lanes]))
    words = iter(np.frombuffer(data[2 + 4 * lanes :], dtype="<u2").tolist())
    i = 0
    for t in places:
        if max(tables[t]) == TOTAL:
            yield tables[t].index(TOTAL)
            continue
        x = states[i % lanes]
        slot, column = x % TOTAL, 0
        while slot >= tables[t][column]:
            slot, column = slot - tables[t][column], column + 1
        x = tables[t][column] * (x >> 14) + slot
        states[i % lanes] = x if x >> 16 else x << 16 | next(words)
        i += 1
        yield column
    assert next(words, None) is None
    assert states == [1 << 16] * lanes


def drawn():
    rng = np.random.default_rng(0)
    scales = np.repeat([0.0, 0.4, 6.0], [20, 20, 10])[:, None] * rng.choice([0.5, 2.0], (1, 60))
    yield "classes", [np.rint(scales * rng.standard_normal((50, 60)))]
    yield "outliers", [np.rint(3 * rng.standard_t(0.7, (20, 30))).clip(-1e6, 1e6)]
    bells = [np.rint(rng.standard_normal((4, 9, 3)) * (2 + k)) for k in range(5)]
    yield "many", [*bells, np.zeros((3, 5)), np.ones(7), *bells]


@pytest.mark.parametrize(("name", "levels"), list(drawn()), ids=["classes", "outliers", "many"])
def test_a_reader_made_from_the_description_reads_the_stream(name, levels):
    levels = [matrix.astype(np.int64) for matrix in levels]
    items = [
        (Grid(levels=matrix, step=1.5), Spec(shape=matrix.shape, dtype="float32"))
        for matrix in levels
    ]
    reader = Reader(b"".join(encode_packed(items)))
    found = list(reader.section([matrix.shape for matrix in levels]))
    assert reader.place == len(reader.data)
    for matrix, (step, read) in zip(levels, found, strict=True):
        assert step == 1.5
        np.testing.assert_array_equal(read, matrix)
    if name == "classes":
        assert len(reader.tables) > 1
    if name == "many":
        assert len(reader.tables) < len(levels)  # some are used again
