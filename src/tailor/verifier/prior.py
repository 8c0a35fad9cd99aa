"""What a file may be charged under the prior of the code with contexts (version 3).

The same network has a codeword for each choice of options, and one for each order of its hidden
units; a prior adds them up.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tailor.verifier.said import Mismatch
from tailor.verifier.streams import LEFT, Carry, Costs, Levels, grid, tensor_bits

Items = Sequence[bytes | Levels]
Shapes = Sequence[tuple[tuple[int, ...], int]]
LAGS = 64


def prior_bits(names: Sequence[str], items: Items, shapes: Shapes, units: Any) -> float:
    """Bits under the prior: over all options, or over those that no order of units changes.

    Args:
        names: Of the tensors, in the order of the stream.
        items: The tensors as decoded.
        shapes: Of each, with the bytes of an element.
        units: For each hidden layer the names of its incoming weight, its bias (or ""), and its
            outgoing weight.
    """
    by_name = {n: i.matrix for n, i in zip(names, items, strict=True) if isinstance(i, Levels)}
    _must_follow(units, by_name)
    rows = {name for incoming, bias, _ in units for name in (incoming, bias)}
    columns = {outgoing for _, _, outgoing in units}
    free = _summed(items, shapes, [(False, False)] * len(items))
    if not units:
        return free
    steady = _summed(items, shapes, [(n in rows, n in columns) for n in names])
    return min(free, steady - _orders(units, by_name))


def check_units(
    units: Any, state: Mapping[str, Tensor], model: nn.Module, scores: Callable[[], Tensor]
) -> None:
    """Exchange the units of each layer in several ways; the scores must stay what they are.

    Args:
        units: As for ``prior_bits``.
        state: The decoded tensors.
        model: The network, which is left with the decoded tensors.
        scores: Evaluates the network.
    """
    before, generator = scores(), torch.Generator().manual_seed(0)
    for incoming, bias, outgoing in units:
        m = len(state[incoming])
        swap = torch.arange(m)
        swap[:2] = swap[:2].flip(0)
        for order in (swap, torch.arange(m).roll(1), torch.randperm(m, generator=generator)):
            moved = dict(state)
            for name in (incoming, *([bias] if bias else [])):
                moved[name] = state[name][order]
            w = state[outgoing]
            by_unit = w.reshape(len(w), m, -1)[:, order]
            moved[outgoing] = by_unit.reshape(w.shape)
            model.load_state_dict(moved, strict=True)
            after = scores()
            model.load_state_dict(dict(state), strict=True)
            if not torch.allclose(before, after, rtol=1e-9, atol=1e-9 * float(before.abs().max())):
                raise Mismatch(f"the units of {incoming} cannot be exchanged")


def _must_follow(units: Any, matrices: Mapping[str, Any]) -> None:
    wide = [name for name, matrix in matrices.items() if matrix.shape[1] > 1]
    for incoming, bias, outgoing in units:
        fits = (incoming, outgoing) in set(itertools.pairwise(wide))
        if not fits or (bias and bias not in matrices):
            raise Mismatch(f"{outgoing} does not follow {incoming} in the stream")


def _summed(items: Items, shapes: Shapes, steady: Sequence[tuple[bool, bool]]) -> float:
    """-log2 of the sum of the probabilities of all codewords, tensor by tensor."""
    total, carry = 0.0, Carry()
    for item, (shape, width), (rows, columns) in zip(items, shapes, steady, strict=True):
        if isinstance(item, bytes):
            total += tensor_bits(item, shape, width)
            continue
        costs = _costs(item, carry, rows, columns)
        least = min(costs)
        total += least - math.log2(sum(2.0 ** (least - one) for one in costs))
        carry = _cost(item, carry, ((0, 0), 0, 0, 0))[1]
    return math.ceil(total * 1e6 + 1) / 1e6


def _costs(item: Levels, carry: Carry, rows: bool, columns: bool) -> list[float]:
    """Ideal bits under every choice of options; places and signs do not touch each other."""
    width = item.matrix.shape[1]
    lags = range(1, min(LAGS, width - 1) + 1)
    places = [p for p in range(9) if not (rows and p in (1, 3, 5, 6))]
    places = [p for p in places if not (columns and p in (2, 3, 4, 6))]
    signs = [s for s in range(5) if not (rows and s == 3) and not (columns and s in (2, 4))]
    base = _cost(item, carry, ((0, 0), 0, 0, 0))[0]
    told = [
        (lag, _cost(item, carry, ((0, 0), 0, s, lag))[0] - base)
        for s in signs
        for lag in (lags if s == 2 else (0,))
    ]
    found = []
    for by_row, by_column in itertools.product((0,) if rows and width == 1 else (0, 1), (0, 1)):
        for place in places:
            for lag in lags if place in LEFT else (0,):
                bits = _cost(item, carry, ((by_row, by_column), place, 0, lag))[0]
                for own, more in told:
                    twice = 2 * lag.bit_length() - 1 if lag and own else 0
                    if not lag or not own or lag == own:
                        found.append(bits + more - twice)
    return found


def _cost(
    item: Levels, carry: Carry, options: tuple[tuple[int, int], int, int, int]
) -> tuple[float, Carry]:
    flags, place, sign, lag = options
    after = Carry(units=carry.units, top=carry.top)
    coder = Costs()
    coder.odds(1, 15, 1)
    told = Levels(matrix=item.matrix, step=item.step, flags=flags, place=place, sign=sign, lag=lag)
    grid(coder, item.matrix.shape, told, 3, after)
    return coder.spent, after


def _orders(units: Any, matrices: Mapping[str, Any]) -> float:
    """log2 of the number of distinct codewords by exchanging live units, rounded down."""
    total, inner = 0.0, {incoming for incoming, _, _ in units}
    for incoming, bias, outgoing in units:
        w, out = matrices[incoming], matrices[outgoing]
        out = out.reshape(len(out), len(w), -1).transpose(1, 0, 2).reshape(len(w), -1)
        live = (w != 0).any(1) & (out != 0).any(1)
        told = [w, *([matrices[bias].reshape(len(w), 1)] if bias else [])]
        told += [] if outgoing in inner else [out]
        equal = Counter(row.tobytes() for row in np.concatenate(told, 1)[live])
        total += math.lgamma(sum(equal.values()) + 1)
        total -= sum(math.lgamma(count + 1) for count in equal.values())
    return max(0.0, math.floor(total / math.log(2) * 1e6 - 1) / 1e6)
