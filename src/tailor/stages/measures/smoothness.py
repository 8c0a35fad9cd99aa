"""How close to linear what follows a layer is, under noise: interlayer smoothness."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tailor.stages.measures.chain import Chain, norms, onward, outputs, pieces, tangents
from tailor.stages.measures.explanatory import Explanatory
from tailor.stages.measures.project import Noise, derived
from tailor.tasks import Data

ROUNDING = 1e-12  # of ||x^j||: smaller departures from linearity are put down to arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothness(Explanatory):
    """The largest rho_delta that the draws allow (Arora et al. 2018, section 4).

    With probability 1 - delta over noise eta on layer i, for all layers i < j and all examples,
    ||M(x + eta) - M(x) - J eta|| <= ||eta|| ||x^j|| / (rho ||x^i||). The paper writes J (x + eta)
    for M(x) + J eta, which is the same without biases, and asks for the smallest rho; the largest
    one is meant.

    Attributes:
        rho: Over the draws, at the share ``failure`` from below; None if the network was linear
            around every example in all draws that count.
        layer: Where the noise was in the draw that gave it.
        onto: The later layer.
        needed: 3 x depth, which the compression theorem asks for.
        enough: Whether rho is at least that.
        draws: Number of draws.
        failure: delta.
        noise: The kind of noise.
    """

    rho: float | None
    layer: str | None
    onto: str | None
    needed: float
    enough: bool
    draws: int
    failure: float
    noise: str
    why_not: str = "It is a quantile of a few random draws on a sample, without an interval."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    rho: float
    pair: tuple[int, int]


@torch.no_grad()
def smoothness(
    chain: Chain, data: Data, *, noise: Noise, draws: int, failure: float, seed: int
) -> Smoothness:
    """Draw noise, and see how far the later layers are from linear in it."""
    found = sorted(
        (_draw(chain, data, noise, derived(seed, number)) for number in range(draws)),
        key=lambda one: one.rho,
    )
    chosen = found[min(draws - 1, math.floor(failure * draws))]
    i, j = chosen.pair
    curved = math.isfinite(chosen.rho)
    return Smoothness(
        rho=chosen.rho if curved else None,
        layer=chain[i].name if curved else None,
        onto=chain[j].name if curved else None,
        needed=3.0 * len(chain),
        enough=chosen.rho >= 3 * len(chain),
        draws=draws,
        failure=failure,
        noise=str(noise),
    )


def _draw(chain: Chain, data: Data, noise: Noise, seed: int) -> _Draw:
    disturb = noise.drawn(chain, seed)
    worst = _Draw(rho=math.inf, pair=(0, 0))
    for x in pieces(chain, data):
        values = outputs(chain, x)
        added = disturb(x, values)
        for i in range(len(chain) - 1):
            for j, rho in _from(chain, i, values, added[i]):
                if rho < worst.rho:
                    worst = _Draw(rho=rho, pair=(i, j))
    return worst


def _from(
    chain: Chain, i: int, values: Sequence[Tensor], eta: Tensor
) -> Iterator[tuple[int, float]]:
    moved = onward(chain, i, values[i] + eta)
    clean, slopes = tangents(chain, i, values[i], eta)
    lever = norms(eta) / norms(values[i])
    for j, (there, here, slope) in enumerate(zip(moved, clean, slopes, strict=True), start=i + 1):
        size = norms(here)
        off = norms(there - here - slope)
        curved = off > ROUNDING * (size + norms(there))
        ratio = torch.where(curved, lever * size / off, torch.inf)
        yield j, float(ratio.nan_to_num(nan=torch.inf, posinf=torch.inf).min())
