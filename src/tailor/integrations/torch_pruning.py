"""Units that layers share, such as those of residual networks, removed by Torch-Pruning.

``tailor.stages.shrink.shrink`` leaves units alone that a sum joins with others. Torch-Pruning
(Fang et al. 2023, arXiv 2301.12900) finds all layers that have to lose the same units; the
numbers that say which ones go are ours, and so is the check that nothing else changes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.modules import LeftAlone, check_finite, copied
from tailor.stages.shrink import ColumnNorm, Importance, Removed, Shrunk, Units
from tailor.stages.shrink.call import Call, at_rest, example, outputs, same
from tailor.stages.shrink.kinds import MATRICES, carries, kind_of, outputs_first
from tailor.stages.targets import patterns

try:
    import torch_pruning
except ImportError:  # said when it is asked for, so that this module can always be imported
    torch_pruning = None


def shrink_coupled(
    model: nn.Module,
    ratio: float,
    example_input: Any,
    *,
    importance: Importance | None = None,
    align: int = 1,
    skip: str | Sequence[str] = (),
) -> Shrunk:
    """Remove units as ``shrink`` does, and also those that several layers add to one sum.

    In evaluation mode the network then computes what the given one computes with the columns
    zeroed that read these units; that is checked on the example. Groups with a layer that acts on
    all units together, such as LayerNorm, stay.

    Args:
        model: Any module that Torch-Pruning can follow; it is copied.
        ratio: Share of the units of every group to remove, in [0, 1), rounded; one stays.
        example_input: What the model takes: a tensor, a tuple of arguments, or a dict of
            arguments by name.
        importance: Which units go, by default ``ColumnNorm()``; one that needs no data. All
            layers that make a unit count as one.
        align: The number of units that stay is a multiple of this.
        skip: Patterns of the names of modules whose outputs stay.

    Raises:
        UsageError: Torch-Pruning is missing or cannot follow the model, an argument is out of
            range, nothing can be removed, or the smaller network computes something else.
        NonFinite: A weight is NaN or infinite.
    """
    rule = importance or ColumnNorm()
    _check(ratio, rule, align)
    small = copied(model, who="shrink_coupled")
    call = example(small, example_input)
    names = {part: path for path, part in small.named_modules()}
    graph = _graph(small, call)
    ends = _ends(small, call)
    taken: list[tuple[_Group, list[int]]] = []
    left: dict[str, str] = {}
    for one in _groups(graph, names):
        reason = _why_not(small, one, ends, patterns(skip))
        if reason is None:
            taken.append((one, _gone(small, one, rule, ratio, align)))
        else:
            left.update(dict.fromkeys(one.makers, reason))
    if not taken:
        said = "; ".join(f"{path}: {why}" for path, why in [*left.items()][:5])
        raise UsageError(f"shrink_coupled found no units that it can remove ({said})")
    silent = copy.deepcopy(small)
    for one, gone in taken:
        _silence(silent, one, gone)
        _remove(graph, small.get_submodule(one.makers[0]), gone)
    _verify(small, silent, call)
    for path, old in silent.named_parameters():  # Torch-Pruning makes new ones that want gradients
        small.get_parameter(path).requires_grad_(old.requires_grad)
    made = {path for one, _ in taken for path in one.makers}
    other = "Torch-Pruning found no group that it makes"
    return Shrunk(
        model=small,
        removed=tuple(_record(one, gone) for one, gone in taken),
        left_alone=tuple(
            LeftAlone(name=path, reason=left.get(path, other))
            for path, part in small.named_modules()
            if isinstance(part, MATRICES) and path not in made and not _depthwise(part)
        ),
        parameters_before=sum(p.numel() for p in model.parameters()),
        parameters_after=sum(p.numel() for p in small.parameters()),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Units that go together.

    Attributes:
        width: How many.
        makers: The layers whose rows make them, by path.
        readers: The layers whose columns read them, and which columns.
        others: All other modules that hold them.
    """

    width: int
    makers: list[str]
    readers: list[tuple[str, list[int]]]
    others: list[str]


def _graph(model: nn.Module, call: Call) -> Any:
    """Torch-Pruning's graph, which needs gradients to be followed."""
    if torch_pruning is None:
        raise UsageError(
            "shrink_coupled needs Torch-Pruning; install it with: "
            "pip install 'tailor[torch-pruning]'"
        )
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    one = call.fresh()
    try:
        with at_rest(model), torch.enable_grad():
            for p in frozen:
                p.requires_grad_(True)
            graph = torch_pruning.DependencyGraph()
            return graph.build_dependency(model, one.kwargs or one.args, verbose=False)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(
            f"Torch-Pruning cannot follow {type(model).__name__} ({said}); use shrink"
        ) from error
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _groups(graph: Any, names: dict[nn.Module, str]) -> list[_Group]:
    """Every group, before any unit is removed."""
    roots = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [_group(graph, one, names) for one in graph.get_all_groups(root_module_types=roots)]


def _group(graph: Any, found: Any, names: dict[nn.Module, str]) -> _Group:
    makers, readers, others = [], [], []
    for dep, idxs in found:
        module = dep.target.module
        if module not in names:  # an operation such as a sum
            continue
        if kind_of(module) is None:
            others.append(names[module])
        elif graph.is_out_channel_pruning_fn(dep.handler):
            makers.append(names[module])
        else:
            readers.append((names[module], [int(i) for i in idxs]))
    return _Group(
        width=len(found[0].idxs),
        makers=list(dict.fromkeys(makers)),
        readers=readers,
        others=list(dict.fromkeys(others)),
    )


def _ends(model: nn.Module, call: Call) -> set[str]:
    """Layers whose outputs are those of the model."""
    given: list[tuple[str, Tensor]] = []  # kept, so that no address is used twice
    handles = [
        part.register_forward_hook(lambda _m, _a, out, path=path: given.append((path, out)))
        for path, part in model.named_modules()
        if kind_of(part) is not None
    ]
    try:
        with at_rest(model):
            last = outputs(call.on(model))
    finally:
        for handle in handles:
            handle.remove()
    ends = {one.data_ptr() for one in last}
    return {path for path, out in given if out.data_ptr() in ends}


def _why_not(model: nn.Module, one: _Group, ends: set[str], skip: Sequence[str]) -> str | None:
    """Why a group stays."""
    if not one.makers:
        return "it is not made by a layer that can be cut"
    if ends & set(one.makers):
        return "its units are the outputs"
    if any(fnmatchcase(path, pattern) for path in one.makers for pattern in skip):
        return "one of the layers that make its units is skipped"
    if not one.readers:
        return "nothing reads its units"
    if any(len(at) % one.width for _, at in one.readers):
        return "its units are not all read alike"
    for path in one.others:
        part = model.get_submodule(path)
        if carries(part) is None:
            return f"{path} (a {type(part).__name__}) acts on its units together"
    return None


def _gone(model: nn.Module, one: _Group, rule: Importance, ratio: float, align: int) -> list[int]:
    """The units that matter least."""
    count = max(1, one.width - round(ratio * one.width))
    count = min(one.width, -(-count // align) * align)
    score = rule.of(_units(model, one)).cpu()
    chosen: list[int] = score.argsort(stable=True)[: one.width - count].tolist()
    return sorted(chosen)


def _units(model: nn.Module, one: _Group) -> Units:
    incoming, outgoing = [], []
    for path in one.makers:
        weight = outputs_first(model.get_submodule(path)).double()
        check_finite(f"{path}.weight", weight)
        incoming.append(weight.flatten(1))
    for path, at in one.readers:
        weight = outputs_first(model.get_submodule(path)).double()
        check_finite(f"{path}.weight", weight)
        outgoing.append(weight[:, at].reshape(len(weight), one.width, -1))
    rows = torch.cat(incoming, dim=1)
    gain = torch.ones(one.width, dtype=torch.float64, device=rows.device)
    return Units(incoming=(rows,), gain=gain, outgoing=tuple(outgoing))


def _silence(model: nn.Module, one: _Group, gone: list[int]) -> None:
    """Zero the columns that read what goes."""
    for path, at in one.readers:
        block = len(at) // one.width
        columns = [i for unit in gone for i in at[unit * block : (unit + 1) * block]]
        outputs_first(model.get_submodule(path))[:, columns] = 0


def _remove(graph: Any, maker: nn.Module, gone: list[int]) -> None:
    if gone:
        function = graph.get_pruner_of_module(maker).prune_out_channels
        graph.get_pruning_group(maker, function, gone).prune()


def _verify(small: nn.Module, silent: nn.Module, call: Call) -> None:
    advice = "leave layers out with skip, such as those that make the outputs"
    try:
        with at_rest(small), at_rest(silent):
            alike = same(outputs(call.on(silent)), outputs(call.on(small)))
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(f"the smaller model cannot be run ({said}); {advice}") from error
    if not alike:
        raise UsageError(f"the smaller model computes something else on the example; {advice}")


def _record(one: _Group, gone: list[int]) -> Removed:
    kept = tuple(unit for unit in range(one.width) if unit not in set(gone))
    return Removed(name=one.makers[0], before=one.width, after=len(kept), kept=kept)


def _depthwise(module: nn.Module) -> bool:
    return carries(module) is not None


def _check(ratio: float, rule: Importance, align: int) -> None:
    if isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise UsageError(f"ratio must lie in [0, 1), but is {ratio}")
    if rule.needs_data:
        raise UsageError(f"{type(rule).__name__} needs data, which only shrink takes")
    if isinstance(align, bool) or align < 1:
        raise UsageError(f"align must be a whole number from 1 up, but is {align}")
