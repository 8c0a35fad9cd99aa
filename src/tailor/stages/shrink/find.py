"""Find every chain of a model, and say why the other layers stay as they are."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from tailor.stages.modules import LeftAlone
from tailor.stages.shrink.call import Call, calls
from tailor.stages.shrink.chain import Chain
from tailor.stages.shrink.heads import Attention, attentions, head_chain
from tailor.stages.shrink.kinds import MATRICES, hooked, kind_of
from tailor.stages.shrink.trace import traced
from tailor.stages.shrink.walk import LEAVES, walked
from tailor.stages.targets import as_dtensor
from tailor.weights.source.entry import first_line

TYPES = ("torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a model is made of.

    Attributes:
        chains: Units that can be removed, in the order in which the model uses them.
        left_alone: Every other matrix.
    """

    chains: tuple[Chain, ...]
    left_alone: tuple[LeftAlone, ...]


def find(model: nn.Module, call: Call) -> Found:
    """The chains of a model.

    A module that torch.fx cannot trace is taken apart, and its parts are traced one by one. The
    units that leave such a part stay, since their readers are unknown.

    Args:
        model: The model.
        call: What it is called with.
    """
    trouble = _trouble(model)
    chains, reasons = _heads(model, call, trouble)
    in_heads = {slot.path for chain in chains for slot in chain.slots} | set(reasons)
    graphs, more = _graphs(model, call, trouble)
    own = [one for one in graphs if not in_heads & {slot.path for slot in one.slots}]
    reasons = more | reasons
    every = sorted([*chains, *own], key=_order(model))
    taken = {slot.path for one in every for slot in one.slots if slot.role != "columns"}
    left = [
        LeftAlone(name=path, reason=reasons.get(path) or _unseen(model, path))
        for path, part in model.named_modules()
        if (isinstance(part, MATRICES) or kind_of(part)) and path not in taken
    ]
    return Found(chains=tuple(every), left_alone=tuple(left))


def _heads(
    model: nn.Module, call: Call, trouble: Callable[[str], str | None]
) -> tuple[list[Chain], dict[str, str]]:
    """The heads that can be removed, and the projections whose heads cannot."""
    found: list[Attention] = attentions(model)
    if not found:
        return [], {}
    seen = calls(model, call, {one.path for one in found}.__contains__)
    chains, reasons = [], {}
    for one in found:
        chain = head_chain(model, one, seen.get(one.path), trouble)
        if isinstance(chain, Chain):
            chains.append(chain)
            reasons[one.inner[-1]] = "its units are the outputs of the attention"
        else:
            reasons.update(dict.fromkeys(one.inner, f"of the heads of {one.path}: {chain}"))
    return chains, reasons


def _graphs(
    model: nn.Module, call: Call, trouble: Callable[[str], str | None]
) -> tuple[list[Chain], dict[str, str]]:
    """The chains of the model, or of the largest of its parts that can be traced."""
    chains: list[Chain] = []
    reasons: dict[str, str] = {}
    level = {"": call}
    while level:
        inner: set[str] = set()
        for path, own in level.items():
            module = model.get_submodule(path)
            try:
                found, why = _traced_chains(module, own, path, trouble)
            except Exception as error:  # whatever fx or a module of other people raises
                inner |= set(_called_inside(module, path))
                said = f"{type(module).__name__} cannot be traced: {first_line(error)}"
                reasons.setdefault("", said)
            else:
                chains += found
                reasons |= why
        level = calls(model, call, inner.__contains__) if inner else {}
    untraced = reasons.pop("", None) if kind_of(model) is None else None
    return chains, {path: _with(why, untraced) for path, why in reasons.items()}


def _called_inside(module: nn.Module, path: str) -> list[str]:
    """The parts of a module that it may call; lists of modules are looked through."""
    found = []
    for name, part in module.named_children():
        inner = f"{path}.{name}" if path else name
        mere_list = type(part).forward is nn.Module.forward
        found += _called_inside(part, inner) if mere_list else [inner]
    return found


def _with(why: str, untraced: str | None) -> str:
    return f"{why} ({untraced})" if untraced and why.startswith(LEAVES) else why


def _traced_chains(
    module: nn.Module, call: Call, path: str, trouble: Callable[[str], str | None]
) -> tuple[list[Chain], dict[str, str]]:
    """Chains that are the same in evaluation and in training mode."""
    found = [walked(one, call, path, trouble) for one in traced(module, call)]
    chains, reasons = found[0]
    for others, why in found[1:]:
        for chain in list(chains):
            if not any(chain.same_as(other) for other in others):
                chains.remove(chain)
                said = "it is used in another way in training mode"
                reasons |= dict.fromkeys(chain.names, why.get(chain.name, said))
    return chains, reasons


def _trouble(model: nn.Module) -> Callable[[str], str | None]:
    """Why a module must not be cut, whatever the graph says."""
    every = list(model.named_modules(remove_duplicate=False))
    places = Counter(id(part) for _, part in every)
    owners: dict[int, set[int]] = {}
    for _, part in every:
        for parameter in part.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(id(part))

    def trouble(path: str) -> str | None:
        part = model.get_submodule(path)
        if places[id(part)] > 1:
            return "it stands in the model more than once"
        if hooked(part):
            return "it has hooks"
        if parametrize.is_parametrized(part):
            return "a parametrization computes its weights"
        for parameter in part.parameters(recurse=False):
            if len(owners[id(parameter)]) > 1:
                return "its weights are tied with those of another module"
            reason = _odd(parameter)
            if reason is not None:
                return reason
        return None

    return trouble


def _odd(parameter: nn.Parameter) -> str | None:
    """Why a parameter cannot be cut."""
    if str(parameter.dtype) not in TYPES:
        return f"its weights are of {parameter.dtype}"
    if parameter.is_meta:
        return "its weights are on the meta device"
    if as_dtensor(parameter) is not None:
        return "its weights are spread over processes"
    return "it has an empty weight" if parameter.numel() == 0 else None


def _unseen(model: nn.Module, path: str) -> str:
    """Why nothing is known of a matrix."""
    steps = path.split(".")
    for i in range(len(steps)):
        above = model.get_submodule(".".join(steps[:i]))
        mere_list = isinstance(above, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if type(above).__module__.startswith("torch.nn") and not mere_list:
            return f"it is inside a {type(above).__name__}, which is not looked into"
    return "it is not called with example_input"


def _order(model: nn.Module) -> Callable[[Chain], int]:
    """In which order chains stand: that of the modules, heads at their last projection."""
    place = {path: at for at, (path, _) in enumerate(model.named_modules())}
    return lambda chain: place[chain.having("rows")[-1].path]
