"""The decoder blocks of a language model: found, called one by one, and looked into."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tailor.errors import NonFinite, UsageError

Forward: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """The blocks that a model runs one after the other.

    Attributes:
        prefix: Name of their list in the model, such as ``"model.layers"``.
        members: The blocks.
    """

    prefix: str
    members: tuple[nn.Module, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """With what a model calls one block, beside the hidden states.

    Attributes:
        args: Arguments after the hidden states.
        kwargs: Arguments by name: mask, positions, rotations.
        named: Name of the hidden states, if they are given by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    named: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """One batch of calibration data on its way through the blocks.

    Attributes:
        hidden: Where it is now, in main memory.
        calls: For each block with what it is called.
    """

    hidden: Float[Tensor, "batch length width"]
    calls: list[Call]


def find_blocks(model: nn.Module) -> Blocks:
    """The ``ModuleList`` with the most parameters.

    Raises:
        UsageError: There is none; an encoder stands beside it; blocks share weights.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise UsageError(
            f"{type(model).__name__} has an encoder and a decoder; prune_causal_lm needs a model "
            "of decoder blocks alone; prune this one with prune()"
        )
    lists = [(n, part) for n, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise UsageError(
            f"{type(model).__name__} has no ModuleList of blocks; give a causal language model of "
            "transformers, or prune this one with prune()"
        )
    prefix, found = max(lists, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))
    _refuse_shared(model, prefix, found)
    return Blocks(prefix=prefix, members=tuple(found))


def _refuse_shared(model: nn.Module, prefix: str, found: nn.ModuleList) -> None:
    """One block at a time is right only where it owns its weights."""
    owner: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside = name.startswith(f"{prefix}.")
        place = name.removeprefix(f"{prefix}.").split(".")[0] if inside else "outside"
        first = owner.setdefault(id(parameter), place)
        if first != place:
            raise UsageError(
                f"{name} is one tensor with a weight of another part of the model, so its block "
                "cannot be pruned alone; give each its own copy first"
            )
    if len({id(part) for part in found}) < len(found):
        raise UsageError(f"a block stands twice in {prefix}; give each its own copy first")


# How a model calls its blocks


class _Stop(Exception):
    """The last block was reached; what follows is not needed."""


class _Changed(Exception):
    """A block got something else than what the one before it gave."""


def enter(model: nn.Module, blocks: Blocks, tokens: Int[Tensor, "batch length"]) -> Batch:
    """What the first block sees, and with what every block is called.

    The model runs with blocks that return what they got, so none of their weights is needed.

    Raises:
        UsageError: The model does more between its blocks than to call one after the other.
    """
    # a block gives its hidden states alone, or first in a tuple
    ways: tuple[Callable[[Any], Any], ...] = (lambda h: h, lambda h: (h,), lambda h: (h, None))
    error: Exception | None = None
    for way in ways:
        try:
            return _enter(model, blocks, tokens, way)
        except (_Changed, TypeError, ValueError, IndexError, AttributeError) as failed:
            error = failed
    raise UsageError(
        f"{type(model).__name__} does more between its blocks than to call one after the other "
        f"({error or 'a block did not get what the one before gave'}), so they cannot be pruned "
        "one at a time; prune it with prune()"
    ) from error


def _enter(model: nn.Module, blocks: Blocks, tokens: Tensor, way: Callable[[Any], Any]) -> Batch:
    hidden: list[Tensor] = []
    calls: list[Call] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        given, call = _split(args, kwargs)
        if hidden and given is not hidden[0]:
            raise _Changed
        hidden[:] = [given]
        calls.append(call)
        if len(calls) == len(blocks.members):
            raise _Stop
        return way(given)

    with ExitStack() as stack, torch.no_grad():
        for block in blocks.members:
            stack.enter_context(_instead(block, forward))
        try:
            model(input_ids=tokens, use_cache=False)
        except _Stop:
            return Batch(hidden=hidden[0].detach().cpu(), calls=calls)
    raise _Changed  # blocks were left out


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    if args:
        return args[0], Call(args=args[1:], kwargs=kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    if len(rest) == len(kwargs):
        raise _Changed
    return kwargs["hidden_states"], Call(args=(), kwargs=rest, named="hidden_states")


@contextmanager
def _instead(block: nn.Module, forward: Forward) -> Iterator[None]:
    """The block does something else for a while; models look at its other attributes."""
    own = block.__dict__.get("forward")
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        del block.__dict__["forward"]
        if own is not None:
            block.__dict__["forward"] = own


def run(block: nn.Module, index: int, batch: Batch) -> Float[Tensor, "batch length width"]:
    """What a block makes of a batch; still where the block is."""
    call, weight = batch.calls[index], next(block.parameters())
    hidden = batch.hidden.to(weight.device)
    with torch.no_grad():
        if call.named:
            given = block(**{call.named: hidden}, **call.kwargs)
        else:
            given = block(hidden, *call.args, **call.kwargs)
    found: Tensor = given[0] if isinstance(given, tuple) else given
    return found


def advance(block: nn.Module, index: int, batches: Sequence[Batch]) -> None:
    """Take all batches through a block.

    Raises:
        NonFinite: Something that comes out is NaN or infinite.
    """
    for batch in batches:
        batch.hidden = run(block, index, batch).cpu()
        odd = int((~torch.isfinite(batch.hidden)).sum())
        if odd:
            raise NonFinite(
                f"{odd} outputs of block {index} are NaN or infinite on the calibration data; "
                "use dtype=torch.float32, or look at the model"
            )


# The matrices of a block


def matrices(block: nn.Module) -> dict[str, nn.Module]:
    """The parts that multiply by a matrix called ``weight``, by name."""
    return {name: part for name, part in block.named_modules() if _multiplies(part)}


def _multiplies(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or is_transposed(part)


def is_transposed(part: nn.Module) -> bool:
    """Whether it is the ``Conv1D`` of GPT-2, which stores inputs by outputs."""
    kind = type(part)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def left_alone(block: nn.Module) -> Mapping[str, str]:
    """Other parameters with two or more axes, and why they stay as they are."""
    own = {id(part.weight) for part in matrices(block).values()}
    return {
        name: "no matrix of a linear layer, such as experts in one tensor"
        for name, parameter in block.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in own
    }
