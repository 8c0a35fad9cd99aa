"""``shrink``: take units out of a network for good."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.modules import LeftAlone, check_finite, copied
from tailor.stages.shrink.call import Call, at_rest, example, outputs, same
from tailor.stages.shrink.chain import Chain
from tailor.stages.shrink.choice import Choice, Kept
from tailor.stages.shrink.find import find
from tailor.stages.shrink.heads import recount
from tailor.stages.shrink.importance import ActivationScore, Importance, PathScore
from tailor.stages.shrink.kinds import cut
from tailor.stages.shrink.mend import Compensation, mend
from tailor.stages.shrink.seen import Seen, moments
from tailor.stages.targets import patterns

Patterns: TypeAlias = str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One chain of units.

    Attributes:
        name: The module that makes the units (of several the first), or the attention.
        before: How many units there were; of an attention, groups of heads that share their keys.
        after: How many there are.
        kept: Which ones stayed, counted as they were before.
    """

    name: str
    before: int
    after: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shrunk:
    """A smaller network.

    Attributes:
        model: The network, of the same classes as before.
        removed: What became of each chain of units, in the order of the network.
        left_alone: The matrices whose outputs all stay, and why; ``name`` is that of the module.
        parameters_before: Parameters of the network that was given.
        parameters_after: Parameters of this one.
    """

    model: nn.Module
    removed: tuple[Removed, ...]
    left_alone: tuple[LeftAlone, ...]
    parameters_before: int
    parameters_after: int


def shrink(
    model: nn.Module,
    ratio: float | Mapping[str, Kept],
    example_input: Any,
    *,
    data: Iterable[Any] | None = None,
    importance: Importance | None = None,
    compensate: Compensation = "none",
    align: int = 1,
    layers: Patterns = "*",
    skip: Patterns = (),
) -> Shrunk:
    """Remove hidden units, channels and heads, so that a smaller and faster network remains.

    A unit goes only where all that makes and reads it is known: linear layers and convolutions
    with pointwise activations, BatchNorm, depthwise convolutions, pooling, flattening and
    products (gates) between them, as ``torch.fx`` shows them; and the heads of attention modules
    that are named as in Llama or GPT-2. Everything else is left as it is, with a reason.

    In evaluation mode the network then computes what the given one computes with these units
    silenced, which is checked on the example. A unit that is zero or constant is taken out
    without any effect, since its constant goes into the next bias (a reader without bias gets
    one). Such units go first, and all of them, whatever the ratio.

    Args:
        model: Any module; it is copied.
        ratio: Share of the units of every chain to remove, in [0, 1), rounded; at least one
            stays. With 0 only units without effect go, as unstructured pruning leaves them. Or,
            for chains by name, the number of units to keep, or their indices; others stay.
        example_input: What the model takes: a tensor, a tuple of arguments, or a dict of
            arguments by name.
        data: Batches for ``importance`` and ``compensate``, as ``tailor.stages.inputs.collect``
            takes them.
        importance: Which units go. By default ``ActivationScore()`` with data, and ``PathScore()``
            without.
        compensate: Make up for what is lost with the mean of the removed units on the data, or
            with least squares on the units that stay; all measured on the given model.
        align: The number of units that stay is a multiple of this, which some hardware likes.
        layers: Patterns of the names of chains, which are those of modules.
        skip: Patterns of names to leave out; these are not listed.

    Raises:
        UsageError: An argument is out of range; no unit can be removed; the example or the data
            do not fit; or the model computes something else in a way that its graph does not show.
        NonFinite: A weight next to the units is NaN or infinite.
    """
    _check(ratio, compensate, align)
    small = copied(model, who="shrink")
    call = example(small, example_input)
    found = find(small, call)
    chains = _fitting(found.chains, found.left_alone, layers, skip)
    _check_weights(small, chains)
    rule = importance or (PathScore() if data is None else ActivationScore())
    choice = Choice(ratio=ratio, rule=rule, align=align, chains=chains)
    seen = _seen(small, chains, data, rule, compensate)
    kept = {chain.name: list(range(chain.width)) for chain in chains}
    one_round = _round(small, call, chains, choice, compensate, seen)
    while any(len(one_round[name]) < len(kept[name]) for name in one_round):
        kept |= {name: [kept[name][i] for i in chosen] for name, chosen in one_round.items()}
        if isinstance(ratio, Mapping):
            break
        again = [one for one in find(small, call).chains if one.name in kept]
        rest = Choice(ratio=0.0, rule=PathScore(), align=align, chains=again)
        one_round = _round(small, call, again, rest, "none", {})
    return Shrunk(
        model=small,
        removed=tuple(
            Removed(
                name=chain.name,
                before=chain.width,
                after=len(kept[chain.name]),
                kept=tuple(kept[chain.name]),
            )
            for chain in chains
        ),
        left_alone=found.left_alone,
        parameters_before=_parameters(model),
        parameters_after=_parameters(small),
    )


# Removal


def _round(
    model: nn.Module,
    call: Call,
    chains: Sequence[Chain],
    choice: Choice,
    compensate: Compensation,
    seen: dict[str, Seen],
) -> dict[str, list[int]]:
    """Silence, then cut; in between the outputs are noted, and must not change by the cut."""
    kept: dict[str, list[int]] = {}
    for chain in reversed(chains):  # what reads nothing any more makes the chain before it idle
        kept[chain.name] = choice.kept(model, chain, seen)
        gone = _gone(kept[chain.name], chain.width)
        if bool(gone.any()):
            mend(model, chain, gone, compensate, seen)
    with at_rest(model):
        expected = outputs(call.on(model))
    for chain in chains:
        if len(kept[chain.name]) < chain.width:
            units = torch.tensor(kept[chain.name])
            for slot in chain.slots:
                cut(model.get_submodule(slot.path), slot, units)
            recount(model, chain, len(units))
    _verify(model, call, expected)
    return kept


def _gone(kept: list[int], width: int) -> Bool[Tensor, "units"]:
    gone = torch.ones(width, dtype=torch.bool)
    gone[torch.tensor(kept)] = False
    return gone


def _verify(model: nn.Module, call: Call, expected: list[Tensor]) -> None:
    """The example must give what it gave with the units silenced."""
    advice = (
        "its forward depends on sizes or weights in a way that its graph does not show; leave "
        "layers out with skip"
    )
    try:
        with at_rest(model):
            found = outputs(call.on(model))
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(f"the smaller model cannot be run ({said}): {advice}") from error
    if not same(expected, found):
        raise UsageError(f"the smaller model computes something else on the example: {advice}")


# What was given


def _check(ratio: float | Mapping[str, Kept], compensate: str, align: int) -> None:
    if not isinstance(ratio, Mapping):
        given: object = ratio
        if isinstance(given, bool) or not isinstance(given, float | int):
            raise UsageError(f"ratio must be a number or a mapping, but is {ratio!r}")
        if not 0 <= given < 1:
            raise UsageError(f"ratio must lie in [0, 1), but is {ratio}")
    if compensate not in ("none", "mean", "lstsq"):
        raise UsageError(f'compensate must be "none", "mean" or "lstsq", but is {compensate!r}')
    if type(align) is not int or align < 1:
        raise UsageError(f"align must be a whole number from 1 up, but is {align!r}")


def _fitting(
    chains: Sequence[Chain], left: Sequence[LeftAlone], layers: Patterns, skip: Patterns
) -> list[Chain]:
    """The chains that the patterns keep."""
    if not chains:
        said = (
            "; ".join(f"{one.name or 'it'}: {one.reason}" for one in left[:5])
            or "it has no matrices"
        )
        raise UsageError(f"shrink found no units that it can remove ({said})")

    def fits(chain: Chain, given: Patterns) -> bool:
        return any(fnmatchcase(name, one) for name in chain.names for one in patterns(given))

    found = [one for one in chains if fits(one, layers) and not fits(one, skip)]
    if not found:
        names = ", ".join(one.name for one in chains[:8])
        raise UsageError(f"no chain fits layers={layers!r} and skip={skip!r}; there are {names}")
    return found


def _check_weights(model: nn.Module, chains: Sequence[Chain]) -> None:
    for path in dict.fromkeys(slot.path for chain in chains for slot in chain.slots):
        for name, parameter in model.get_submodule(path).named_parameters(recurse=False):
            check_finite(f"{path}.{name}", parameter)


def _seen(
    model: nn.Module,
    chains: Sequence[Chain],
    data: Iterable[Any] | None,
    rule: Importance,
    compensate: Compensation,
) -> dict[str, Seen]:
    """What the readers get on the data, if anybody asks."""
    if not rule.needs_data and compensate == "none":
        return {}
    if data is None:
        asks = type(rule).__name__ if rule.needs_data else f"compensate={compensate!r}"
        raise UsageError(f"{asks} needs data; give batches with data=")
    paths = dict.fromkeys(slot.path for chain in chains for slot in chain.having("columns"))
    return moments(model, paths, data, gram=compensate == "lstsq")


def _parameters(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())
