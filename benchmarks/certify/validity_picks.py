"""A line, a square and a small vocabulary: sample compression and bounded losses, right and wrong.

On the line a nearest-prototype rule learns two intervals under label noise, one picked example
at a time. Its risk is a sum of lengths, so exact.
"""

import functools
import math

import numpy as np

from benchmarks.certify.validity_cells import DELTA, Results
from tailor.numerics import bounds as b

N, EARLY = 80, 6
EXPECTED = {"to its end": 30, "stopped": 20, "interval": 2}  # sizes, for the sharper bounds
EDGES = np.array([0.0, 0.2, 0.45, 0.7, 1.0])  # the truth is 0, 1, 0, 1 between them

picked_bound = functools.cache(lambda k, n: b.pick_to_learn(k, n, DELTA))


@functools.cache
def sharper(k: int, rule: str) -> float:
    """The bound with a window around the size that is expected."""
    return b.pick_to_learn(k, N, DELTA, b.likely_window(EXPECTED[rule], N, DELTA))


def truth(x: np.ndarray) -> np.ndarray:
    """The label without noise."""
    return (np.searchsorted(EDGES, x, side="right") - 1) % 2


def wrongness(x: np.ndarray, y: np.ndarray, near: np.ndarray) -> np.ndarray:
    """How much nearer the nearest prototype of the other label is; a point is wrong above 0."""
    rows = np.arange(len(x))
    return near[rows, y] - near[rows, 1 - y]


def picks(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Pick the worst example, then learn from it, until none outside is wrong.

    A label without prototype counts as 2 away and label 0 as a little nearer, so that the rule
    starts as "always 0". Ties go to the smallest x: content, not position.
    """
    near = np.full((len(x), 2), 2.0) + np.array([0.0, 1e-3])
    order: list[int] = []
    outside = np.ones(len(x), dtype=bool)
    while True:
        worst = np.where(outside, wrongness(x, y, near), -np.inf)
        top = np.flatnonzero(worst == worst.max())
        pick = int(top[x[top].argmin()])
        if worst[pick] <= 0:
            return order
        order.append(pick)
        outside[pick] = False
        near[:, y[pick]] = np.minimum(near[:, y[pick]], np.abs(x - x[pick]))


def answers(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rule's labels, from prototypes x with labels y."""
    if len(x) == 0:
        return np.zeros(len(at), dtype=int)
    return y[np.abs(at[:, None] - x[None, :]).argmin(axis=1)]


def risk(x: np.ndarray, y: np.ndarray, noise: float) -> float:
    """Exact: both rule and truth are constant between neighbouring edges and midpoints."""
    line = np.sort(x)
    cuts = np.unique(np.concatenate([EDGES, (line[1:] + line[:-1]) / 2]))
    middle = (cuts[1:] + cuts[:-1]) / 2
    apart = float(np.diff(cuts) @ (answers(middle, x, y) != truth(middle)))
    return noise + (1 - 2 * noise) * apart


def line(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """Pick-to-Learn to its end and to a fixed size, and classical sample compression."""
    rows = []
    for _ in range(repetitions):
        x = rng.random(N)
        y = truth(x) ^ (rng.random(N) < noise)
        order = picks(x, y)
        wrong = [errors_after(x, y, order[:m]) for m in range(len(order) + 1)]
        early = min(EARLY, len(order))
        classical = [compressed(e, m) for m, e in enumerate(wrong)]
        best = int(np.argmin(classical))
        free = [unpaid(e, m) for m, e in enumerate(wrong)]
        lured = int(np.argmin(free))
        risks = {m: risk(x[order[:m]], y[order[:m]], noise) for m in {early, best, lured}}
        end = risk(x[order], y[order], noise)
        rows.append(
            [
                (picked_bound(len(order), N), end),
                (picked_bound(early + wrong[early], N), risks[early]),
                (sharper(len(order), "to its end"), end),
                (sharper(early + wrong[early], "stopped"), risks[early]),
                (classical[best], risks[best]),
                (picked_bound(early, N), risks[early]),
                (free[lured], risks[lured]),
                (b.held_out_upper(0, N, DELTA), end),
            ]
        )
    names = (
        "P2L, to its end",
        "P2L, stopped at 6 picks",
        "P2L, to its end, 30 expected",
        "P2L, stopped at 6 picks, 20 expected",
        "sample compression, any stop",
        "wrong: P2L stopped early, errors left not counted",
        "wrong: sample compression, the choice of the set not paid",
        "wrong: training errors taken as held out",
    )
    pairs = np.array(rows)
    return {name: (pairs[:, i, 0], pairs[:, i, 1]) for i, name in enumerate(names)}


def errors_after(x: np.ndarray, y: np.ndarray, order: list[int]) -> int:
    """Errors of the rule on the examples outside."""
    outside = np.ones(len(x), dtype=bool)
    outside[order] = False
    return int((answers(x[outside], x[order], y[order]) != y[outside]).sum())


@functools.cache
def compressed(errors: int, size: int) -> float:
    """Classical sample compression on the line."""
    return b.sample_compression(errors, N, size, 0.0, DELTA)


@functools.cache
def unpaid(errors: int, size: int) -> float:
    """The same without the union over the sets."""
    return b.held_out_upper(errors, N - size, DELTA) if size < N else 1.0


def hull(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """The smallest interval that holds all examples: two picks, and a risk that is Beta(2, n-1).

    The known law: with k = 2 fixed beforehand, no bound could lie below the binomial's.
    """
    del noise  # every label is 1
    points = rng.random((repetitions, N))
    outside = 1 - (points.max(axis=1) - points.min(axis=1))
    return {
        "P2L, interval around all": (np.full(repetitions, picked_bound(2, N)), outside),
        "P2L, interval around all, 2 expected": (
            np.full(repetitions, sharper(2, "interval")),
            outside,
        ),
        "wrong: interval, no pick counted": (
            np.full(repetitions, b.held_out_upper(0, N, DELTA)),
            outside,
        ),
    }


# ---- words: 16 contexts, 4 words, tables of predictions, log loss --------------------------

CONTEXTS, WORDS, TABLES, PAIRS = 16, 4, 1024, 60
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_rng = np.random.default_rng(1)
LAW = np.eye(WORDS)[_rng.integers(WORDS, size=CONTEXTS)]  # the word that follows each context
GUESSES = np.where(
    _rng.random((TABLES, CONTEXTS, 1)) < 0.6,
    LAW,
    np.eye(WORDS)[_rng.integers(WORDS, size=(TABLES, CONTEXTS))],
)


def words(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """Tables of predictions, smoothed by one of eight weights; the best of all by the bound."""
    law = (1 - 2 * noise) * LAW + 2 * noise / WORDS  # random labels at noise 1/2
    width, floor, losses = zip(*map(smoothed, ALPHAS), strict=True)
    flat = np.stack(losses).reshape(len(ALPHAS) * TABLES, -1)
    counts = rng.multinomial(PAIRS, (law / CONTEXTS).ravel(), size=repetitions)
    means = (counts @ flat.T / PAIRS).reshape(repetitions, len(ALPHAS), TABLES)
    risks = (flat @ (law / CONTEXTS).ravel()).reshape(len(ALPHAS), TABLES)
    best = means.argmin(axis=2)
    bits = math.log2(TABLES) + math.log2(len(ALPHAS))
    rows = []
    for mean, tables in zip(means, best, strict=True):
        least = mean[np.arange(len(ALPHAS)), tables].tolist()
        paid = [
            b.occam_bounded(r, PAIRS, bits, DELTA, w) for r, w in zip(least, width, strict=True)
        ]
        free = [b.occam_bounded(r, PAIRS, 0.0, DELTA, w) for r, w in zip(least, width, strict=True)]
        forms = ([one.kl for one in paid], [one.hoeffding for one in paid], [o.kl for o in free])
        found = []
        for form in forms:
            limits = np.array(form) + floor
            a = int(limits.argmin())
            found.append((float(limits[a]), float(risks[a, tables[a]]) + floor[a]))
        rows.append(found)
    names = ("bounded loss, smoothed, kl", "bounded loss, smoothed, Hoeffding")
    names += ("wrong: bounded loss, the bits not paid",)
    pairs = np.array(rows)
    return {name: (pairs[:, i, 0], pairs[:, i, 1]) for i, name in enumerate(names)}


def smoothed(alpha: float) -> tuple[float, float, np.ndarray]:
    """The loss's range, its smallest value, and -log2 of the smoothed predictions above it."""
    floor = -math.log2(1 - alpha + alpha / WORDS)
    loss = -np.log2((1 - alpha) * GUESSES + alpha / WORDS) - floor
    return b.smoothing_range(WORDS, alpha), floor, np.maximum(loss, 0.0)
