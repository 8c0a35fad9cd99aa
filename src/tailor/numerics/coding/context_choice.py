"""The shortest code with contexts, and the sum over all codes of the same tensors."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from tailor.numerics.coding.context_length import (
    Lines,
    gamma_length,
    given_length,
    occupancy_length,
    odds_length,
    options_length,
    signs_length,
    sizes_length,
    step_length,
)
from tailor.numerics.coding.contexts import (
    FIRST,
    FREE,
    GRID,
    MAX_LAG,
    OCCUPANCY,
    SIGNS,
    Before,
    Options,
    Steady,
)
from tailor.numerics.coding.tensors import Grid, Plain, Raw, matrix


def contextual_length(
    tensor: Plain, options: Options | None = None, before: Before = FIRST
) -> dict[str, float]:
    """Ideal length of one tensor's code in bits, part by part.

    Args:
        tensor: What is coded.
        options: As given, or those of the shortest code. A search should fix them, and choose
            again now and then: the choice takes a few hundred lengths.
        before: Of the tensors before it in the stream.
    """
    if isinstance(tensor, Raw):
        return {"mode": odds_length(GRID, 0), "raw": 8.0 * len(tensor.data)}
    if options is None:
        options = best_options(matrix(tensor.levels), before)
    return given_length(tensor, options, before)


def contextual_lengths(tensors: Sequence[Plain]) -> list[dict[str, float]]:
    """Ideal lengths of tensors that follow each other in one stream, with the best options."""
    before, lengths = FIRST, []
    for tensor in tensors:
        lengths.append(contextual_length(tensor, None, before))
        if isinstance(tensor, Grid):
            before = before.after(matrix(tensor.levels))
    return lengths


def contextual_prior(tensors: Sequence[Plain], steady: Sequence[Steady] | None = None) -> float:
    """Bits of tensors under the prior of this code: -log2 of the sum over all their codewords.

    Each choice of options gives the same tensors another codeword. The ideal probabilities
    2^-length of all codewords of all tensors sum to at most 1, so those of one content may be
    added. Never more than the shortest ideal length, and nothing is rounded to whole bits.

    Args:
        tensors: In the order of the stream.
        steady: For each tensor, the lines that have to be free to change places: other options
            are left out.

    Returns:
        Bits, rounded up by a millionth to cover floating-point errors.
    """
    before, total = FIRST, 0.0
    for i, tensor in enumerate(tensors):
        if isinstance(tensor, Raw):
            total += sum(contextual_length(tensor).values())
            continue
        levels = matrix(tensor.levels)
        codes = _codes(levels, before, FREE if steady is None else steady[i])
        bits = np.array([length for length, _ in codes])
        shortest = float(bits.min())
        total += odds_length(GRID, 1) + step_length(tensor.step) + shortest
        total -= math.log2(float(np.exp2(shortest - bits).sum()))
        before = before.after(levels)
    return math.ceil(total * 1e6 + 1) / 1e6


def best_options(
    levels: Int64[ndarray, "r c"], before: Before = FIRST, steady: Steady = FREE
) -> Options:
    """The options of the shortest code, among those that leave lines the freedom they need."""
    codes = _codes(levels, before, steady)
    rows, columns, occupancy, signs, lag = min(codes, key=lambda code: code[0])[1]
    return Options(rows=rows, columns=columns, occupancy=occupancy, signs=signs, lag=max(1, lag))


Choice: TypeAlias = tuple[bool, bool, str, str, int]  # fields of Options; lag 0 if it is not sent


def _codes(
    levels: Int64[ndarray, "r c"], before: Before, steady: Steady
) -> list[tuple[float, Choice]]:
    """The length of options, flags, entries under each of the options that the encoder tries."""
    lags = range(min(MAX_LAG, max(0, levels.shape[1] - 1)) + 1)  # 0: nothing looks to the left
    gamma = [0.0] + [gamma_length(lag) for lag in lags[1:]]
    signs = [
        (name, lag, signs_length(levels, one) + options_length(one) - gamma[lag])
        for name, lag in _with_lags(SIGNS, steady, lags)
        for one in (Options(signs=name, lag=max(1, lag)),)
    ]
    sizes, found = sizes_length(levels, before.top), []
    flags = (False,) if steady.rows and levels.shape[1] == 1 else (False, True)
    for rows, columns in product(flags, (False, True)):  # flags of a bias tell its units apart
        plain = Options(rows=rows, columns=columns)
        live = Lines.of(levels, plain, before)
        base = live.length + (sizes if live.rows.any() and live.columns.any() else 0.0)
        for place, lag in _with_lags(OCCUPANCY, steady, lags):
            one = replace(plain, occupancy=place, lag=max(1, lag))
            bits = base + occupancy_length(levels, live, one)
            bits += options_length(one) - gamma[lag] - options_length(Options())
            for sign, sign_lag, more in signs:
                if not lag or not sign_lag or lag == sign_lag:
                    used = max(lag, sign_lag)
                    found.append((bits + more + gamma[used], (rows, columns, place, sign, used)))
    return found


def _with_lags(
    contexts: Iterable[str], steady: Steady, lags: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """Contexts with each lag if they look to the left, else with 0."""
    for context in contexts:
        if steady.allows(context):
            yield from ((context, lag) for lag in (lags[1:] if "left" in context else lags[:1]))
