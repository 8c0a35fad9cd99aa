"""What encoder and decoder say to each other about the tensors of a section.

It runs through one adaptive coder. One description serves both sides: it is given what is sent, or
None to receive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from tailor.errors import PayloadError
from tailor.numerics.coding.arithmetic import Coder, Encoder
from tailor.numerics.coding.classes import ENTRY_BITS, Classes, walk_classes
from tailor.numerics.coding.coins import Coins
from tailor.numerics.coding.entropy import UNIT
from tailor.numerics.coding.modes import MODES, Plan, header_widths, runs
from tailor.numerics.coding.stretch import TABLE_BITS, Stretch
from tailor.numerics.coding.symbols import COLUMNS, DIRECT, KEPT, ZERO, Split
from tailor.numerics.coding.tables import COST, RootsCoder, frequencies, roots
from tailor.numerics.coding.tensors import Spec, sides

MAX_TABLES = 256  # in a section, so that a byte names one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """What is said about a tensor before its symbols.

    Attributes:
        mode: Place in ``MODES``.
        header: Numbers that the mode needs.
        splits: For each run of whole numbers how they are symbols.
        contexts: For each run the table of each position.
    """

    mode: int
    header: tuple[int, ...]
    splits: list[Split]
    contexts: list[UInt8[ndarray, "n"]]


class Side:
    """The side information of one section, tensor by tensor.

    Attributes:
        spent: Bits by part, where it is an encoder that speaks.
    """

    def __init__(self, coder: Coder) -> None:
        self.coins = Coins(coder)
        self.roots = RootsCoder(self.coins, COLUMNS, ZERO)
        self.tables = np.zeros((MAX_TABLES, COLUMNS), dtype=np.int64)
        self.count, self.latest = 0, 0
        self.spent = {"modes": 0.0, "classes": 0.0, "tables": 0.0}

    def pool(self) -> Int64[ndarray, "tables columns"]:
        """All tables so far."""
        return self.tables[: self.count]

    def tensor(self, sent: Plan | None, spec: Spec) -> Told:
        """Mode and header of a tensor, then each of its runs."""
        before = self._written()
        mode = self.coins.number(("mode",), None if sent is None else sent.mode, 3)
        if mode >= len(MODES):
            raise PayloadError("the stream is damaged: a tensor has no known mode")
        widths = header_widths(mode, spec)
        numbers: Sequence[int | None] = [None] * len(widths) if sent is None else sent.header
        header = tuple(
            self.coins.number(("header", mode, place), number, width)
            for place, (number, width) in enumerate(zip(numbers, widths, strict=True))
        )
        self.spent["modes"] += self._written() - before
        told = Told(mode=mode, header=header, splits=[], contexts=[])
        for place in range(runs(mode, header)):
            split, contexts = self._run(None if sent is None else sent.stretches[place], spec)
            told.splits.append(split)
            told.contexts.append(contexts)
        return told

    def _run(self, sent: Stretch | None, spec: Spec) -> tuple[Split, UInt8[ndarray, "n"]]:
        """How numbers are symbols, classes, and a table for each pair of classes."""
        if spec.size == 0:
            return Split(direct=DIRECT[0], kept=0), np.zeros(0, dtype=np.uint8)
        start = self._written()
        split = self._split(None if sent is None else sent.split)
        classes = None if sent is None else sent.classes
        if self.coins.bit(("classes",), None if classes is None else int(classes.pairs > 1)):
            classes = walk_classes(self.coins.coder, classes, sides(spec.shape))
        else:
            classes = Classes.trivial(sides(spec.shape))
        middle = self._written()
        counts = [None] * classes.pairs if sent is None else sent.counts
        tables = list(map(self._table, counts))
        self.spent["classes"] += middle - start
        self.spent["tables"] += self._written() - middle
        return split, np.array(tables, dtype=np.uint8)[classes.contexts()]

    def _split(self, sent: Split | None) -> Split:
        sent_direct = None if sent is None else sent.direct - DIRECT[0]
        direct = self.coins.number(("direct",), sent_direct, 3)
        kept = self.coins.number(("kept",), None if sent is None else sent.kept, 3)
        split = Split(direct=direct + DIRECT[0], kept=kept)
        if split.direct not in DIRECT or kept not in KEPT or kept > split.direct:
            raise PayloadError("the stream is damaged: symbols are split in no known way")
        return split

    def _table(self, counts: Int64[ndarray, "columns"] | None) -> int:
        """The latest table again, another one of those before, or a new one."""
        number, fresh = (None, None) if counts is None else self._choose(counts)
        if self.count and self._is("latest", number, self.latest):
            return self.latest
        if not self.count or self._is("new", number, self.count):
            self._add(fresh)
            self.latest = self.count - 1
        else:
            self.latest = self.coins.coder.number(number, (self.count - 1).bit_length())
            if self.latest >= self.count:
                raise PayloadError("the stream is damaged: a table is not there")
        return self.latest

    def _is(self, what: str, number: int | None, which: int) -> bool:
        return self.coins.bit((what,), None if number is None else int(number == which)) == 1

    def _add(self, sent: Int64[ndarray, "columns"] | None) -> None:
        if self.count == MAX_TABLES:
            raise PayloadError("the stream is damaged: a section has too many tables")
        found = self.roots.walk(None if sent is None else sent.tolist())
        self.tables[self.count] = frequencies(np.array(found))
        self.count += 1

    def _choose(self, counts: Int64[ndarray, "columns"]) -> tuple[int, Int64[ndarray, "columns"]]:
        """The best table for these counts: number, and the roots of a new one."""
        fresh = roots(counts)
        present = counts.nonzero()[0]
        new = int(COST[frequencies(fresh)][present] @ counts[present])
        new += UNIT * (TABLE_BITS + ENTRY_BITS * len(present))
        old = COST[self.pool()[:, present]] @ counts[present]
        best = int(old.argmin()) if len(old) else 0  # the first among equals
        return best if len(old) and int(old[best]) <= new else self.count, fresh

    def _written(self) -> int:
        """Bits so far, without those that the coder has not decided on."""
        coder = self.coins.coder
        return len(coder.bits) + coder.pending if isinstance(coder, Encoder) else 0
