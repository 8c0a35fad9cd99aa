"""Networks that differ only in the order of their hidden units: one function, many codewords.

A prior over codewords gives a function the sum over all codewords that compute it. Where k of
them have the same length L, the function costs L - log2 k bits. Only *distinct* codewords count:
swapping two equal units gives the same codeword again, and so does swapping dead ones. (Taking
the factorial of a layer's whole width instead is a known slip, worth hundreds of bits in pruned
networks.)
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.coding import Codebook, Coded, Grid, Plain, Steady, contextual_prior

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    *(nn.Identity, nn.Dropout),
)
POOLS = (  # of channels, each by itself
    *(nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout2d),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """The units between two layers of an ``nn.Sequential``.

    Attributes:
        weight: Name of the tensor whose rows (output channels) are the units.
        bias: Name of its bias, if it has one.
        outgoing: Name of the tensor with as many columns for each unit, unit by unit.
    """

    weight: str
    bias: str | None
    outgoing: str


def hidden_units(model: nn.Module) -> list[Hidden]:
    """Hidden units whose order plays no part, layer by layer from the input on.

    Only networks that are one ``nn.Sequential`` (of others, too) are taken apart; what stands
    between two layers must treat each unit alike and apart from the others. Modules with hooks
    and tensors that serve twice are passed over.
    """
    if not _is_plain(model):
        return []
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    found: list[Hidden] = []
    last: tuple[str, nn.Module] | None = None
    flat = False
    for name, step in _steps(model, ""):
        if _is_layer(step, uses):
            if last is not None and _fits(last[1], step, flat):
                bias = f"{last[0]}.bias" if "bias" in dict(last[1].named_parameters()) else None
                outgoing = f"{name}.weight"
                found.append(Hidden(weight=f"{last[0]}.weight", bias=bias, outgoing=outgoing))
            last, flat = (name, step), False
        elif _flattens(step):
            flat = True
        elif last is not None and not _keeps_units(last[1], step):
            last = None
    return found


def symmetry_bits(model: nn.Module, coded: Mapping[str, Coded]) -> float:
    """log2 of the number of distinct codewords of one length that compute the same function.

    They come from putting live units in another order: rows of the incoming tensors together
    with the columns of the outgoing one. A unit is live if it has incoming and outgoing weights.
    Their lengths are equal under the options that ``steadiness`` asks for, and only under those.

    Counted from the input on: once the order of the layers before is given, no more orders of a
    layer lead back to the same codeword than orders of units with equal incoming weights; in the
    last hidden layer their outgoing ones have to be equal, too.

    Args:
        model: The network, for its structure; its weights play no part.
        coded: Every tensor as it is coded, in the order of the stream.

    Returns:
        Bits, rounded down by a millionth.
    """
    found = counted_units(model, coded)
    inner = {one.weight for one in found}
    total = sum(_orders(one, coded, one.outgoing in inner) for one in found)
    return max(0.0, math.floor(total * 1e6 - 1) / 1e6)


def steadiness(model: nn.Module, coded: Mapping[str, Coded]) -> dict[str, Steady]:
    """For each tensor, the lines whose order must not change the length, as the count asks."""
    found = counted_units(model, coded)
    rows = {name for one in found for name in (one.weight, one.bias)}
    columns = {one.outgoing for one in found}
    return {name: Steady(rows=name in rows, columns=name in columns) for name in coded}


def prior_bits(model: nn.Module, coded: Mapping[str, Coded]) -> float:
    """Bits of a network under the prior of the code with contexts, orders of its units included.

    The sum over codewords of this function is at least that over the options for one order of
    its units, and at least the number of orders times that over the options that do not tell
    them apart; so the shorter of the two may be paid.

    Raises:
        UsageError: A tensor has a codebook.
    """
    tensors: list[Plain] = [t for t in coded.values() if not isinstance(t, Codebook)]
    if len(tensors) < len(coded):
        raise UsageError("the code with contexts has no codebooks; quantise with Uniform")
    one = contextual_prior(tensors)
    steady = contextual_prior(tensors, list(steadiness(model, coded).values()))
    return min(one, steady - symmetry_bits(model, coded))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module does nothing but let its children act one after the other."""
    return (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and not _hooked(module)
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _steps(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """Modules in the order in which they act, with plain containers taken apart."""
    steps: list[tuple[str, nn.Module]] = []
    for name, child in module._modules.items():  # named_children leaves out repeated ones
        assert child is not None
        inside = _is_plain(child)
        steps += _steps(child, f"{prefix}{name}.") if inside else [(f"{prefix}{name}", child)]
    return steps


def _is_layer(step: nn.Module, uses: Counter[int]) -> bool:
    if type(step) not in (nn.Linear, *CONVOLUTIONS) or _hooked(step):
        return False
    once = all(uses[id(parameter)] == 1 for parameter in step.parameters())
    return once and getattr(step, "groups", 1) == 1


def _flattens(step: nn.Module) -> bool:
    whole = isinstance(step, nn.Flatten) and (step.start_dim, step.end_dim) == (1, -1)
    return whole and not _hooked(step)


def _keeps_units(layer: nn.Module, step: nn.Module) -> bool:
    pools = isinstance(layer, CONVOLUTIONS) and type(step) in POOLS
    return (pools or type(step) in ELEMENTWISE) and not _hooked(step)


def _fits(layer: nn.Module, following: nn.Module, flat: bool) -> bool:
    """Whether the columns of the following layer come unit by unit."""
    if isinstance(layer, nn.Linear):
        return isinstance(following, nn.Linear) and layer.out_features == following.in_features
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(following, nn.Linear):
        return flat and following.in_features % layer.out_channels == 0
    return not flat and type(layer) is type(following)


def counted_units(model: nn.Module, coded: Mapping[str, Coded]) -> list[Hidden]:
    """Those whose tensors are on grids and follow each other in the stream.

    The flags of columns go by the units of the matrix before, so it must be the incoming one.
    """
    wide = [
        n for n, t in coded.items() if isinstance(t, Grid) and math.prod(t.levels.shape[1:]) > 1
    ]
    pairs = set(itertools.pairwise(wide))
    return [
        one
        for one in hidden_units(model)
        if (one.weight, one.outgoing) in pairs
        and (one.bias is None or isinstance(coded.get(one.bias), Grid))
    ]


def _orders(one: Hidden, coded: Mapping[str, Coded], inner: bool) -> float:
    """log2 of the number of distinct orders of the live units."""
    weight, outgoing = _rows(coded[one.weight]), _columns(coded, one)
    live = (weight != 0).any(axis=1) & (outgoing != 0).any(axis=1)
    told = [weight] if one.bias is None else [weight, _rows(coded[one.bias])]
    rows = np.concatenate(told if inner else [*told, outgoing], axis=1)[live]
    equal = Counter(row.tobytes() for row in rows)
    orders = math.lgamma(len(rows) + 1) - sum(math.lgamma(n + 1) for n in equal.values())
    return orders / math.log(2)


def _rows(tensor: Coded) -> Int64[ndarray, "units n"]:
    assert isinstance(tensor, Grid)
    return tensor.levels.reshape(len(tensor.levels), -1).astype(np.int64)


def _columns(coded: Mapping[str, Coded], one: Hidden) -> Int64[ndarray, "units n"]:
    """The outgoing weights of each unit as a row."""
    levels, units = _rows(coded[one.outgoing]), len(_rows(coded[one.weight]))
    by_unit = levels.reshape(len(levels), units, -1).transpose(1, 0, 2)
    return by_unit.reshape(units, -1)
