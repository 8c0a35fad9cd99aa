"""The recount of Pick-to-Learn: everything is picked and learned again, on one thread."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tailor.verifier.network import hash_records, take
from tailor.verifier.said import near, same, sha256

BLOCK = 512  # the learner's margins are computed in blocks of one size
TURN = (5**0.5 - 1) / 2


def recount_picks(
    said: Mapping[str, Any],
    *,
    method: Any,
    payload: bytes,
    data: Any,
    wrong: Tensor,
    delta: float,
) -> None:
    """Pick again, learn again, and compare picks, file, k and bound.

    Args:
        said: The evidence.
        method: The learner and how it picks.
        payload: The file.
        data: The sample.
        wrong: Which of its examples the file's network gets wrong.
        delta: What all stops share.
    """
    learner, rounds, n = method.learner, method.rounds, len(data.y)
    names = hash_records(data)
    picks, sizes, small = _again(learner, rounds, data, names, said["stop"])
    same("picks", list(said["indices"]), picks)
    same("file", sha256(payload), sha256(small.payload))
    errors = np.flatnonzero(wrong.numpy())
    left = np.setdiff1d(errors, picks)
    k = len(picks) + len(left)
    same("n, errors", [said["n"], said["errors"]], [n, len(errors)])
    same("k", [said["picks"], said["leftover"], said["k"]], [len(picks), len(left), k])
    same("stops", said["stops"], len(rounds.stops))
    same(
        "rounds",
        [said["per_round"], said["rounds"], said["order"]],
        [rounds.per_round, len(sizes), rounds.order],
    )
    order = [names[i] for i in picks]
    same("contents of the picks", said["picks_sha256"], _sha(order))
    kept = sorted(names[i] for i in [*picks, *left.tolist()])
    same("contents of the compression set", said["kept_sha256"], _sha(kept))
    ends = np.cumsum(sizes).tolist()
    lines = [" ".join(order[e - s : e]) for s, e in zip(sizes, ends, strict=True)]
    lines.append(sha256(payload))
    same("replay", said["replay_sha256"], _sha(lines))
    same("learner", said["learner_sha256"], learner.digest())
    each = delta / len(rounds.stops)
    window = None if rounds.expected is None else likely(min(rounds.expected, n - 1), n, each)
    same("window", said["window"] and tuple(said["window"]), window)
    near("bound", said["risk_bound"], eps(k, n, each, window))


def likely(expected: int, n: int, delta: float) -> tuple[int, int]:
    """Mean and 1.5 deviations of the trial of success number expected + 1, within 0 to n - 1."""
    risk = eps(expected, n, delta)
    mean, deviation = (expected + 1) / risk, math.sqrt((expected + 1) * (1 - risk)) / risk
    ends = math.floor(mean - 1.5 * deviation), math.ceil(mean + 1.5 * deviation)
    return min(max(0, ends[0]), n - 1), min(ends[1], n - 1)


def eps(k: int, n: int, delta: float, window: tuple[int, int] | None = None) -> float:
    """Root of sum_{m=k}^{n-1} w_m C(m,k)/C(n,k) (1-eps)^(m-n) = 1, the sum as it stands.

    The weights w add up to delta: all alike, or nine tenths on the sizes m in a window.
    """
    if k >= n:
        return 1.0
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    m, weights = np.arange(k, n), np.ones(n) / n
    if window is not None:
        weights *= 0.1
        weights[window[0] : window[1] + 1] += 0.9 / (window[1] + 1 - window[0])
    ratio = log[m] - log[m - k] - log[n] + log[n - k] + np.log(weights[k:])
    low, high = k / n, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        terms = ratio + (m - n) * math.log1p(-middle)
        total = terms.max() + math.log(np.exp(terms - terms.max()).sum())
        low, high = (middle, high) if total < -math.log(delta) else (low, middle)
    return high


def _again(
    learner: Any, rounds: Any, data: Any, names: list[str], stop: int
) -> tuple[list[int], list[int], Any]:
    """Picks in their order, their number in each round, and the file at the stop."""
    salt = f"picks {rounds.seed}"
    hashed = [hashlib.sha256(f"{salt} {name}".encode()).digest()[:6] for name in names]
    place = np.array([int.from_bytes(one, "big") / 2**48 for one in hashed])
    with _alone(rounds.seed, "start"):
        model = learner.start()
    picks: list[int] = []
    sizes: list[int] = []
    for number in range(1, len(names) + 2):
        if len(picks) == stop:
            break
        aim = min(one for one in rounds.stops if one > len(picks)) - len(picks)
        if not picks and rounds.first:
            new = np.argsort(place, kind="stable")[: rounds.first].tolist()
        else:
            with _alone(rounds.seed, "search", number):
                new = _next(model, data, picks, place, number, rounds)[:aim]
        if not new:
            break
        picks, sizes = picks + new, [*sizes, len(new)]
        with _alone(rounds.seed, "round", number):
            model = learner.update(model, _at(data, picks), _at(data, new), number)
    last = len(sizes) + (len(picks) != stop)
    with _alone(rounds.seed, "finish", last):
        return picks, sizes, learner.finish(model, _at(data, picks))


def _next(
    model: nn.Module, data: Any, picks: list[int], place: Any, number: int, rounds: Any
) -> list[int]:
    """The next wrong examples outside the picks."""
    rest = np.setdiff1d(np.arange(len(place)), picks)
    if rounds.order == "hashed":
        rest = rest[np.lexsort((place[rest], (place[rest] + number * TURN) % 1.0))]
    found: list[tuple[float, float, int]] = []
    model.eval()
    for begin in range(0, len(rest), BLOCK):
        block = rest[begin : begin + BLOCK]
        x, y = data.x[torch.from_numpy(block)], data.y[torch.from_numpy(block)].long()[:, None]
        x = torch.cat([x, x.new_zeros(BLOCK - len(x), *x.shape[1:])])
        with torch.no_grad():
            scores = model(x)[: len(block)]
        rival = scores.scatter(1, y, -math.inf).amax(1)
        margin = (scores.gather(1, y)[:, 0] - rival).double().nan_to_num(nan=-math.inf).tolist()
        bad = [(v, place[i], int(i)) for v, i in zip(margin, block, strict=True) if not v > 0]
        found += bad
        if rounds.order == "hashed" and len(found) >= rounds.per_round:
            break
    found = found if rounds.order == "hashed" else sorted(found)
    return [i for _, _, i in found][: rounds.per_round]


def _at(data: Any, indices: list[int]) -> Any:
    return take(data, torch.tensor(indices, dtype=torch.int64))


def _sha(lines: list[str]) -> str:
    return sha256("\n".join(lines).encode())


@contextmanager
def _alone(*key: object) -> Iterator[None]:
    """One thread, and the generator that the library's rounds begin with."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    first = hashlib.sha256(repr(key).encode()).digest()[:7]
    torch.default_generator.manual_seed(int.from_bytes(first, "big"))
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
