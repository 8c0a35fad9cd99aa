"""Every layer of a network that gains by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from tailor.errors import UsageError
from tailor.numerics.truncation import Center
from tailor.stages.factorize.layer import Factored, two
from tailor.stages.factorize.rank import check_names, rule
from tailor.stages.inputs import Inputs
from tailor.stages.modules import LeftAlone, Part, copied, parts, replaced

DAMP = 0.01  # of the mean square of an input, as in SparseGPT (Frantar & Alistarh 2023)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factorized:
    """A network with thin layers.

    Attributes:
        model: The network; plain modules only.
        report: One row for each layer that was replaced.
        left_alone: The other matrices, and why.
    """

    model: nn.Module
    report: tuple[Factored, ...]
    left_alone: tuple[LeftAlone, ...]


def factorize(
    model: nn.Module,
    *,
    rank: int | Mapping[str, int] | None = None,
    params: float | None = None,
    energy: float | None = None,
    error: float | None = None,
    inputs: Mapping[str, Inputs] | None = None,
    damp: float = DAMP,
    layers: str | Sequence[str] = "*",
    skip: str | Sequence[str] = (),
    center: Center = "none",
) -> Factorized:
    """Replace linear layers and convolutions by two of low rank each, where that saves parameters.

    Without inputs the product is the best approximation of the weights (Eckart & Young 1936).
    With inputs it is the best one of the outputs, ||(W - B) X|| being the least that this rank
    allows, but for the damping.

    Give exactly one of ``rank``, ``params``, ``energy`` and ``error``. The last two speak of
    outputs where inputs are given, and of weights otherwise.

    Args:
        model: Any module; it is copied.
        rank: The rank of every layer, or of layers by name.
        params: Share of the parameters that each layer may keep, in (0, 1).
        energy: Share of the sum of squares that has to remain, in (0, 1).
        error: Largest relative error, in (0, 1): ``energy = 1 - error**2``.
        inputs: What the layers see, with Gram matrices, by name of the weight.
        damp: Weight of all directions alike in X X^T, as a share of its mean diagonal entry.
        layers: Patterns of names of weights.
        skip: Patterns of names to leave out, such as of layers whose ``weight`` is read by code of
            the model: the new module has none.
        center: ``"median"`` keeps the median of each column exactly, which takes one of the rank.

    Raises:
        UsageError: An argument is out of range, nothing can be replaced, or inputs are missing.
        NonFinite: A weight or a Gram matrix holds NaN or infinite values.
    """
    chosen = rule(rank, params, energy, error)
    if not damp >= 0:
        raise UsageError(f"damp must not be negative, but is {damp}")
    made = copied(model, who="factorize")
    found, left = parts(made, (nn.Linear, nn.Conv2d), layers, skip, who="factorize")
    check_names(rank, [part.name for part in found])
    report: list[Factored] = []
    for part in found:
        seen = None if inputs is None else _of_part(part, inputs)
        new = two(part, chosen, seen, damp, center)
        if isinstance(new, LeftAlone):
            left.append(new)
        else:
            made = replaced(made, part.path, new[0])
            report.append(new[1])
    return Factorized(model=made, report=tuple(report), left_alone=tuple(left))


def _of_part(part: Part, inputs: Mapping[str, Inputs]) -> Inputs:
    if part.name not in inputs:
        raise UsageError(
            f"there are no inputs of {part.name}: the data never reached it; leave it out with "
            f"skip=({part.name!r},)"
        )
    return inputs[part.name]
