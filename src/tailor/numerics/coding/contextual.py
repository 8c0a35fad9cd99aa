"""A stream whose coins are selected by context: shorter for small networks, format version 3.

One walk serves encoder and decoder, as in the stream of version 1. The encoder's choice of
``Options`` stands in the stream, so a reader repeats the walk and not the choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding.arithmetic import Coder, Coin, Decoder, Encoder
from tailor.numerics.coding.context_choice import best_options
from tailor.numerics.coding.contexts import (
    CONTEXT,
    EXPONENT,
    FAIR,
    FIRST,
    FLAGS,
    GRID,
    KNOWN,
    OCCUPANCY,
    ROW_CAP,
    SAME_TOP,
    SIGNS,
    STEP,
    TOP,
    Before,
    Options,
    column_units,
    step_fields,
    top_of,
)
from tailor.numerics.coding.length import UNARY
from tailor.numerics.coding.stream import MAX_ELEMENTS
from tailor.numerics.coding.tensors import DTYPES, Grid, Plain, Raw, Spec, matrix, sides


def encode_contextual(tensors: Sequence[Plain], options: Sequence[Options] | None = None) -> bytes:
    """Encode tensors in order; their shapes and types must be known to the decoder.

    Args:
        tensors: On grids or raw.
        options: One for each tensor (those of raw ones play no part), or the shortest.
    """
    return _send(_messages(tensors, options)).finish()


def contextual_bits(tensors: Sequence[Plain], options: Sequence[Options] | None = None) -> int:
    """Bits of the stream before its last byte is filled.

    Even so no stream is the beginning of another one, since the last bits name an interval whatever
    bits follow; so 2^-bits is a prior.
    """
    coder = _send(_messages(tensors, options))
    coder.finish()
    return len(coder.bits)


def decode_contextual(data: bytes, specs: Sequence[Spec]) -> list[Plain]:
    """Invert ``encode_contextual``.

    Raises:
        PayloadError: The bytes are no codeword for these shapes, or the shapes claim more
            elements than ``MAX_ELEMENTS``.
    """
    return [item.tensor(spec) for item, spec in zip(_receive(data, specs), specs, strict=True)]


def contextual_options(data: bytes, specs: Sequence[Spec]) -> list[Options]:
    """The options of each tensor of a stream (the plain ones for a raw tensor).

    Raises:
        PayloadError: As ``decode_contextual``.
    """
    return [item.options for item in _receive(data, specs)]


@dataclass(slots=True)
class _Message:
    """A tensor on its way through the coder: raw bytes, or levels with a step and options."""

    raw: bytes | None = None
    levels: ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.int64))
    step: float = 1.0
    options: Options = field(default_factory=Options)

    def tensor(self, spec: Spec) -> Plain:
        """The tensor, in its own shape."""
        if self.raw is not None:
            return Raw(data=self.raw)
        try:
            return Grid(levels=self.levels.reshape(spec.shape), step=self.step)
        except UsageError as error:
            raise PayloadError(f"the stream is damaged: {error}") from error


def _messages(
    tensors: Sequence[Plain], options: Sequence[Options] | None
) -> Iterator[tuple["_Message", Before]]:
    before = FIRST
    for i, tensor in enumerate(tensors):
        if isinstance(tensor, Raw):
            yield _Message(raw=tensor.data), before
            continue
        levels = matrix(tensor.levels)
        chosen = best_options(levels, before) if options is None else options[i]
        yield _Message(levels=levels, step=tensor.step, options=chosen), before
        before = before.after(levels)


def _send(messages: Iterator[tuple["_Message", Before]]) -> Encoder:
    coder = Encoder()
    for message, before in messages:
        coder.bit(Coin(*GRID), int(message.raw is None))
        if message.raw is None:
            _Walk(coder, message, before, sent=True).run()
        else:
            for byte in message.raw:
                coder.number(byte, 8)
    return coder


def _receive(data: bytes, specs: Sequence[Spec]) -> list[_Message]:
    claimed = sum(spec.size for spec in specs)
    if claimed > MAX_ELEMENTS:
        raise PayloadError(f"the file claims {claimed} elements, more than {MAX_ELEMENTS} allowed")
    coder, before = Decoder(data), FIRST
    received: list[tuple[_Message, Before]] = []
    for spec in specs:
        if coder.bit(Coin(*GRID)):
            message = _Message(levels=np.zeros(sides(spec.shape), dtype=np.int64))
            _Walk(coder, message, before, sent=False).run()
            received.append((message, before))
            before = before.after(message.levels)
        else:
            length = spec.size * DTYPES[spec.dtype].itemsize
            raw = bytes(coder.number(None, 8) for _ in range(length))
            received.append((_Message(raw=raw), before))
    if _send(iter(received)).finish() != data:
        raise PayloadError("the stream is damaged: it does not decode and encode to itself")
    return [message for message, _ in received]


class _Walk:
    """One pass over a tensor on a grid; fills the message when it is received."""

    def __init__(self, coder: Coder, message: _Message, before: Before, sent: bool) -> None:
        self.coder, self.message, self.before, self.sent = coder, message, before, sent
        self.levels = message.levels

    def run(self) -> None:
        """Step, options, flags, largest size, entries."""
        self.message.step = self._step(self.message.step)
        self.message.options = self._options(self.message.options)
        rows, columns = self._rows(), self._columns()
        if not rows or not columns:
            return
        top = self._top(top_of(self.levels))
        coins = _Coins(self.coder, self.levels, self.message.options, top)
        for i in rows:
            for j in columns:
                level = int(self.levels[i, j]) if self.sent else None
                self.levels[i, j] = coins.entry(i, j, level)
            coins.end_row()

    def _odds(self, odds: tuple[int, int], value: int | bool) -> int:
        return self.coder.bit(Coin(*odds), int(value) if self.sent else None)

    def _number(self, value: int, width: int) -> int:
        return self.coder.number(value if self.sent else None, width)

    def _gamma(self, value: int) -> int:
        return self.coder.gamma(value if self.sent else None)

    def _step(self, step: float) -> float:
        if not self._odds(STEP, step != 1.0):
            return 1.0
        counted, fraction = step_fields(step)
        counted = self._gamma(1 + counted) - 1
        exponent = EXPONENT + (-(counted + 1) // 2 if counted % 2 else counted // 2)
        fraction = self._number(fraction, 7) if self._odds(FAIR, fraction > 0) else 0
        bits = (exponent << 7) + fraction
        if not 0 < bits < 255 << 7:
            raise PayloadError("the stream is damaged: a step is not a positive number")
        return float(np.array([bits << 16], dtype="<u4").view("<f4")[0])

    def _options(self, options: Options) -> Options:
        rows = bool(self._odds(FLAGS, options.rows))
        columns = bool(self._odds(FLAGS, options.columns))
        names, occupancy, signs = list(OCCUPANCY), "one", "fair"
        if self._odds(CONTEXT, options.occupancy != "one"):
            occupancy = names[1 + self._number(names.index(options.occupancy) - 1, 3)]
        if self._odds(CONTEXT, options.signs != "fair"):
            signs = SIGNS[1 + self._number(SIGNS.index(options.signs) - 1, 2)]
        got = Options(rows=rows, columns=columns, occupancy=occupancy, signs=signs)
        return replace(got, lag=self._gamma(options.lag)) if got.uses_left else got

    def _rows(self) -> list[int]:
        if not self.message.options.rows:
            return list(range(len(self.levels)))
        return np.flatnonzero(self._runs((self.levels != 0).any(axis=1))).tolist()

    def _columns(self) -> list[int]:
        n = self.levels.shape[1]
        if not self.message.options.columns:
            return list(range(n))
        expected = self.before.expected(n)
        flags = column_units((self.levels != 0).any(axis=0), expected)
        got = self._runs(flags) if expected is None else self._known(flags, expected)
        return np.flatnonzero(np.repeat(got, n // max(1, len(got)))).tolist()

    def _runs(self, flags: Bool[ndarray, "n"]) -> Bool[ndarray, "n"]:
        """Flags under two coins, by the flag before."""
        coins, got, previous = (Coin(*FAIR), Coin(*FAIR)), flags.copy(), 1
        for i in range(len(flags)):
            previous = self.coder.bit(coins[previous], int(flags[i]) if self.sent else None)
            got[i] = previous
        return got

    def _known(self, flags: Bool[ndarray, "n"], expected: Bool[ndarray, "n"]) -> Bool[ndarray, "n"]:
        """Flags under two coins, by whether the unit of the layer before is live."""
        coins, got = [Coin(*start) for start in KNOWN], flags.copy()
        for i in range(len(flags)):
            coin = coins[int(expected[i])]
            got[i] = self.coder.bit(coin, int(flags[i]) if self.sent else None)
        return got

    def _top(self, top: int) -> int:
        if self.before.top and self._odds(SAME_TOP, top == self.before.top):
            return self.before.top
        return 1 + self._gamma(top - 1) if self._odds(TOP, top > 1) else 1


class _Coins:
    """The coins of one tensor's entries, and what selects them."""

    def __init__(self, coder: Coder, levels: ndarray, options: Options, top: int) -> None:
        self.coder, self.levels, self.options, self.top = coder, levels, options, top
        self.places: dict[int, Coin] = {}
        self.sign = Coin(*FAIR)
        self.sizes = [Coin(*FAIR) for _ in range(min(top - 1, UNARY))]
        self.visited = 0  # rows before this one
        self.row_count = self.row_sum = 0  # entries that are not zero, and the sum of their signs
        self.counts, self.sums = np.zeros((2, levels.shape[1]), dtype=np.int64)  # by column

    def entry(self, i: int, j: int, level: int | None) -> int:
        """Send a level, or receive one when it is None."""
        coin = self.places.setdefault(self._place(i, j), Coin(*OCCUPANCY[self.options.occupancy]))
        if not self.coder.bit(coin, None if level is None else int(level != 0)):
            return 0
        negative = self._sign(i, j, None if level is None else int(level < 0))
        size = self._size(None if level is None else abs(level))
        sign = -1 if negative else 1
        self.row_count, self.row_sum = self.row_count + 1, self.row_sum + sign
        self.counts[j] += 1
        self.sums[j] += sign
        return sign * size

    def end_row(self) -> None:
        """The next entry is in another row."""
        self.visited += 1
        self.row_count = self.row_sum = 0

    def _place(self, i: int, j: int) -> int:
        """What selects the coin of "occupied"."""
        match self.options.occupancy:
            case "above":
                return self._above(i, j)
            case "left":
                return int(self._left(i, j) != 0)
            case "above + left":
                return self._above(i, j) + int(self._left(i, j) != 0)
            case "row so far":
                return min(ROW_CAP, self.row_count)
            case "column so far":
                return self._density(j)
            case "column so far, left":
                return 2 * self._density(j) + int(self._left(i, j) != 0)
        return {"one": 0, "own row": i, "own column": j}[self.options.occupancy]

    def _above(self, i: int, j: int) -> int:
        return int(i > 0 and self.levels[i - 1, j] != 0)

    def _left(self, i: int, j: int) -> int:
        return int(self.levels[i, j - self.options.lag]) if j >= self.options.lag else 0

    def _density(self, j: int) -> int:
        found, rows = int(self.counts[j]), self.visited
        if found:
            return 3 + int(3 * found >= rows) + int(3 * found >= 2 * rows)
        return int(rows >= 3) + int(rows >= 8)

    def _sign(self, i: int, j: int, negative: int | None) -> int:
        """1 for a negative level."""
        match self.options.signs:
            case "fair":
                return self.coder.fair(negative)
            case "one":
                return self.coder.bit(self.sign, negative)
            case "left":
                expected = self._left(i, j)
            case "column so far":
                expected = int(self.sums[j])
            case _:
                expected = self.row_sum
        if expected == 0:
            return self.coder.fair(negative)
        guess = int(expected < 0)
        return guess ^ self.coder.bit(self.sign, None if negative is None else negative ^ guess)

    def _size(self, size: int | None) -> int:
        reached = 1
        for coin in self.sizes:
            if not self.coder.bit(coin, None if size is None else int(size > reached)):
                break
            reached += 1
        if reached > UNARY and self.top > UNARY:
            return UNARY + self.coder.gamma(None if size is None else size - UNARY)
        return reached
