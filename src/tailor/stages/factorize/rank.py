"""The rank that a matrix gets."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from tailor.errors import UsageError

# Of a name, the energy lost with rank 0, 1, ..., all energy, and the rank that saves nothing.
Rule: TypeAlias = Callable[[str, Float64[Tensor, "ranks"], float, float], int | None]


def rule(
    rank: int | Mapping[str, int] | None,
    params: float | None,
    energy: float | None,
    error: float | None,
) -> Rule:
    """The rank that a matrix gets; None where none was asked for."""
    shares = {"params": params, "energy": energy, "error": error}
    given = [name for name, value in shares.items() if value is not None]
    if len(given) + (rank is not None) != 1:
        raise UsageError("factorize needs exactly one of rank, params, energy and error")
    if rank is not None:
        return _by_rank(rank)
    share = _inside(given[0], shares[given[0]])
    if params is not None:
        return lambda name, lost, whole, limit: max(1, int(share * limit))
    allowed = share**2 if energy is None else 1 - share
    return lambda name, lost, whole, limit: int((lost <= allowed * whole).to(torch.uint8).argmax())


def _by_rank(rank: int | Mapping[str, int]) -> Rule:
    ranks: list[object] = list(rank.values()) if isinstance(rank, Mapping) else [rank]
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in ranks):
        raise UsageError(f"rank must be a whole number from 1, or such by name, but is {rank!r}")
    return lambda name, *_: rank.get(name) if isinstance(rank, Mapping) else rank


def _inside(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UsageError(f"{name} must lie between 0 and 1, but is {value!r}")
    return float(value)


def check_names(rank: object, names: Sequence[str]) -> None:
    """Refuse ranks for layers that cannot be replaced.

    Raises:
        UsageError: There is one.
    """
    odd = [name for name in rank if name not in names] if isinstance(rank, Mapping) else []
    if odd:
        raise UsageError(
            f"a rank is given for {odd[0]}, which is no layer that can be replaced; these can: "
            f"{', '.join(names[:8])}"
        )
