"""Averaged iterates of training, whose entries Gurbuzbalaban et al. (2021) take for stable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tailor.errors import UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit, TailFit
from tailor.numerics.stable import Koutrouvelis, StableEstimator, StableFit

Iterate = Mapping[str, Tensor] | Tensor

TAIL = Clauset(largest=10_000)  # of the largest sizes; so many take a fraction of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class IterateFit:
    """The average of the iterates of one tensor.

    Attributes:
        name: Its name; empty for a plain tensor.
        parameters: Number of its entries.
        stable: The closest stable law to the entries, less their mean.
        tail: A power law fitted to the largest sizes, with its own KS distance.
    """

    name: str
    parameters: int
    stable: StableFit | NoFit
    tail: PowerLawFit | NoFit


@dataclass(frozen=True, slots=True, kw_only=True)
class IterateTails:
    """Tail indices of averaged iterates.

    Attributes:
        iterates: How many were averaged.
        layers: Each tensor that holds floating-point numbers.
        median: Median index over the layers with a fit, the summary of Gurbuzbalaban, Simsekli &
            Zhu (2021); None if no layer has one.
    """

    iterates: int
    layers: tuple[IterateFit, ...]
    median: float | None


def iterate_tail_index(
    iterates: Iterable[Iterate],
    *,
    skip: int = 0,
    estimator: StableEstimator | None = None,
    tail: TailFit = TAIL,
) -> IterateTails:
    """Tail index of the average of training's iterates, tensor by tensor.

    Gurbuzbalaban, Simsekli & Zhu (2021), section 4: the average of the last iterates (1000 in
    their networks) stands for the stationary law; each layer's entries, less their mean, are one
    sample. Their estimator is ``LogMoment(center=False)``. Take iterates far from
    initialization: before training has forgotten it, the average shows the initial law.

    Args:
        iterates: State dicts (``dict(model.named_parameters())`` does) or plain tensors, from a
            list of copies or a generator; they are read one at a time, so a generator may yield
            the live tensors.
        skip: How many to pass over first.
        estimator: Of the stable law; ``Koutrouvelis()`` if none is given.
        tail: Of the power law of the largest sizes.

    Raises:
        UsageError: No iterate is left, or names or shapes differ, or a value is NaN or infinite.
    """
    if skip < 0:
        raise UsageError(f"skip must not be negative, but is {skip}")
    count, sums = _sum_of_iterates(iterates, skip)
    if not sums:
        raise UsageError(
            f"there is nothing to average: got {count} iterates after the first {skip}, with no "
            "floating-point tensor"
        )
    chosen = estimator or Koutrouvelis()
    layers = []
    for name, total in sums.items():
        average = (total / count).numpy().ravel()
        centred = average - average.mean()
        layers.append(
            IterateFit(
                name=name,
                parameters=len(centred),
                stable=chosen.fit(centred),
                tail=tail.fit(np.abs(centred)),
            )
        )
    found = [layer.stable.index for layer in layers if isinstance(layer.stable, StableFit)]
    return IterateTails(
        iterates=count,
        layers=tuple(layers),
        median=float(np.median(found)) if found else None,
    )


def _sum_of_iterates(iterates: Iterable[Iterate], skip: int) -> tuple[int, dict[str, Tensor]]:
    """How many there are beyond ``skip``, and the sum of each tensor, in double precision."""
    sums: dict[str, Tensor] = {}
    count = 0
    for number, iterate in enumerate(iterates):
        if number < skip:
            continue
        named = {"": iterate} if isinstance(iterate, Tensor) else iterate
        exact = {
            name: tensor.detach().to("cpu", torch.float64)
            for name, tensor in named.items()
            if tensor.is_floating_point()
        }
        shapes = {name: tensor.shape for name, tensor in exact.items()}
        if count and shapes != {name: total.shape for name, total in sums.items()}:
            raise UsageError(f"iterate {number} has other names or shapes than those before it")
        sums = {name: sums[name] + exact[name] if count else exact[name].clone() for name in exact}
        count += 1
    return count, sums
