"""Language models of characters that few whole numbers describe, and how they are fitted.

Each of the last characters has a row of small whole numbers; their sum, times another matrix of
whole numbers, gives the scores of the next character. The fit goes by counts of contexts: first
with straight-through rounding, then one number at a time, by the loss plus the price of the bits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.certify.text_sources import ALPHABET
from tailor.numerics.coding import Grid
from tailor.stages.certify.text import Documents
from tailor.stages.compress import Adaptive, CompressedModel, pack
from tailor.tasks import Frozen

# Shares of letters in English text in percent (Lewand 2000, Cryptological Mathematics), and rough
# guesses of ours for the other keys.
LETTERS = {"e": 12.7, "t": 9.06, "a": 8.17, "o": 7.51, "i": 6.97, "n": 6.75, "s": 6.33, "h": 6.09}
LETTERS |= {"r": 5.99, "d": 4.25, "l": 4.03, "c": 2.78, "u": 2.76, "m": 2.41, "w": 2.36, "f": 2.23}
LETTERS |= {"g": 2.02, "y": 1.97, "p": 1.93, "b": 1.49, "v": 0.98, "k": 0.77, "j": 0.15, "x": 0.15}
LETTERS |= {"q": 0.1, "z": 0.07}
OTHERS = {" ": 17.0, "\n": 3.0, ",": 1.2, ".": 1.0, "'": 0.4, '"': 0.3, "-": 0.2}
OTHERS |= {"?": 0.2, "!": 0.2, ";": 0.2, ":": 0.2}
GROUPS = ("aeiou", "bcdfghjklmnpqrstvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", ",.;:?!")


def english() -> np.ndarray:
    """Logarithms of the shares of characters, known before any data."""
    shares = [
        0.72 * LETTERS.get(one, 0.0)
        + 0.04 * LETTERS.get(one.lower(), 0.0) * one.isupper()
        + OTHERS.get(one, 0.0)
        for one in ALPHABET
    ]
    return np.log(np.array(shares) + 0.002)


def groups(folded: bool) -> np.ndarray:
    """Which characters a row stands for: one, or a letter in both cases, and then kinds."""
    rows = [[one == row or (folded and one.lower() == row) for one in ALPHABET] for row in ALPHABET]
    rows += [[one in group for one in ALPHABET] for group in GROUPS]
    return np.array(rows, dtype=np.float64)


class Constants(nn.Module):
    """What is known about characters of English before the data."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("known", torch.from_numpy(english()).float())
        self.register_buffer("before", torch.from_numpy(groups(folded=True).T.copy()).float())
        self.register_buffer("after", torch.from_numpy(groups(folded=False).T.copy()).float())


class Tables(nn.Module):
    """Scores of the next character from the last ones.

    Each of the last characters has a row in a table of its place, and the groups it belongs to
    have rows too; the sum is multiplied by the rows of the next character and of its groups.
    """

    def __init__(self, context: int, rank: int, gain: float) -> None:
        super().__init__()
        self.gain, rows = gain, len(ALPHABET) + len(GROUPS)
        self.constants = Frozen(
            Constants(),
            statement="shares of letters in English (Lewand 2000) and which are vowels or capitals",
            domain=True,
        )
        self.past = nn.ParameterList(torch.zeros(rows, rank) for _ in range(context))
        self.out = nn.Parameter(torch.zeros(rows, rank))
        self.bias = nn.Parameter(torch.zeros(rows, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Numbers of characters, (documents, length), to scores."""
        known = self.constants.part
        hidden: Tensor | float = 0.0
        for back, table in enumerate(self.past):
            earlier = nn.functional.pad(tokens, (back, 0))[:, : tokens.shape[1]]
            hidden = hidden + (known.before @ table)[earlier]
        scores = hidden @ (known.after @ self.out).T + (known.after @ self.bias)[:, 0]
        return self.gain * scores + known.known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """Contexts that occur, and the weight of each next character: together 1."""

    context: np.ndarray  # (contexts, back)
    weight: np.ndarray  # (contexts, symbols)

    @classmethod
    def of(cls, documents: Documents, context: int, symbols: int) -> "Counts":
        """Each document counts alike; before its beginning are ends of lines."""
        keys, following, weights = [], [], []
        for one in documents.tokens:
            padded = np.concatenate([np.zeros(context, dtype=np.int64), one])
            windows = np.lib.stride_tricks.sliding_window_view(padded, context)[:-1]
            keys.append(windows[:, ::-1])
            following.append(one)
            weights.append(np.full(len(one), 1 / len(one)))
        found, place = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
        weight = np.zeros((len(found), symbols))
        np.add.at(weight, (place.ravel(), np.concatenate(following)), np.concatenate(weights))
        return cls(context=found, weight=weight / len(documents))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a model is fitted; nothing of it is paid for, but context, rank and gain.

    Attributes:
        context: Number of characters that are looked at.
        rank: Width.
        gain: What the scores of whole numbers are multiplied by.
        price: Bits per character that one bit of the file is worth.
        steps: Of the first part.
        sweeps: Of the second part.
        seed: Of the start.
        pressure: Of the first part toward zeros, in bits for each unit.
    """

    context: int
    rank: int
    gain: float
    price: float
    steps: int = 600
    sweeps: int = 6
    seed: int = 0
    pressure: float = 3.0

    def build(self) -> Tables:
        """The network with fresh weights."""
        return Tables(self.context, self.rank, self.gain)

    def run(self, counts: Counts) -> CompressedModel:
        """Fit to counts and write the file."""
        search = Search(counts, *rounded(counts, self), self)
        for _ in range(self.sweeps):
            if not search.sweep():
                break
        levels = {f"past.{k}": one for k, one in enumerate(search.past)}
        levels |= {"out": search.out, "bias": search.bias}
        grids = {name: Grid(levels=one.astype(np.int64)) for name, one in levels.items()}
        return pack(self.build(), grids, coder=Adaptive())


def rounded(counts: Counts, fit: Fit) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Whole numbers by gradient descent with straight-through rounding."""
    before, after, known = (
        torch.from_numpy(one).float() for one in (groups(True).T, groups(False).T, english())
    )
    generator = torch.Generator().manual_seed(fit.seed)
    shapes = [(before.shape[1], fit.rank)] * (fit.context + 1)
    free = [0.7 * torch.randn(shape, generator=generator) for shape in shapes]
    free.append(torch.zeros(after.shape[1], 1))
    for one in free:
        one.requires_grad_()
    rows = torch.from_numpy(counts.context)
    weight = torch.from_numpy(counts.weight).float()
    optimizer = torch.optim.Adam(free, lr=0.08)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fit.steps, eta_min=0.004)
    for step in range(fit.steps):
        share = min(1.0, 2 * step / fit.steps)  # from real to whole numbers
        whole = [one + share * (one.round() - one).detach() for one in free]
        hidden = sum((before @ table)[rows[:, k]] for k, table in enumerate(whole[:-2]))
        scores = hidden @ (after @ whole[-2]).T + (after @ whole[-1])[:, 0]
        loss = -(weight * (fit.gain * scores + known).log_softmax(-1)).sum() / np.log(2)
        size = sum(one.abs().clamp(max=4).sum() for one in free)
        (loss + fit.pressure * share * fit.price * size).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    done = [one.detach().round().numpy().astype(np.float64) for one in free]
    return done[:-2], done[-2], done[-1]


class Search:
    """One number at a time: loss in bits plus price times length."""

    def __init__(
        self, counts: Counts, past: list[np.ndarray], out: np.ndarray, bias: np.ndarray, fit: Fit
    ) -> None:
        self.counts, self.fit = counts, fit
        self.past, self.out, self.bias = past, out, bias
        self.before, self.after = groups(True), groups(False)
        self.total = counts.weight.sum(axis=1)
        self.rows = [
            [np.flatnonzero(row[counts.context[:, k]]) for row in self.before]
            for k in range(fit.context)
        ]
        self.columns = [np.flatnonzero(row) for row in self.after]
        self._refresh()

    def _refresh(self) -> None:
        context = self.counts.context
        self.hidden = sum((self.before.T @ t)[context[:, k]] for k, t in enumerate(self.past))
        scores = self.hidden @ (self.after.T @ self.out).T + (self.after.T @ self.bias)[:, 0]
        self.exp = np.exp(self.fit.gain * scores + english())
        self.sum = self.exp.sum(axis=1)

    def loss(self) -> float:
        """Bits per character of the whole."""
        probable = np.log2(self.exp / self.sum[:, None])
        return -float((self.counts.weight * probable).sum())

    def sweep(self) -> int:
        """Try every number once; how many changed."""
        changed, one = 0, np.ones(len(self.total))
        price = prices(self.bias)
        for s in range(len(self.bias)):
            changed += self._try_out(self.bias, (s, 0), one, price)
        price = prices(self.out)
        for s in range(len(self.out)):
            for j in range(self.fit.rank):
                changed += self._try_out(self.out, (s, j), self.hidden[:, j], price)
        for k in range(self.fit.context):
            changed += self._sweep_past(k)
        return changed

    def _try_out(
        self, array: np.ndarray, at: tuple[int, int], column: np.ndarray, price: np.ndarray
    ) -> int:
        old, own = array[at], self.columns[at[0]]
        here = self.exp[:, own].sum(axis=1)
        weight = self.counts.weight[:, own].sum(axis=1)
        best = (0.0, old)
        for new in alternatives(old):
            step = self.fit.gain * (new - old) * column
            bits = self.total @ np.log2(1 + here * np.expm1(step) / self.sum)
            bits -= weight @ step / np.log(2)
            paid = self.fit.price * (cost(price, new) - cost(price, old))
            best = min(best, (bits + paid, new))
        if best[1] == old:
            return 0
        step = self.fit.gain * (best[1] - old) * column
        array[at] = best[1]
        self.exp[:, own] *= np.exp(step)[:, None]
        self.sum = self.exp.sum(axis=1)
        return 1

    def _sweep_past(self, k: int) -> int:
        changed, table = 0, self.past[k]
        price, out = prices(table), self.after.T @ self.out
        for c, rows in enumerate(self.rows[k]):
            if len(rows) == 0:
                table[c] = 0
                continue
            for j in range(self.fit.rank):
                changed += self._try_past(table, (c, j), rows, price, self.fit.gain * out[:, j])
        self._refresh()
        return changed

    def _try_past(
        self,
        table: np.ndarray,
        at: tuple[int, int],
        rows: np.ndarray,
        price: np.ndarray,
        slope: np.ndarray,
    ) -> int:
        old, here = table[at], self.exp[rows]
        pull = float((self.counts.weight[rows] @ slope).sum()) / np.log(2)
        best = (0.0, old)
        for new in alternatives(old):
            total = here @ np.exp((new - old) * slope)
            bits = self.total[rows] @ np.log2(total / self.sum[rows]) - (new - old) * pull
            paid = self.fit.price * (cost(price, new) - cost(price, old))
            best = min(best, (bits + paid, new))
        if best[1] == old:
            return 0
        table[at] = best[1]
        self.exp[rows] = here * np.exp((best[1] - old) * slope)
        self.sum[rows] = self.exp[rows].sum(axis=1)
        return 1


def alternatives(level: float) -> list[float]:
    """Zero, one more, one less."""
    return [one for one in (0.0, level - 1, level + 1) if one != level]


def prices(levels: np.ndarray) -> np.ndarray:
    """Bits of each size of a number by the frequencies among rows that hold something."""
    live = np.abs(levels[(levels != 0).any(axis=1)]).ravel().astype(int)
    counts = np.bincount(np.minimum(live, 30), minlength=32) + 0.5
    bits = -np.log2(counts / counts.sum())
    bits[1:] += 1  # the sign
    return bits


def cost(price: np.ndarray, level: float) -> float:
    """Bits of one number."""
    return float(price[min(int(abs(level)), 31)])
