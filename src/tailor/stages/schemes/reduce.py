"""How many units of a weight go, and what is left of one weight or of a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor, nn

from tailor.errors import NonFinite, UsageError
from tailor.stages.modules import copied
from tailor.stages.schemes.units import Scheme, Units
from tailor.stages.scores.smallest import smallest_dropped
from tailor.stages.targets import as_dtensor, fitting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduced:
    """A weight after pruning.

    Attributes:
        weight: Its new entries, in the shape and type that came.
        kept: Units that stay.
        units: Units that there were.
        cost: Numbers that have to be stored: those of the units that stay, and the median.
            Positions are not counted.
        size: Entries of the weight.
        error: Norm of the change over the norm of the weight less its median; 0 if that is 0.
    """

    weight: Float[Tensor, "out in *kernel"]
    kept: int
    units: int
    cost: int
    size: int
    error: float


def reduce_weight(
    weight: Shaped[Tensor, "*shape"],
    scheme: Scheme,
    *,
    share: float | None = None,
    error: float | None = None,
) -> Reduced:
    """Drop the smallest units of one weight; of equal ones the first.

    Give one of the two numbers. Barsbey et al. (2021) call ``error`` adaptive.

    Args:
        weight: Outputs first; it stays as it is.
        scheme: What the units are.
        share: Share of the units that goes, in [0, 1); rounded down to a number of them.
        error: Drop as many as leave a relative error of at most this, in [0, 1).

    Raises:
        UsageError: Not one of the two is given or it is out of range, or the weight cannot be cut.
        NonFinite: The weight holds NaN or infinite values.
    """
    _check(share, error)
    cut = scheme.units(weight)
    return _reduced(weight, cut, _kept(cut.sizes, share, error))


def _check(share: float | None, error: float | None) -> None:
    if (share is None) == (error is None):
        raise UsageError("give one of share (of units that go) and error (relative), not both")
    name = "share" if share is not None else "error"
    given: object = share if share is not None else error
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
        raise UsageError(f"{name} must be a number in [0, 1), but is {given!r}")


def _kept(
    sizes: Float64[Tensor, "units"], share: float | None, error: float | None
) -> Bool[Tensor, "units"]:
    """Which units stay when the smallest go."""
    if share is not None:
        drop = int(round(share * len(sizes), 9))  # unrounded, 0.29 of 100 would be 28
    else:
        assert error is not None
        lost = sizes.sort().values.square().cumsum(0)
        drop = int((lost <= error**2 * lost[-1]).sum())
    return smallest_dropped(sizes[None], drop)[0]


def _reduced(weight: Tensor, cut: Units, keep: Bool[Tensor, "units"]) -> Reduced:
    kept, norm = int(keep.sum()), float(torch.linalg.vector_norm(cut.sizes))
    lost = float(torch.linalg.vector_norm(cut.sizes[~keep]))
    return Reduced(
        weight=cut.build(keep),
        kept=kept,
        units=len(keep),
        cost=kept * cut.cost + cut.fixed,
        size=weight.numel(),
        error=lost / norm if norm else 0.0,
    )


# A whole network


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReducedModel:
    """A network after pruning.

    Attributes:
        model: A copy, with dense weights of new values.
        layers: What became of each weight, by name.
    """

    model: nn.Module
    layers: dict[str, Reduced]

    @property
    def cost(self) -> float:
        """Numbers to store over entries, of all these weights together."""
        rows = self.layers.values()
        return sum(row.cost for row in rows) / sum(row.size for row in rows)


def reduce_model(
    model: nn.Module,
    scheme: Scheme,
    *,
    share: float | None = None,
    error: float | None = None,
    together: bool = False,
    layers: str | Sequence[str] = "*",
    skip: str | Sequence[str] = (),
) -> ReducedModel:
    """Drop the smallest units of every weight, last layer included, without retraining.

    Args:
        model: Any module; it is copied.
        scheme: What the units are.
        share: Share of the units that goes, in [0, 1).
        error: Relative error that pruning may cause, in [0, 1).
        together: Compare the units of all weights, each less its own median, instead of those of
            one; only for single entries.
        layers: Patterns of names of weights.
        skip: Patterns of names to leave out.

    Raises:
        UsageError: As for ``reduce_weight``, or no weight fits, or one cannot be changed.
        NonFinite: A weight holds NaN or infinite values.
    """
    _check(share, error)
    if together and not scheme.addable:
        raise UsageError(
            f"units of {type(scheme).__name__} differ in cost from weight to weight, so they are "
            "not compared across weights; leave together out, or use Entries"
        )
    copy = copied(model, who="reduce_model")
    weights = {one.name: one.load() for one in fitting(copy, layers, skip, who="reduce_model")}
    keeps = _kept_of_all(scheme, weights, share, error) if together else {}
    rows = {}
    for name, weight in weights.items():
        cut = _units(scheme, name, weight)
        keep = keeps[name] if together else _kept(cut.sizes, share, error)
        rows[name] = _reduced(weight, cut, keep)
        with torch.no_grad():
            weight.copy_(rows[name].weight)
    return ReducedModel(model=copy, layers=rows)


def _kept_of_all(
    scheme: Scheme, weights: Mapping[str, Tensor], share: float | None, error: float | None
) -> dict[str, Bool[Tensor, "units"]]:
    """Which units of each weight stay if the smallest of all go."""
    sizes = [_units(scheme, name, weight).sizes for name, weight in weights.items()]
    keep = _kept(torch.cat(sizes), share, error)
    parts = torch.split(keep, [len(one) for one in sizes])
    return dict(zip(weights, parts, strict=True))


def _units(scheme: Scheme, name: str, weight: Tensor) -> Units:
    """The units of a weight that can be written to; errors name it."""
    if not isinstance(weight, nn.Parameter) or as_dtensor(weight) is not None:
        raise UsageError(
            f"{name} is not a plain parameter (a parametrization computes it, or it is spread "
            f"over processes), so it cannot be overwritten; leave it out with skip=({name!r},)"
        )
    try:
        return scheme.units(weight)
    except (UsageError, NonFinite) as reason:
        raise type(reason)(f"{name}: {reason}") from reason
