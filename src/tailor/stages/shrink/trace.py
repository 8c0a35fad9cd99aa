"""The graph of a module, by torch.fx."""

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from tailor.stages.nodes import NodeScale
from tailor.stages.shrink.call import Call, at_rest
from tailor.stages.shrink.kinds import kind_of

INNER = "inner"  # where the module that is traced lies inside its wrapper


class _Wrapped(nn.Module):
    """A module whose only argument is a list of tensors.

    So arguments that the user does not give keep their defaults: to fx they would be unknown
    values, and ``if mask is not None`` would take the wrong way.
    """

    def __init__(self, inner: nn.Module, call: Call) -> None:
        super().__init__()
        self.inner = inner
        self._call = call

    def forward(self, given: Any) -> Any:
        one = self._call.filled(given)
        return self.inner(*one.args, **one.kwargs)


class _Tracer(fx.Tracer):
    """Stops at the modules whose units can be cut."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See ``torch.fx.Tracer``."""
        known = kind_of(m) is not None or type(m) is NodeScale
        return known or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """What fx found.

    Attributes:
        root: The module inside its wrapper, which has the list of tensors as its argument.
        graph: Every operation.
    """

    root: nn.Module
    graph: fx.Graph


def traced(module: nn.Module, call: Call) -> list[Traced]:
    """Its graph in evaluation mode, and that in training mode where it is another one.

    Raises:
        Exception: Whatever fx or the module raises where it cannot be traced.
    """
    found: list[Traced] = []
    with at_rest(module):
        for mode in (False, True):
            module.train(mode)
            wrapped = _Wrapped(module, call.fresh())
            graph = _Tracer().trace(wrapped)
            if all(_said(graph) != _said(other.graph) for other in found):
                found.append(Traced(root=wrapped, graph=graph))
    return found


def path_in(target: object, prefix: str) -> str:
    """The path in the model of what a node calls in the module at ``prefix``."""
    own = str(target).removeprefix(INNER).removeprefix(".")
    return ".".join(part for part in (prefix, own) if part)


def _said(graph: fx.Graph) -> list[str]:
    return [f"{node.op} {node.target} {node.args} {node.kwargs}" for node in graph.nodes]
