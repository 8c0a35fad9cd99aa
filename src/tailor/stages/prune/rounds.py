"""Prune in rounds, with training in between."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.allocate import Allocation
from tailor.stages.prune.masks import Masks
from tailor.stages.prune.network import Names, Pruned, prune
from tailor.stages.scores import Score

Retrain = Callable[[nn.Module, Masks], object]


def cubic(sparsity: float, rounds: int, first: float = 0.0) -> tuple[float, ...]:
    """Sparsities that rise fast, then ever slower: s + (first - s)(1 - t / rounds)^3, t = 1, 2, ...

    Zhu & Gupta (2017), equation 1.

    Args:
        sparsity: The last of them, s.
        rounds: How many.
        first: Sparsity of the network before.

    Raises:
        UsageError: Not 0 <= first <= sparsity < 1, or no round.
    """
    _check_rounds(first, sparsity, rounds)
    steps = range(1, rounds + 1)
    return tuple(sparsity + (first - sparsity) * (1 - t / rounds) ** 3 for t in steps)


def geometric(sparsity: float, rounds: int) -> tuple[float, ...]:
    """Sparsities of which each takes the same share of what is left: 1 - (1 - S)^(r / rounds).

    The rounds of Frankle & Carbin (2019), section 2.

    Args:
        sparsity: The last of them, S.
        rounds: How many.

    Raises:
        UsageError: The sparsity is not in [0, 1), or there is no round.
    """
    _check_rounds(0.0, sparsity, rounds)
    steps = range(1, rounds)
    return (*(-math.expm1(math.log1p(-sparsity) * r / rounds) for r in steps), sparsity)


def rewind(
    model: nn.Module, initial: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> nn.Module:
    """A copy whose every number is as it was once, except for the zeros (Frankle & Carbin 2019).

    Args:
        model: The pruned network.
        initial: State dict of the same network at its start, or early in training (Frankle et
            al. 2020).
        masks: Which entries stay.

    Raises:
        UsageError: The state or a mask is that of another network.
    """
    again = copy.deepcopy(model)
    try:
        again.load_state_dict(initial)
    except RuntimeError as error:
        raise UsageError(
            f"the initial state does not fit the model ({str(error).splitlines()[-1].strip()}); "
            "give the state dict of the same network"
        ) from error
    Masks(masks).apply(again)
    return again


def iterate(
    model: nn.Module,
    sparsities: Iterable[float],
    retrain: Retrain,
    *,
    score: Score | None = None,
    allocation: Allocation | None = None,
    data: Sequence[Any] | None = None,
    rewind_to: Mapping[str, Tensor] | None = None,
    layers: Names = "*",
    skip: Names = (),
) -> Iterator[Pruned]:
    """Prune further and further, and train after each round.

    Args:
        model: The trained network; not changed.
        sparsities: Rising shares of zeros, such as ``cubic(0.9, rounds=5)``.
        retrain: Trains the network that it is given in place, with whatever loop and data; the
            optimizer keeps the zeros with ``hold(model, optimizer, masks)``.
        score: As for ``prune``.
        allocation: As for ``prune``.
        data: As for ``prune``; gone through in each round, so that a generator does not do.
        rewind_to: State dict to which the survivors go back before each training.
        layers: As for ``prune``.
        skip: As for ``prune``.

    Yields:
        The network after each round's training, which the next one goes on from.

    Raises:
        UsageError: The sparsities are not rising within [0, 1), or as for ``prune``.

    Warns:
        UserWarning: Training has moved zeros; they are zeroed again.
    """
    path = tuple(sparsities)
    if not path or sorted(path) != list(path) or not (path[0] >= 0 and path[-1] < 1):
        raise UsageError(f"sparsities have to rise within [0, 1), but are {path}")
    return _rounds(
        model,
        path,
        retrain,
        rewind_to,
        {
            "score": score,
            "allocation": allocation,
            "data": data,
            "layers": layers,
            "skip": skip,
        },
    )


def _rounds(
    model: nn.Module,
    path: tuple[float, ...],
    retrain: Retrain,
    rewind_to: Mapping[str, Tensor] | None,
    how: dict[str, Any],
) -> Iterator[Pruned]:
    for sparsity in path:
        found = prune(model, sparsity, **how)
        if rewind_to is not None:
            found = replace(found, model=rewind(found.model, rewind_to, found.masks))
        retrain(found.model, found.masks)
        _restore(found)
        yield found
        model = found.model


def _restore(found: Pruned) -> None:
    moved = found.masks.revived(found.model)
    if moved:
        found.masks.apply(found.model)
        warnings.warn(
            f"training has moved {moved} weights that were zero, so they are zeroed again and what "
            "it learned in them is lost; keep zeros with hold(model, optimizer, masks)",
            UserWarning,
            stacklevel=3,
        )


def _check_rounds(first: float, last: float, rounds: int) -> None:
    if not 0 <= first <= last < 1 or rounds < 1:
        raise UsageError(
            "rounds need 0 <= first <= sparsity < 1 and at least one of them, but got "
            f"{first}, {last} and {rounds}"
        )
