"""A network as a chain of matrices and kernels with ReLUs between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from tailor.errors import UsageError
from tailor.stages.modules import check_finite, copied, replaced
from tailor.tasks import Data, Frozen

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ACTIVATIONS: tuple[object, ...] = (nn.ReLU, functional.relu, torch.relu, "relu")
POOLS: tuple[object, ...] = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(
        functional.max_pool1d,
        functional.max_pool2d,
        functional.avg_pool1d,
        functional.avg_pool2d,
        functional.adaptive_avg_pool2d,
    ),
)
SHAPES: tuple[object, ...] = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d),
    *(torch.flatten, "flatten", "view", "reshape", "contiguous"),
)
AT_ONCE = 1 << 19  # numbers of float64 in one tensor: 4 MiB; more is not faster

Operation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """One layer with what happens to the values before it.

    With x^i for what layer i gives before its ReLU, as in Arora et al. (2018):
    x^i = A^i u + b with u made of x^(i-1) by a ReLU, pooling and reshaping.

    Attributes:
        name: Of the layer in the network.
        module: An ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d`` in float64.
        before: Operations between the layer before and this one.
        activated: Whether one of them is a ReLU.
        pools: Those of them that pool.
    """

    name: str
    module: Any
    before: tuple[Operation, ...]
    activated: bool
    pools: tuple[Any, ...]

    def enter(self, x: Tensor) -> Tensor:
        """What the layer is multiplied with, of what the layer before gave."""
        for operation in self.before:
            x = operation(x)
        return x

    def linear(self, u: Tensor, weight: Tensor | None = None) -> Tensor:
        """A u, without the bias; of another matrix or kernel if one is given."""
        W = self.module.weight if weight is None else weight
        if isinstance(self.module, nn.Linear):
            return functional.linear(u, W)
        out: Tensor = self.module._conv_forward(u, W, None)
        return out

    def shifted(self, x: Tensor) -> Tensor:
        """With the bias, if there is one."""
        b = self.module.bias
        if b is None:
            return x
        line = isinstance(self.module, nn.Linear)
        out: Tensor = x + (b if line else b.reshape(-1, *[1] * (x.ndim - 2)))
        return out

    def follow(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """From x^(i-1) to x^i."""
        return self.shifted(self.linear(self.enter(x), weight))


Chain = tuple[Link, ...]


def chain_of(model: nn.Module, *, who: str) -> Chain:
    """Read a network as a chain; it is copied, in float64, on the CPU and in evaluation mode.

    Raises:
        UsageError: It cannot be traced by torch.fx, it branches, or an operation is none of
            linear, convolution, ReLU, pooling, dropout and reshaping.
        NonFinite: A weight holds NaN or infinite values.
    """
    model = _thawed(copied(model, who=who)).to(device="cpu", dtype=torch.float64).eval()
    for part in model.modules():
        if "inplace" in vars(part):
            vars(part)["inplace"] = False  # what goes into a ReLU is measured, so it must survive
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(f"{who} follows a network by torch.fx, which failed: {said}") from error
    links: list[Link] = []
    gap: list[_Step] = []
    for step in _steps(model, graph, who):
        if step.kind == "layer":
            links.append(_link(step, gap))
            gap = []
        else:
            gap.append(step)
    if not links:
        raise UsageError(f"{who} found no linear or convolutional layer in {type(model).__name__}")
    if any(step.kind != "shape" for step in gap):
        raise UsageError(
            f"{who} needs a network that ends with its class scores, but after {links[-1].name} "
            f"comes {gap[-1].said}; leave it out"
        )
    return tuple(links)


@torch.no_grad()
def outputs(chain: Chain, x: Tensor) -> list[Tensor]:
    """x^1, ..., x^d of some inputs, without gradients."""
    found: list[Tensor] = []
    for link in chain:
        x = link.follow(x)
        found.append(x)
    return found


def onward(chain: Chain, i: int, x: Tensor) -> tuple[Tensor, ...]:
    """x^j for all later layers j, of what layer i gives."""
    found: list[Tensor] = []
    for link in chain[i + 1 :]:
        x = link.follow(x)
        found.append(x)
    return tuple(found)


def tangents(
    chain: Chain, i: int, x: Tensor, direction: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """x^j and J^{i,j} direction for all later layers j, differentiated at x^i.

    J v is the derivative of J' u along v by u, so two backward passes give it.
    """
    values: list[Tensor] = []
    slopes: list[Tensor] = []
    with torch.enable_grad():
        here = x.detach().requires_grad_()
        for value in onward(chain, i, here):
            u = torch.zeros_like(value, requires_grad=True)
            (back,) = torch.autograd.grad(value, here, u, create_graph=True)
            slopes += torch.autograd.grad(back, u, direction)
            values.append(value.detach())
    return tuple(values), tuple(slopes)


def pieces(chain: Chain, data: Data) -> Iterator[Float[Tensor, "k *features"]]:
    """The inputs in float64, so many at a time that no layer's values become large.

    Raises:
        UsageError: There are no examples, an input is not finite, or the network cannot be run.
    """
    if len(data) == 0:
        raise UsageError("there are no examples to measure on")
    if not bool(torch.isfinite(data.x).all()):
        raise UsageError("the inputs hold NaN or infinite values; mend the data")
    try:
        first = outputs(chain, data.x[:1].double())
    except Exception as error:  # a user's data can fit in many ways or none
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(f"the network cannot be run on the data: {said}") from error
    odd = [link.name for link, x in zip(chain, first, strict=True) if x.ndim != _axes(link)]
    if odd:
        raise UsageError(f"{odd[0]} does not give one vector or image for each example")
    size = max(one.numel() for one in (data.x[:1], *first))
    for part in torch.split(data.x, max(1, min(512, AT_ONCE // (16 * size)))):
        yield part.detach().cpu().double()


def norms(x: Tensor) -> Float[Tensor, "n"]:
    """Euclidean norm of each example's values."""
    size: Tensor = x.flatten(1).norm(dim=1)
    return size


# Reading the graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    kind: str  # layer, relu, pool or shape
    said: str
    run: Operation
    module: Any


def _thawed(model: nn.Module) -> nn.Module:
    """With what is inside declared parts in their places."""
    for path, part in [*model.named_modules()]:
        if isinstance(part, Frozen):
            model = replaced(model, path, part.part)
    return model


def _link(step: _Step, gap: list[_Step]) -> Link:
    check_finite(step.said, step.module.weight)
    step.module.requires_grad_(False)
    return Link(
        name=step.said,
        module=step.module,
        before=tuple(one.run for one in gap),
        activated=any(one.kind == "relu" for one in gap),
        pools=tuple(one.module for one in gap if one.kind == "pool"),
    )


def _steps(model: nn.Module, graph: fx.Graph, who: str) -> Iterator[_Step]:
    """The operations in their order, each on what the one before gave."""
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder" and last is None:
            last = node
            continue
        if last is None or node.all_input_nodes != [last]:
            raise UsageError(
                f"{who} needs a network in which each operation takes what the one before gave, "
                f"but {node.name} does not"
            )
        if node.op == "output":
            if node.args[0] is not last:
                raise UsageError(f"{who} needs a network that returns its class scores alone")
            return
        yield _step(model, node, who)
        last = node


def _step(model: nn.Module, node: fx.Node, who: str) -> _Step:
    module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    kind = _kind(module, node)
    if kind is None:
        said = node.target if module is None else f"{node.target}, a {type(module).__name__},"
        fold = isinstance(module, nn.modules.batchnorm._BatchNorm)
        raise UsageError(
            f"{who} knows linear and convolutional layers, ReLU, pooling, dropout and reshaping, "
            f"but {said} is none of these"
            + ("; fold it with torch.nn.utils.fuse_conv_bn_eval" if fold else "")
        )
    return _Step(kind=kind, said=str(node.target), run=_runner(module, node), module=module)


def _kind(module: Any, node: fx.Node) -> str | None:
    key = node.target if module is None else type(module)
    if key in LAYERS:
        return "layer" if getattr(module, "padding_mode", "zeros") == "zeros" else None
    for kind, known in (("relu", ACTIVATIONS), ("pool", POOLS), ("shape", SHAPES)):
        if any(key is one or (isinstance(one, str) and key == one) for one in known):
            return kind
    return None


def _runner(module: Any, node: fx.Node) -> Operation:
    def run(x: Tensor) -> Any:
        args = map_arg(node.args, lambda _: x)
        kwargs: Any = {**map_arg(node.kwargs, lambda _: x)}
        if "inplace" in kwargs:
            kwargs["inplace"] = False
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    return run


def _axes(link: Link) -> int:
    return {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4}[type(link.module)]
