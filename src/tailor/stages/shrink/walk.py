"""Follow the units of every layer through a graph, to all that reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, fx, nn

from tailor.stages.shrink import operations
from tailor.stages.shrink.call import Call, at_rest
from tailor.stages.shrink.chain import Chain, Constant, Slot, Space, by_unit
from tailor.stages.shrink.kinds import (
    MATRICES,
    carries,
    depthwise,
    gains,
    hooked,
    kind_of,
    outputs_first,
    pads_with_zeros,
    spatial,
    unit_axis,
)
from tailor.stages.shrink.trace import Traced, path_in

LEAVES = "its units leave"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lane:
    """A tensor one axis of which counts units.

    Attributes:
        space: Whose units.
        back: That axis, counted from the end: 1 is the last.
        block: Features for each unit.
        known: Units that always have the same value.
        zero: Those of them that are zero.
    """

    space: Space
    back: int
    block: int
    known: Bool[Tensor, "units"]
    zero: Bool[Tensor, "units"]


class Walk(fx.Interpreter):
    """Runs a graph once, and notes for each layer who reads its units.

    Args:
        traced: The graph.
        prefix: Where its module lies in the model.
        trouble: Why a module must not be cut, by its path; None if it may.
    """

    def __init__(self, traced: Traced, prefix: str, trouble: Callable[[str], str | None]) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self._prefix, self._trouble = prefix, trouble
        self._lanes: dict[fx.Node, Lane] = {}
        self._spaces: list[Space] = []
        called = [n.target for n in traced.graph.nodes if n.op == "call_module"]
        self._often = {path_in(one, prefix) for one in called if called.count(one) > 1}
        self._read = {
            path_in(str(node.target).rpartition(".")[0], prefix)
            for node in traced.graph.nodes
            if node.op == "get_attr"
        }
        self.refused: dict[str, str] = {}  # layers that make no space at all

    def run_node(self, n: fx.Node) -> Any:
        """See ``torch.fx.Interpreter``."""
        value = super().run_node(n)
        lanes = {arg: self._lanes[arg] for arg in n.all_input_nodes if arg in self._lanes}
        if n.op == "call_module":
            self._module(n, value, lanes)
        elif n.op == "output":
            said = f"{LEAVES} {self._prefix}" if self._prefix else "its units are the outputs"
            self._block(lanes, said)
        elif lanes:
            self._function(n, value, lanes)
        return value

    def found(self) -> tuple[list[Chain], dict[str, str]]:
        """The chains, and why other layers stay, by path."""
        chains, reasons = [], dict(self.refused)
        for space in dict.fromkeys(one.root() for one in self._spaces):
            read = any(slot.role == "columns" for slot in space.slots)
            reason = space.reason or (None if read else "nothing reads its units")
            if reason is None:
                chains.append(space.chain())
            else:
                made = [slot.path for slot in space.slots if slot.role == "rows"]
                reasons.update(dict.fromkeys(made, reason))
        return chains, reasons

    # Modules

    def _module(self, node: fx.Node, value: Any, lanes: dict[fx.Node, Lane]) -> None:
        path = path_in(node.target, self._prefix)
        module = self.fetch_attr(str(node.target))
        lane = lanes.get(node.args[0]) if len(lanes) == len(node.args) == 1 else None  # type: ignore[arg-type]
        if lanes and lane is None:
            self._block(lanes, f"{path} reads its units together with others")
        if kind_of(module) is not None:
            if lane is not None:
                self._reader(path, module, lane, node)
            self._maker(path, module, node, value)
        elif lane is not None:
            self._passed(path, module, lane, node, value)
        elif isinstance(module, MATRICES):
            self.refused[path] = self._trouble(path) or f"{_called(module)} is not cut"

    def _reader(self, path: str, module: Any, lane: Lane, node: fx.Node) -> None:
        reason = self._why_not(path, module)
        if reason is not None:
            return lane.space.block(f"{path} reads its units, but {reason}")
        if lane.back != spatial(module) + 1:
            return lane.space.block(f"{path} reads its units along another axis")
        value: Tensor = self.env[node.args[0]]  # type: ignore[index]
        inside = by_unit(value, lane.back, lane.space.root().width)[:, :, 0]
        padded = pads_with_zeros(module)
        known = lane.zero if padded else lane.known
        space = lane.space.root()
        space.slots.append(Slot(path=path, role="columns", block=lane.block))
        space.constants.append(Constant(known=known, values=inside.double()))
        return None

    def _maker(self, path: str, module: nn.Module, node: fx.Node, value: Tensor) -> None:
        reason = self._why_not(path, module)
        if reason is not None:
            self.refused[path] = reason
            return
        weight = outputs_first(module)
        space = Space(len(weight))
        space.slots.append(Slot(path=path, role="rows"))
        self._spaces.append(space)
        empty = (weight == 0).flatten(1).all(dim=1)
        self._note(node, value, space, spatial(module) + 1, 1, empty)

    def _passed(self, path: str, module: Any, lane: Lane, node: fx.Node, value: Any) -> None:
        """A module that is no matrix, and gets units."""
        kind = type(module)
        alone = kind is not nn.PReLU or module.num_parameters == 1
        if kind in operations.POINTWISE_MODULES and alone:
            reason = "has hooks" if hooked(module) else self._changes(node, module)
            if reason is not None:
                return lane.space.block(f"{path}, which gets its units, {reason}")
            return self._note(node, value, lane.space, lane.back, lane.block, lane.known)
        if kind in operations.POOLS and not hooked(module):
            return self._pool(node, value, lane, int(kind.__name__[-2]), module)
        if kind is nn.Flatten and not hooked(module):
            return self._flat(node, value, lane)
        if carries(module) is not None:
            return self._carrier(path, module, lane, node, value)
        if isinstance(module, MATRICES):
            self.refused[path] = self._trouble(path) or f"{_called(module)} is not cut"
        return lane.space.block(f"{path} ({_called(module)}) reads its units")

    def _carrier(self, path: str, module: Any, lane: Lane, node: fx.Node, value: Tensor) -> None:
        reason = self._why_not(path, module)
        if reason is not None:
            return lane.space.block(f"{path}, which gets its units, {reason}")
        space = lane.space.root()
        before: Tensor = self.env[node.args[0]]  # type: ignore[index]
        if before.ndim - lane.back != unit_axis(module, before.ndim):
            return lane.space.block(f"{path} reads its units along another axis")
        space.slots.append(Slot(path=path, role="carries", block=lane.block))
        known = lane.zero if depthwise(module) and pads_with_zeros(module) else lane.known
        silent = (gains(module) == 0).reshape(space.width, -1).all(dim=1)
        return self._note(node, value, space, lane.back, lane.block, known | silent)

    # Functions and methods

    def _function(self, node: fx.Node, value: Any, lanes: dict[fx.Node, Lane]) -> None:
        name = operations.name_of(node)
        (argument, lane), *others = lanes.items()
        said = name or str(node.target)
        if name in operations.JOINS | operations.MEETS and "out" not in node.kwargs:
            return self._two(node, value, lanes, name)
        if others or argument is not node.args[0] or "out" in node.kwargs:
            return self._block(lanes, f"{said} reads its units together with others")
        if name in operations.POINTWISE:
            reason = self._changes(node, None)
            if self._tensors(node):  # such as a bound for each unit
                reason = "reads its units together with others"
            if reason is not None:
                return self._block(lanes, f"{said} {reason}")
            return self._note(node, value, lane.space, lane.back, lane.block, lane.known)
        return self._shaped(node, value, lane, said)

    def _shaped(self, node: fx.Node, value: Any, lane: Lane, name: str) -> None:
        """An operation that looks at the shape, or changes it."""
        before: Tensor = self.env[node.args[0]]  # type: ignore[index]
        axis = before.ndim - lane.back
        if name in operations.LOOKS:
            return None
        if name in ("size", "shape") and operations.only_batch(node, axis, before.ndim):
            return None
        if operations.flattens(node):
            return self._flat(node, value, lane)
        if name in operations.MEANS:
            over = operations.reduced(node, before.ndim)
            if over is not None and axis not in over[0]:
                gone = 0 if over[1] else sum(one > axis for one in over[0])
                return self._note(node, value, lane.space, lane.back - gone, lane.block, lane.known)
        pixels = operations.pools(name)
        if pixels is not None:
            return self._pool(node, value, lane, pixels, None)
        return lane.space.block(f"{name} reads its units")

    def _two(self, node: fx.Node, value: Any, lanes: dict[fx.Node, Lane], name: str) -> None:
        """A sum, product, ... of units with something else."""
        lane = next(iter(lanes.values()))
        reason = self._changes(node, None)
        if reason is not None:
            return self._block(lanes, f"{name} {reason}")
        if len(lanes) == 1:
            return self._with_other(node, value, lane, name)
        first, second = lanes.values()
        alike = (first.back, first.block) == (second.back, second.block)
        alike = alike and first.space.root().width == second.space.root().width
        if first.space.root() is not second.space.root():
            if name not in operations.JOINS or not alike:
                said = f"{name} joins its units with others, as in a residual network"
                return self._block(lanes, said)
            first.space.join(second.space)
        elif not alike:
            return self._block(lanes, f"{name} reads its units along two axes")
        known = first.known & second.known
        if name in operations.JOINS:
            known = known | first.zero | second.zero
        return self._note(node, value, first.space, first.back, first.block, known)

    def _with_other(self, node: fx.Node, value: Any, lane: Lane, name: str) -> None:
        """Units meet a number, or a tensor that is the same for all of them."""
        tensors = self._tensors(node)
        if any(one.ndim >= lane.back and one.shape[-lane.back] != 1 for one in tensors):
            return lane.space.block(f"{name} joins its units with others, as in a residual network")
        known = lane.known
        if tensors:
            known = lane.zero if name in operations.JOINS else torch.zeros_like(known)
        return self._note(node, value, lane.space, lane.back, lane.block, known)

    # What both have in common

    def _pool(
        self, node: fx.Node, value: Any, lane: Lane, pixels: int, module: nn.Module | None
    ) -> None:
        if lane.back != pixels + 1:
            return lane.space.block("pooling goes over its units")
        mixes = operations.pads_with_zeros(node, module)
        known = lane.zero if mixes else lane.known
        return self._note(node, value, lane.space, lane.back, lane.block, known)

    def _flat(self, node: fx.Node, value: Tensor, lane: Lane) -> None:
        before: Tensor = self.env[node.args[0]]  # type: ignore[index]
        axis = before.ndim - lane.back
        joined = (*before.shape[:axis], before.shape[axis:].numel())
        if tuple(value.shape) != joined:
            return lane.space.block("a reshape mixes its units with something else")
        block = lane.block * before.shape[axis + 1 :].numel()
        return self._note(node, value, lane.space, 1, block, lane.known)

    def _note(
        self,
        node: fx.Node,
        value: Any,
        space: Space,
        back: int,
        block: int,
        known: Bool[Tensor, "units"],
    ) -> None:
        """Say that a node gives units."""
        width = space.root().width
        if not isinstance(value, Tensor) or value.shape[value.ndim - back] != width * block:
            return space.block(f"{node.target} gives something else than one tensor of its units")
        zero = known & (by_unit(value, back, width) == 0).flatten(1).all(dim=1)
        self._lanes[node] = Lane(space=space, back=back, block=block, known=known, zero=zero)
        return None

    def _tensors(self, node: fx.Node) -> list[Tensor]:
        """What an operation gets beside units, without single numbers."""
        values = [self.env[one] for one in node.all_input_nodes if one not in self._lanes]
        return [one for one in values if isinstance(one, Tensor) and one.ndim]

    def _block(self, lanes: dict[fx.Node, Lane], reason: str) -> None:
        for lane in lanes.values():
            lane.space.block(reason)

    def _changes(self, node: fx.Node, module: nn.Module | None) -> str | None:
        """Trouble with an operation in place: others would read what it has changed."""
        read = any(len(one.users) > 1 for one in node.all_input_nodes if one in self._lanes)
        if read and operations.in_place(node, module):
            return "changes its units in place while something else reads them"
        return None

    def _why_not(self, path: str, module: nn.Module) -> str | None:
        if path in self._often:
            return "it is called more than once"
        if path in self._read:
            return "its weights are read without calling it"
        return self._trouble(path)


def walked(
    traced: Traced, call: Call, prefix: str, trouble: Callable[[str], str | None]
) -> tuple[list[Chain], dict[str, str]]:
    """The chains of one graph, and why other layers stay, by path."""
    walk = Walk(traced, prefix, trouble)
    with at_rest(traced.root):
        walk.run(call.fresh().tensors())
    return walk.found()


def _called(module: nn.Module) -> str:
    grouped = getattr(module, "groups", 1) != 1
    return "a grouped convolution" if grouped else f"a {type(module).__name__}"
