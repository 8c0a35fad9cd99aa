"""The recount of a language model: the losses of its documents, and bounds on their mean."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tailor.verifier.bounds import kl_upper
from tailor.verifier.said import Mismatch, near, same

STAKES = [*(1 / (1 + math.exp(-i / 10)) for i in range(-63, 64)), 1.0]
LEVELS = 4096  # means that a drawn part is asked about
ROUNDING = 2.0**-20  # bits that are added to each loss


def recount_text(
    said: Mapping[str, Any],
    *,
    model: nn.Module,
    stream: bytes,
    data: Any,
    delta: float,
    bits: float,
    sizes: Sequence[float] | None = None,
) -> None:
    """Compare the evidence of a language model with what is found.

    Args:
        said: The evidence.
        model: The decoded network, in float64.
        stream: Of the file; a drawn part depends on its hash.
        data: The documents: rows of tokens, and their lengths.
        delta: Of this certificate.
        bits: What the network costs.
        sizes: Characters or bytes of each token, if they are counted.
    """
    rows = [x[:n].long().tolist() for x, n in zip(data.x, data.y.tolist(), strict=True)]
    same("documents", said["n"], len(rows))
    near("bits of the network", said["code"], bits)
    part = said["evaluated"] < said["n"]
    if part:
        same("hash of the stream", said["drawn_by"], hashlib.sha256(stream).hexdigest())
        rows = _drawn(rows, stream)[: said["evaluated"]]
    told = ",".join(map(str, sizes or ())).encode()
    same("sizes", said["sizes_sha256"], hashlib.sha256(told).hexdigest() if sizes else "")
    losses, shares, wrong, tokens = _losses(said, model, rows, sizes)
    same("tokens and errors", [said["tokens"], said["errors"]], [tokens, wrong])
    low, high = _limits(said, sizes is not None)
    near("smallest loss", said["low"], low)
    near("largest loss", said["high"], high)
    sample = delta * said["share"] if part else delta
    nats_wrong = bits * math.log(2) + math.log(2 / sample)
    nats = nats_wrong + math.log(len(said["alphas"]))
    paid = math.log(2 / (delta - sample)) if part else 0.0
    found = {"nats": nats, "nats_wrong": nats_wrong, "sample_nats": paid}
    for name, value in found.items():
        near(name, said[name], value)
    x = np.clip((losses + ROUNDING - low) / (high - low), 0, 1)
    terms = (said["n"], paid, part)
    _forms("bits", said["bits"], x, (low, high), nats, terms)
    _forms("wrong tokens", said["wrong"], shares, (0.0, 1.0), nats_wrong, terms)
    near("bound", said["risk_bound"], said["bits"]["betting"])


def _drawn(rows: list[list[int]], stream: bytes) -> list[list[int]]:
    """The documents in the order of their hashes with the stream."""
    seen: dict[str, int] = {}
    keys, start = [], hashlib.sha256(stream).digest()
    for row in rows:
        record = hashlib.sha256(np.array(row, dtype="<i8").tobytes()).hexdigest()
        seen[record] = seen.get(record, 0) + 1
        keys.append(hashlib.sha256(start + f"{record} {seen[record]}".encode()).digest())
    return [rows[i] for i in sorted(range(len(rows)), key=keys.__getitem__)]


def _losses(
    said: Mapping[str, Any],
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    sizes: Sequence[float] | None,
) -> tuple[Any, Any, int, int]:
    """Bits of each document, its share of wrong tokens, and how many there are in all."""
    v, alpha, start = said["vocabulary"], said["alpha"], said["start"]
    if alpha not in said["alphas"] or not all(0 < one <= 1 for one in said["alphas"]):
        raise Mismatch(f"alpha is {alpha}, which is none of {said['alphas']}")
    losses, shares, wrong, tokens = [], [], 0, 0
    for row in rows:
        given = [*([] if start is None else [start]), *row]
        if len(given) < 2 or min(given) < 0 or max(given) >= v:
            raise Mismatch("a document is empty, or holds a token outside the vocabulary")
        logits, after = _logits(model, given), torch.tensor(given[1:])[:, None]
        own, rivals = logits.gather(1, after), logits.scatter(1, after, -torch.inf)
        bad = ~(own - rivals.amax(1, True) > 1e-9 * logits.abs().amax(1, True))
        p = logits.softmax(-1).gather(1, after)[:, 0].numpy()
        size = len(p) if sizes is None else sum(sizes[token] for token in row)
        bits = -np.log2((1 - alpha) * p + alpha / v).sum()
        losses.append(bits / max(size, said["least"] * len(p)))
        shares.append(float(bad.double().mean()))
        wrong, tokens = wrong + int(bad.sum()), tokens + len(p)
    return np.array(losses), np.array(shares), wrong, tokens


def _logits(model: nn.Module, given: Sequence[int]) -> Tensor:
    with torch.no_grad():
        out = model(torch.tensor([given[:-1]]))
    logits: Tensor = (out if isinstance(out, Tensor) else out.logits)[0].double()
    return logits


def _limits(said: Mapping[str, Any], sized: bool) -> tuple[float, float]:
    v, alpha = said["vocabulary"], said["alpha"]
    high = math.log2(v / alpha)
    return (0.0, high / said["least"]) if sized else (-math.log2(1 - alpha + alpha / v), high)


def _forms(
    what: str,
    said: Mapping[str, Any],
    x: Any,
    limits: tuple[float, float],
    nats: float,
    terms: tuple[int, float, bool],
) -> None:
    """Compare the three forms of a bound on the mean of losses from 0 to 1."""
    (n, paid, part), low, scale = terms, limits[0], limits[1] - limits[0]
    mean = min(1.0, float(x.mean()))
    near(f"{what}, measured", said["empirical"], low + scale * mean)
    first = kl_upper(mean, paid / len(x)) if part else mean
    near(f"{what}, kl form", said["kl"], low + scale * kl_upper(first, nats / n))
    root = math.sqrt(nats / 2 / n) + (math.sqrt(paid / 2 / len(x)) if part else 0.0)
    hoeffding = min(limits[1], low + scale * (mean + root))
    near(f"{what}, Hoeffding form", said["hoeffding"], hoeffding)
    if not part:
        near(f"{what}, betting form", said["betting"], low + scale * _betting(x, nats))
        return
    level = round((said["betting"] - low) / scale * LEVELS)
    near(f"{what}, betting form", said["betting"], low + scale * level / LEVELS)
    if not _refused_by_part(x, level / LEVELS, n, nats, paid):
        raise Mismatch(f"{what}, betting form: the part does not show it")


def _betting(x: Any, nats: float) -> float:
    """Smallest mean against which a mixture of bettors wins enough."""

    def beyond(m: float) -> bool:
        return m < 1 and _log_sum(_grown(x, m, STAKES)) - math.log(len(STAKES)) >= nats

    return _bisect(beyond, float(x.mean()))


def _refused_by_part(x: Any, m: float, n: int, nats: float, paid: float) -> bool:
    """Whether a second bettor shows that the first would win on all n documents."""
    if m >= 1:
        return True
    needed = (nats + math.log(len(STAKES))) / n
    price = paid + math.log(len(STAKES)) + math.log(LEVELS)
    for stake in STAKES[:-1:2]:
        a, b = math.log1p(-stake), math.log1p(stake * m / (1 - m))
        z = (b - np.log1p(stake * (m - x) / (1 - m))) / (b - a)
        aim = (b - needed) / (b - a)
        won = _log_sum(_grown(z, aim, STAKES[::4])) if aim > z.mean() else -math.inf
        if won - math.log(len(STAKES)) >= price - 1e-6:
            return True
    return False


def _grown(x: Any, m: float, stakes: Sequence[float]) -> Any:
    """Log fortunes of bettors against "the mean is at least m"."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([np.log(np.maximum(1 + s * (m - x) / (1 - m), 0)).sum() for s in stakes])


def _log_sum(logs: Any) -> float:
    top = float(logs.max())
    return top if top == -math.inf else top + math.log(float(np.exp(logs - top).sum()))


def _bisect(beyond: Callable[[float], bool], low: float) -> float:
    high = 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
