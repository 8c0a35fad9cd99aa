"""The errors of a network whose weights change one by one, counted on few examples first.

One weight moves one unit of its layer. What the layers gave before is kept, so a change is
followed through that unit alone, and joins the other units at the next layer.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d

from tailor.stages.units import HOMOGENEOUS
from tailor.tasks import Data
from tailor.tasks.data import blocks, lead, wrong_scores

MOST = 1 << 28  # numbers that are kept, 2 GiB in float64; beyond, each change is run from the input

Step: TypeAlias = Callable[[Tensor], Tensor]
Layer: TypeAlias = nn.Linear | nn.Conv2d


class Screen:
    """All examples, and of these the misclassified ones and the next to them.

    Attributes:
        wrong: Errors of the accepted network on all examples.
    """

    def __init__(self, model: nn.Module, data: Data, share: float) -> None:
        self.y, self.size = data.y, max(1, round(share * len(data)))
        self.parts = _parts(model)
        steps: list[Step] = list(model) if self.parts else [model]  # type: ignore[call-overload]
        with torch.no_grad():
            one = Kept.of(steps, data.x[:1])
            if len(data) * sum(output.numel() for output in one.outputs) > MOST:
                self.parts, steps = {}, [model]
            self.everything = Kept.of(steps, data.x)
        self._choose()

    def errors(self, name: str, index: int, change: float) -> int:
        """Errors on the screen alone, for weights of which one was just changed.

        Args:
            name: Of the only tensor that differs from the accepted network.
            index: Flat index of its only entry that differs.
            change: By how much it does.
        """
        return self._count(self.few, self.y[self.chosen], name, index, change)

    def recount(self, name: str, index: int, change: float) -> int:
        """The same on all examples."""
        return self._count(self.everything, self.y, name, index, change)

    def accept(self, name: str) -> None:
        """Take the weights as they are now; only the named tensor differs from those before."""
        with torch.no_grad():
            self.everything.refresh(self.parts.get(name, 0))
        self._choose()

    def _count(self, kept: "Kept", y: Tensor, name: str, index: int, change: float) -> int:
        with torch.no_grad():
            scores = kept.scores(self.parts.get(name, 0), index, change)
            return int(wrong_scores(scores, y).sum())

    def _choose(self) -> None:
        scores = self.everything.outputs[-1]
        wrong = wrong_scores(scores, self.y)
        self.wrong = int(wrong.sum())
        share = lead(scores, self.y) / scores.abs().amax(dim=1)  # of the largest score
        order = torch.where(wrong, -torch.inf, share)
        self.chosen = order.argsort(stable=True)[: max(self.size, self.wrong)]
        self.few = self.everything.at(self.chosen)


class Kept:
    """What each step of a network gave on some examples.

    Attributes:
        steps: The steps, one after the other.
        outputs: The inputs, and what each step made of them.
    """

    def __init__(self, steps: Sequence[Step], outputs: list[Tensor]) -> None:
        self.steps, self.outputs = steps, outputs

    @classmethod
    def of(cls, steps: Sequence[Step], x: Tensor) -> "Kept":
        """Run a network on examples."""
        kept = cls(steps, [x] * (len(steps) + 1))
        kept.refresh(0)
        return kept

    def at(self, chosen: Int[Tensor, "k"]) -> "Kept":
        """Some of the examples."""
        return Kept(self.steps, [x[chosen] for x in self.outputs])

    def refresh(self, part: int) -> None:
        """Run again from a step on whose weights were changed for good."""
        for i in range(part, len(self.steps)):
            self.outputs[i + 1] = torch.cat([self.steps[i](x) for x in blocks(self.outputs[i])])

    def scores(self, part: int, index: int, change: float) -> Float[Tensor, "n classes"]:
        """Scores after one weight of a step was changed; what is kept stays as it was."""
        layer = self.steps[part]
        if not _is_plain(layer, self.outputs[part]):
            return _run(self.steps[part:], self.outputs[part])
        unit, place = divmod(index, layer.weight[0].numel())
        moved = self.outputs[part + 1][:, unit, None]
        moved = moved + _moved(layer, self.outputs[part], place, change)
        follow = part + 1
        while follow < len(self.steps) and _keeps_units(self.steps[follow]):
            moved = self.steps[follow](moved)
            follow += 1
        width = moved.shape[1]  # columns of the unit, after flattening
        mine = slice(unit * width, (unit + 1) * width)
        before = self.outputs[follow]
        following = self.steps[follow] if follow < len(self.steps) else None
        if _is_plain(following, before):
            more = _joined(following, moved - before[:, mine], mine)
            joined = self.outputs[follow + 1] + more
            return _run(self.steps[follow + 1 :], joined)
        joined = before.clone()
        joined[:, mine] = moved
        return _run(self.steps[follow:], joined)


def _moved(layer: Layer, x: Tensor, place: int, change: float) -> Tensor:
    """What a changed weight adds to its unit."""
    if isinstance(layer, nn.Linear):
        return change * x[:, place, None]
    channel, tap = divmod(place, layer.weight[0, 0].numel())
    kernel = torch.zeros_like(layer.weight[:1, :1])
    kernel.view(-1)[tap] = change
    return _convolved(layer, x[:, channel, None], kernel)


def _joined(layer: Layer, change: Tensor, columns: slice) -> Tensor:
    """What a change of some of its inputs adds to a layer's output."""
    if isinstance(layer, nn.Linear):
        return change @ layer.weight[:, columns].T
    return _convolved(layer, change, layer.weight[:, columns])


def _convolved(layer: nn.Conv2d, x: Tensor, kernel: Tensor) -> Tensor:
    return conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation)


def _is_plain(step: object, x: Tensor) -> TypeGuard[Layer]:
    """Whether a change can be followed through the units of a step with such inputs."""
    if type(step) is nn.Linear:
        return x.ndim == 2 and not step._forward_hooks
    if type(step) is not nn.Conv2d or step._forward_hooks:
        return False
    return x.ndim == 4 and step.groups == 1 and step.padding_mode == "zeros"


def _keeps_units(step: Step) -> bool:
    """Whether a step treats each unit alike, and apart from the others."""
    if not isinstance(step, nn.Module) or step._forward_hooks or step._forward_pre_hooks:
        return False
    return type(step) in HOMOGENEOUS and getattr(step, "start_dim", 1) == 1


def _parts(model: nn.Module) -> dict[str, int]:
    """For each tensor of a plain container, the step that it belongs to."""
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return {}
    names = [name for name, _ in model.named_children()]
    if len(set(map(id, model))) < len(names):  # one step that comes twice
        return {}
    return {name: names.index(name.partition(".")[0]) for name in model.state_dict()}


def _run(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x
