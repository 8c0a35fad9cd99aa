"""Tensors that store several matrices as one: fused projections, gates, experts."""

from dataclasses import dataclass, field, replace

from jaxtyping import Shaped
from torch import Tensor

from tailor.errors import UsageError
from tailor.weights.views.view import Flattened, Part, View, described

# The order in which PyTorch stores the gates of one cell, from the documentation of
# torch.nn.LSTM (W_ii|W_if|W_ig|W_io) and torch.nn.GRU (W_ir|W_iz|W_in).
GATES = {
    4: ("i", "f", "g", "o"),  # LSTM: input, forget, cell, output
    3: ("r", "z", "n"),  # GRU: reset, update, new
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused(View):
    """Matrices stored as one, one behind the other along an axis: each is a part.

    The default is the fused query, key and value projection of attention. Heads must not be
    interleaved (as in GPT-NeoX and BLOOM): there no cut separates queries from keys.

    Attributes:
        parts: Names of the matrices in stored order; they become labels such as ``"[q]"``.
        axis: Axis along which they lie: 0 for ``nn.Linear``, 1 for the transposed projections
            of GPT-2.
        sizes: Length of each along the axis, such as ``(4096, 1024, 1024)`` for grouped-query
            attention; empty for equal lengths.
    """

    parts: tuple[str, ...] = ("q", "k", "v")
    axis: int = 0
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise UsageError(f"parts need names that differ, but are {self.parts}")
        if self.axis < 0:
            raise UsageError(f"axis must be 0 or more, but is {self.axis}")
        if self.sizes and (len(self.sizes) != len(self.parts) or min(self.sizes) < 1):
            raise UsageError(
                f"sizes must be one positive length for each of the {len(self.parts)} parts, "
                f"but are {self.sizes}"
            )

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        if self.axis >= tensor.ndim:
            raise UsageError(
                f"{described(name, tensor)} has no axis {self.axis} to cut; "
                f"choose one below {tensor.ndim}"
            )
        pieces = tensor.split_with_sizes(self._lengths(name, tensor), self.axis)
        return [
            _labelled(label, part)
            for label, piece in zip(self.parts, pieces, strict=True)
            for part in Flattened().split(name, piece)
        ]

    def _lengths(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[int]:
        whole, count = tensor.shape[self.axis], len(self.parts)
        if self.sizes and sum(self.sizes) != whole:
            raise UsageError(
                f"{described(name, tensor)} is {whole} long along axis {self.axis}, but the "
                f"sizes {self.sizes} sum to {sum(self.sizes)}; give sizes that sum to {whole}"
            )
        if not self.sizes and whole % count:
            raise UsageError(
                f"{described(name, tensor)} cannot be cut into {count} equal parts along axis "
                f"{self.axis}; give their sizes"
            )
        return list(self.sizes) or [whole // count] * count


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates(View):
    """A weight of an LSTM or GRU, split by gate: each gate is a part.

    For ``weight_ih_l0``, ``weight_hh_l0`` and so on; labels are ``"[i]"``, ``"[f]"``, ``"[g]"``
    and ``"[o]"`` for an LSTM, ``"[r]"``, ``"[z]"`` and ``"[n]"`` for a GRU, in PyTorch's order.
    The projection ``weight_hr_l0`` of an LSTM has no gates.

    Attributes:
        count: 4 for an LSTM, 3 for a GRU.
    """

    count: int = 4

    def __post_init__(self) -> None:
        if self.count not in GATES:
            raise UsageError(f"count must be 4 (LSTM) or 3 (GRU) gates, but is {self.count}")

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        if len(tensor) % self.count:
            raise UsageError(
                f"{described(name, tensor)} does not hold {self.count} gates of equal size along "
                "its first axis; use count=4 for an LSTM and count=3 for a GRU"
            )
        return Fused(parts=GATES[self.count]).split(name, tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts(View):
    """A tensor (experts, rows, columns): every expert is a part, ``"[0]"``, ``"[1]"`` ...

    Attributes:
        view: How the tensor of one expert is seen; its labels follow the expert's.
    """

    view: View = field(default_factory=Flattened)

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        if tensor.ndim < 3:
            raise UsageError(
                f"{described(name, tensor)} holds no stack of experts; "
                "give a tensor of shape (experts, rows, columns)"
            )
        return [
            _labelled(str(number), part)
            for number, expert in enumerate(tensor)
            for part in self.view.split(f"{name}[{number}]", expert)
        ]


def _labelled(label: str, part: Part) -> Part:
    return replace(part, label=f"[{label}]{part.label}")
