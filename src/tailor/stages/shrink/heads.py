"""Attention heads, told by the names that Transformers gives to their projections."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tailor.stages.shrink.call import Call, at_rest, outputs, same
from tailor.stages.shrink.chain import Chain, Constant, Slot
from tailor.stages.shrink.kinds import columns, cut, kind_of, outputs_first, overwrite_columns

# Attributes that count heads or their features; some modules read them when they run.
COUNTS = ("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "split_size")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attention:
    """A module whose heads can be told.

    Attributes:
        path: The module.
        inner: Paths of its projections.
    """

    path: str
    inner: tuple[str, ...]


def attentions(model: nn.Module) -> list[Attention]:
    """Modules that look like attention: separate projections as in Llama, or one as in GPT-2."""
    found = []
    for path, part in model.named_modules():
        names = _projections(part)
        if names:
            inner = tuple(f"{path}.{name}" if path else name for name in names)
            found.append(Attention(path=path, inner=inner))
    return found


def head_chain(
    model: nn.Module, one: Attention, call: Call | None, trouble: Callable[[str], str | None]
) -> Chain | str:
    """The heads of an attention module, or why they stay.

    Heads that share their keys and values are one unit. Nothing is believed of how the module
    works: with one unit less, a copy must give what it gives with that unit's output silenced.
    """
    module = model.get_submodule(one.path)
    if call is None:
        return "it is not called with example_input"
    for path in (one.path, *one.inner):
        reason = trouble(path)
        if reason is not None:
            return f"{path.rpartition('.')[2]}: {reason}" if path != one.path else reason
    slots = _slots(module, one.path)
    if slots is None:
        return "the sizes of its projections are no multiples of head_dim"
    chain = _chain(module, one, slots)
    if chain.width < 2:
        return "it has one group of heads only"
    return (
        chain
        if _can_lose_one(module, chain, call)
        else ("its forward depends on the number of heads in a way that is not known")
    )


def recount(model: nn.Module, chain: Chain, kept: int) -> None:
    """Let the attributes that count heads say the truth."""
    if chain.group is not None:
        path, names = chain.group
        module = model.get_submodule(path)
        for name in names:
            setattr(module, name, getattr(module, name) * kept // chain.width)


def _projections(module: nn.Module) -> tuple[str, ...]:
    """Names of the projections, that of the output last; none if it is another module."""
    if not isinstance(getattr(module, "head_dim", None), int):
        return ()
    for names in (("q_proj", "k_proj", "v_proj", "o_proj"), ("c_attn", "c_proj")):
        parts = [getattr(module, name, None) for name in names]
        if all(isinstance(part, nn.Module) and kind_of(part) for part in parts):
            return names
    return ()


def _slots(module: Any, path: str) -> tuple[Slot, ...] | None:
    """Where the heads are in the projections."""
    size, dot = module.head_dim, f"{path}." if path else ""
    names = _projections(module)
    makers = [len(outputs_first(getattr(module, name))) for name in names[:-1]]
    read = outputs_first(getattr(module, names[-1])).shape[1]
    if len(names) == 2:  # one matrix for queries, keys and values
        if makers[0] != 3 * read or read % size:
            return None
        offsets = (0, read, 2 * read)
        fused = Slot(path=f"{dot}c_attn", role="rows", block=size, offsets=offsets)
        return fused, Slot(path=f"{dot}c_proj", role="columns", block=size)
    q, k, v = makers
    if k != v or q != read or k % size or q % k:
        return None
    shared = size * (q // k)
    return (
        Slot(path=f"{dot}q_proj", role="rows", block=shared),
        Slot(path=f"{dot}k_proj", role="rows", block=size),
        Slot(path=f"{dot}v_proj", role="rows", block=size),
        Slot(path=f"{dot}o_proj", role="columns", block=shared),
    )


def _chain(module: Any, one: Attention, slots: tuple[Slot, ...]) -> Chain:
    names = _projections(module)
    read = outputs_first(getattr(module, names[-1])).shape[1]
    width = read // slots[-1].block
    values = _values(module, names, width)
    silent = (values == 0).all(dim=1)
    constant = Constant(
        known=silent,
        values=torch.zeros(width, slots[-1].block, dtype=torch.float64, device=values.device),
    )
    counts = tuple(name for name in COUNTS if isinstance(getattr(module, name, None), int))
    return Chain(
        name=one.path,
        width=width,
        slots=slots,
        constants=(constant,),
        strength=(replace(slots[-2], offsets=slots[-2].offsets[-1:]),),
        group=(one.path, counts),
    )


def _values(module: Any, names: tuple[str, ...], width: int) -> torch.Tensor:
    """Weights and biases of the values, by unit: where they are zero, so is the head."""
    maker = getattr(module, names[-2])
    weight = outputs_first(maker).flatten(1)
    bias = None if maker.bias is None else maker.bias.detach()[:, None]
    every = weight if bias is None else torch.cat([weight, bias], dim=1)
    own = every[-(len(every) // 3) :] if len(names) == 2 else every
    return own.reshape(width, -1)


def _can_lose_one(module: nn.Module, chain: Chain, call: Call) -> bool:
    small, whole = copy.deepcopy(module), copy.deepcopy(module)
    own = {slot.path: slot.path.rpartition(".")[2] for slot in chain.slots}
    keep = torch.arange(chain.width - 1)
    for slot in chain.slots:
        cut(small.get_submodule(own[slot.path]), slot, keep)
    for name in chain.group[1] if chain.group else ():
        setattr(small, name, getattr(small, name) * (chain.width - 1) // chain.width)
    reader = whole.get_submodule(own[chain.slots[-1].path])
    matrix = columns(reader, chain.slots[-1], chain.width).clone()
    matrix[:, -1] = 0
    overwrite_columns(reader, matrix)
    try:
        with at_rest(small), at_rest(whole):
            return same(outputs(call.on(whole))[:1], outputs(call.on(small))[:1])
    except Exception:  # whatever a module of other people raises when it is cut
        return False
