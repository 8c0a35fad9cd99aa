"""A linear layer in compressed sparse rows."""

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor, nn
from torch.nn.utils import skip_init

from tailor.errors import UsageError
from tailor.stages.modules import replaced


class SparseLinear(nn.Module):
    """``nn.Linear`` for inference on a CPU, with its weight in compressed sparse rows.

    The tensor in CSR format is put together in each call, which takes microseconds, since modules
    that hold one can be neither copied nor saved. The product is ``W @ x.T``: the only order that
    torch computes fast and also in inference mode.

    Args:
        in_features: Number of inputs.
        out_features: Number of outputs.
        nonzeros: Number of entries that are stored.
        bias: Whether there is one.

    Attributes:
        crow_indices: Where each row starts among the entries, and their number.
        col_indices: Column of each entry.
        values: The entries.
        bias: The bias, or None.
    """

    crow_indices: Int32[Tensor, "offsets"]
    col_indices: Int32[Tensor, "nonzeros"]
    values: Float32[Tensor, "nonzeros"]
    bias: Float32[Tensor, "out"] | None

    def __init__(
        self, in_features: int, out_features: int, nonzeros: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        rows = torch.zeros(out_features + 1, dtype=torch.int32)
        rows[1:] = nonzeros
        self.register_buffer("crow_indices", rows)
        self.register_buffer("col_indices", torch.arange(nonzeros, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(nonzeros))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self.register_load_state_dict_post_hook(_check_indices)  # type: ignore[no-untyped-call]
        _use_up_warning()

    @classmethod
    def of(cls, linear: nn.Linear) -> "SparseLinear":
        """The same layer; numbers that are not zero are stored."""
        weight = linear.weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        made = cls(weight.shape[1], weight.shape[0], len(rows), bias=linear.bias is not None)
        made.crow_indices[1:] = rows.bincount(minlength=weight.shape[0]).cumsum(0)
        made.col_indices = columns.to(torch.int32)
        made.values = weight[rows, columns]
        if linear.bias is not None:
            made.bias = linear.bias.detach().clone()
        return made.train(linear.training)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _use_up_warning()

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The outputs, laid out as those of ``nn.Linear``."""
        flat = input.reshape(-1, self.in_features)
        product = (self.csr() @ flat.T).T.contiguous()
        y = product if self.bias is None else product.add_(self.bias)
        return y.reshape(*input.shape[:-1], self.out_features)

    def csr(self, *, check: bool = False) -> Tensor:
        """The weight as a tensor in CSR format, sharing memory.

        Args:
            check: Whether to examine the indices.
        """
        return torch.sparse_csr_tensor(
            self.crow_indices,
            self.col_indices,
            self.values,
            (self.out_features, self.in_features),
            check_invariants=check,
        )

    def dense(self) -> nn.Linear:
        """The layer that it was."""
        made: nn.Linear = skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, self.in_features, self.out_features, bias=self.bias is not None
        )
        rows = torch.arange(self.out_features).repeat_interleave(self.crow_indices.diff())
        with torch.no_grad():
            made.weight.zero_()[rows, self.col_indices] = self.values
            if self.bias is not None:
                made.bias.copy_(self.bias)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"nonzeros={len(self.values)}, bias={self.bias is not None}"
        )


def densified(model: nn.Module) -> nn.Module:
    """A copy with ``nn.Linear`` in place of every ``SparseLinear``; the model if it has none."""
    if not any(isinstance(part, SparseLinear) for part in model.modules()):
        return model
    model = copy.deepcopy(model)
    found = [(path, part) for path, part in model.named_modules() if isinstance(part, SparseLinear)]
    for path, part in found:
        model = replaced(model, path, part.dense())
    return model


def _check_indices(module: nn.Module, keys: object) -> None:
    """Refuse indices from a file that would read foreign memory."""
    assert isinstance(module, SparseLinear)
    try:
        module.csr(check=True)
    except RuntimeError as error:
        raise UsageError(
            f"a state dict holds wrong indices of a sparse matrix ({error})"
        ) from error


def _use_up_warning() -> None:
    """Torch says once in each process that CSR is in beta state."""
    none, one = torch.zeros(0, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(one, none, torch.zeros(0), (1, 1), check_invariants=False)
