"""The three prunings of Barsbey et al. (2021), with their median centring.

Each cuts a weight into units (entries, nodes, singular values) whose squared sizes add to the
squared norm, and drops the smallest. By default a dropped unit becomes zero. With
``center="median"`` it becomes a median, as in the paper's program: nothing is zero then, and what
is stored is the units that stay, and the median.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from tailor.errors import NonFinite, UsageError
from tailor.numerics.truncation import Center, Directions, columnwise, double


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """A weight, cut into units.

    Attributes:
        sizes: Norm of each unit, after centring.
        cost: Numbers that a unit takes; positions are not counted.
        fixed: Numbers that the median takes; 0 without one.
        build: The weight, in its own shape and type, of the units that stay.
    """

    sizes: Float64[Tensor, "units"]
    cost: int
    fixed: int
    build: Callable[[Bool[Tensor, "units"]], Tensor]


class Scheme(ABC):
    """What the units of a weight are.

    Attributes:
        addable: Whether units of several weights can be compared, since each costs the same.
    """

    addable: ClassVar[bool] = False

    @abstractmethod
    def units(self, weight: Shaped[Tensor, "*shape"]) -> Units:
        """Cut a weight, which stays as it is.

        Raises:
            UsageError: It is not a real matrix or kernel, or it is empty.
            NonFinite: It holds NaN or infinite values.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries(Scheme):
    """Single weights, the smallest absolute values first.

    Attributes:
        center: ``"median"`` subtracts the median of all entries first (Barsbey et al. 2021).
    """

    addable: ClassVar[bool] = True
    center: Center = "none"

    def units(self, weight: Shaped[Tensor, "*shape"]) -> Units:
        """See ``Scheme.units``."""
        W = double(_checked(weight).flatten(1))
        return _rows(weight, W.reshape(-1, 1), self.center, lambda rows: rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes(Scheme):
    """Input nodes with all weights that leave them, the smallest norms first.

    A column of a matrix, or all kernels that read one channel. A node that goes no longer feeds
    the next layer, but it stays in the network; to make the network smaller, remove it there.

    Attributes:
        center: ``"median"`` subtracts the median over the nodes first, for each output.
    """

    center: Center = "none"

    def units(self, weight: Shaped[Tensor, "*shape"]) -> Units:
        """See ``Scheme.units``."""
        W = double(_checked(weight).flatten(1)).reshape(weight.shape)
        by_node = W.movedim(1, 0)
        return _rows(
            weight,
            by_node.reshape(len(by_node), -1),
            self.center,
            lambda rows: rows.reshape(by_node.shape).movedim(0, 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels(Scheme):
    """Single kernels of a convolution, one for each output and input channel.

    What Barsbey et al. (2021) prune in convolutions by the name of nodes. In a matrix they are
    single entries.

    Attributes:
        center: ``"median"`` subtracts the median over the kernels first, for each place in them.
    """

    center: Center = "none"

    def units(self, weight: Shaped[Tensor, "*shape"]) -> Units:
        """See ``Scheme.units``."""
        W = double(_checked(weight).flatten(1))
        rows = W.reshape(weight.shape[0] * weight.shape[1], -1)
        return _rows(weight, rows, self.center, lambda rows: rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class SingularValues(Scheme):
    """Singular values with their pairs of vectors, the smallest first.

    Each costs rows + columns numbers, so that many of them take more than the matrix itself. A
    kernel counts as the matrix (out, in * kernel).

    Attributes:
        center: ``"median"`` subtracts the median of each column first (Barsbey et al. 2021).
    """

    center: Center = "none"

    def units(self, weight: Shaped[Tensor, "*shape"]) -> Units:
        """See ``Scheme.units``."""
        W = double(_checked(weight).flatten(1))
        middle = columnwise(W, self.center)
        A = W - middle
        directions = Directions.of(A)

        def build(keep: Bool[Tensor, "units"]) -> Tensor:
            U = directions.leading(int(keep.sum()))
            return (middle + U @ (U.mT @ A)).reshape(weight.shape).to(weight)

        return Units(
            sizes=directions.energies.sqrt() * A.abs().max(),
            cost=sum(W.shape),
            fixed=W.shape[1] if self.center == "median" else 0,
            build=build,
        )


def _checked(weight: Tensor) -> Tensor:
    if weight.ndim < 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise UsageError(
            "a scheme needs a real matrix or kernel with entries, but got a tensor of shape "
            f"{tuple(weight.shape)} and type {str(weight.dtype).removeprefix('torch.')}"
        )
    odd = int((~torch.isfinite(weight.detach())).sum())
    if odd:
        raise NonFinite(f"the weight holds {odd} NaN or infinite values; mend or reload it")
    return weight.detach()


def _rows(
    weight: Tensor,
    rows: Float64[Tensor, "units each"],
    center: Center,
    back: Callable[[Tensor], Tensor],
) -> Units:
    """Units that are the rows of a matrix, and how that matrix becomes the weight again."""
    middle = columnwise(rows, center)

    def build(keep: Bool[Tensor, "units"]) -> Tensor:
        kept = torch.where(keep[:, None], rows, middle)
        return back(kept).reshape(weight.shape).to(weight)

    return Units(
        sizes=torch.linalg.vector_norm(rows - middle, dim=1),
        cost=rows.shape[1],
        fixed=rows.shape[1] if center == "median" else 0,
        build=build,
    )
