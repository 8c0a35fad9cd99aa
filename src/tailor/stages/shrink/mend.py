"""Silence units and let the weights that stay make up for them."""

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tailor.stages.shrink.chain import Chain, Constant, Slot
from tailor.stages.shrink.kinds import columns, kind_of, overwrite_columns, put
from tailor.stages.shrink.seen import Seen, per_unit

Compensation: TypeAlias = Literal["none", "mean", "lstsq"]
DAMPING = 0.01  # of the mean diagonal, as in SparseGPT (Frantar & Alistarh 2023)


def idle(model: nn.Module, chain: Chain) -> Bool[Tensor, "units"]:
    """Units that no reader would miss: constant for it, or not read by it at all."""
    found = torch.ones(chain.width, dtype=torch.bool)
    for slot, constant in zip(chain.having("columns"), chain.constants, strict=True):
        weight = columns(model.get_submodule(slot.path), slot, chain.width)
        found &= (constant.known | (weight == 0).all(dim=2).all(dim=0)).cpu()
    return found


def mend(
    model: nn.Module,
    chain: Chain,
    gone: Bool[Tensor, "units"],
    compensate: Compensation,
    seen: dict[str, Seen],
) -> None:
    """Silence units in place.

    A unit of constant value c is made up for exactly: b2 += W2[:, j] c. For others the readers
    get the mean of what they lose, b2 += W2[:, R] E[h_R], or the best linear guess from the units
    that stay, W2' = W2 C[:, K] C[K, K]^-1 with C = E[h h^T] (centred where there is a bias).

    Args:
        model: The model.
        chain: The units.
        gone: Which of them.
        compensate: How to make up for units that are not constant.
        seen: What the readers get on data, by path.
    """
    for slot, constant in zip(chain.having("columns"), chain.constants, strict=True):
        module = model.get_submodule(slot.path)
        weight = columns(module, slot, chain.width).double()
        lost = gone.to(weight.device)
        shift = _constant_part(weight, lost, constant)
        rest = lost & ~constant.known
        if compensate != "none" and bool(rest.any()):
            one = seen[slot.path]
            if compensate == "lstsq":
                weight, more = _guessed(weight, lost, rest, one, _bias(module) is not None)
            else:
                mean = per_unit(one.mean, chain.width)
                more = torch.einsum("ouf,uf->o", weight[:, rest], mean[rest])
            shift = shift + more
        weight[:, lost] = 0
        overwrite_columns(module, weight)
        _shift(module, shift)
    for slot in chain.having("rows"):
        _silence(model.get_submodule(slot.path), slot, gone)


def _constant_part(
    weight: Float[Tensor, "out units features"], lost: Bool[Tensor, "units"], constant: Constant
) -> Float[Tensor, "out"]:
    fixed = lost & constant.known
    taps = weight.shape[2] // constant.values.shape[1]
    values = constant.values.repeat_interleave(taps, dim=1)
    return torch.einsum("ouf,uf->o", weight[:, fixed], values[fixed])


def _guessed(
    weight: Float[Tensor, "out units features"],
    lost: Bool[Tensor, "units"],
    rest: Bool[Tensor, "units"],
    seen: Seen,
    centred: bool,
) -> tuple[Float[Tensor, "out units features"], Float[Tensor, "out"]]:
    """The weight of units that stay, plus what they tell of the others; and what the bias gets."""
    assert seen.gram is not None
    out, units, features = weight.shape
    mean = seen.mean if centred else torch.zeros_like(seen.mean)
    C = seen.gram - torch.outer(mean, mean)
    R = rest.repeat_interleave(features)
    K = (~lost).repeat_interleave(features)
    flat = weight.reshape(out, units * features).clone()
    damp = DAMPING * C[K][:, K].diagonal().mean().clamp(min=torch.finfo(C.dtype).tiny)
    damped = C[K][:, K] + damp * torch.eye(int(K.sum()), dtype=C.dtype, device=C.device)
    B = torch.linalg.solve(damped, C[K][:, R]).T  # the best guess of h_R is B h_K
    shift = flat[:, R] @ (mean[R] - B @ mean[K])
    flat[:, K] += flat[:, R] @ B
    return flat.reshape(weight.shape), shift


def _shift(module: nn.Module, shift: Float[Tensor, "out"]) -> None:
    """Add to the bias of a matrix; one that has none gets one."""
    bias = _bias(module)
    if bias is not None:
        bias.detach().add_(shift)
    elif bool((shift != 0).any()):
        own: Any = module
        new = nn.Parameter(shift.to(own.weight.dtype), requires_grad=own.weight.requires_grad)
        own.register_parameter("bias", new)


def _silence(module: nn.Module, slot: Slot, gone: Bool[Tensor, "units"]) -> None:
    """Zero the rows, so that a chain before sees that nothing is read of it there."""
    kind: Any = kind_of(module)
    own: Any = module
    at = slot.features(gone.nonzero().flatten().to(own.weight.device))
    put(module, "weight", own.weight.detach().index_fill(kind.axes[0], at, 0))
    bias = _bias(module)
    if bias is not None:
        put(module, "bias", bias.detach().index_fill(0, at, 0))


def _bias(module: nn.Module) -> Tensor | None:
    found: Tensor | None = getattr(module, "bias", None)
    return found
