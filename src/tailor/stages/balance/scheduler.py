"""The scheduler itself: when factors are taken, and how they act in the optimizer's step."""

import functools
import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tailor.errors import UsageError
from tailor.numerics.powerlaw import HillMid
from tailor.stages.balance.factors import ASSIGNMENTS, Assignment, assign
from tailor.stages.balance.groups import WHO, Patterns, chosen, places_of
from tailor.stages.exponents import SpectrumFit, exponent
from tailor.stages.targets import Target, whole
from tailor.weights.views import Taps, View

BALANCED = "_tailor_balanced"  # on an optimizer: some TempBalance acts on it


class TempBalance(LRScheduler):
    """Multiplies the learning rate of each layer by a factor from its tail exponent.

    Call ``step()`` where you call that of your schedule, in any order. The factor acts inside
    ``optimizer.step()`` and its hooks: before and after it ``group["lr"]`` is the schedule's.
    So no scheduler can undo the factor or count it twice, whether it multiplies the last rate
    (``CosineAnnealingLR``) or sets a new one (``LambdaLR``, ``OneCycleLR``, ``SequentialLR`` at
    a milestone). ``get_last_lr()`` gives the rates with the factors.

    The first factors are those of the weights at construction. Layers that the fit refuses (too
    few eigenvalues, NaN) keep 1; so do all while fewer than two exponents differ. The linear
    map reaches ``low`` and ``high`` at every update however little the exponents differ, and
    the mean factor is not 1: tune the learning rate with and without it before you compare.

    Every process has to call ``step``: sharded weights are gathered, one layer at a time, and
    the exponents of the first process hold for all.

    Args:
        optimizer: Each balanced matrix has a group of its own there, as ``layer_groups`` makes
            them. Parameters that are not balanced may lie in such a group, too, and follow.
        model: The network, wrapped or not.
        spectrum: Fit of the eigenvalues, ``HillMid()`` by default, or of the matrices, such as
            ``FARMS()``, which makes layers of different shape comparable.
        low: Factor of the layer with the least exponent (0.5; Zhou et al.). With ``low`` above
            ``high`` the order is reversed.
        high: Factor of the layer with the largest (1.5; Zhou et al.).
        mapping: ``"linear"``, the formula above; or ``"sqrt"`` and ``"log"``, the authors'
            ``tb_sqrt`` and ``tb_log2``: root or logarithm of alpha over its mean, without
            ``low`` and ``high``.
        every: Calls of ``step`` from one update of the factors to the next.
        layers: Patterns of names (``"*"`` for all matrices). None: without embeddings, the first
            convolution and the last matrix, as the authors do for their networks.
        skip: Patterns of names to leave out all the same.
        view: How a tensor becomes matrices; ``Taps()``, the authors' way, by default. The
            exponents of several parts are averaged.
        device: Where eigenvalues are computed; None: where the weight is.
        last_epoch: As in PyTorch.

    Attributes:
        factors: Factor of each matrix by name.
        exponents: Density exponent alpha of each that has one.
        refusals: Why the others have none.

    Raises:
        UsageError: A setting is out of range, two matrices share a group or one has none, another
            TempBalance acts on this optimizer, or a parameter cannot be balanced (``targets``).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        *,
        spectrum: SpectrumFit | None = None,
        low: float = 0.5,
        high: float = 1.5,
        mapping: Assignment = "linear",
        every: int = 1,
        layers: Patterns | None = None,
        skip: Patterns = (),
        view: View | None = None,
        device: str | torch.device | None = None,
        last_epoch: int = -1,
    ) -> None:
        _check(optimizer, low, high, mapping, every)
        self.spectrum = HillMid() if spectrum is None else spectrum
        self.low, self.high, self.mapping, self.every = low, high, mapping, every
        self.view = Taps() if view is None else view
        self.device = device
        self.factors: dict[str, float] = {}
        self.exponents: dict[str, float] = {}
        self.refusals: dict[str, str] = {}
        self._targets = chosen(model, layers, skip)
        self._places = places_of(optimizer, self._targets)
        super().__init__(optimizer, last_epoch)
        _act(optimizer, self._places, self.factors)
        setattr(optimizer, BALANCED, True)

    def step(self, epoch: int | None = None) -> None:
        """Count one step, and update the factors if it is time."""
        super().step(epoch)
        if self.last_epoch % self.every == 0 or not self.factors:
            self.update()

    def update(self) -> None:
        """New exponents and factors from the weights as they are now."""
        found = _agreed({one.name: self._exponent(one) for one in self._targets})
        self.exponents = {name: one for name, one in found.items() if isinstance(one, float)}
        self.refusals = {name: one for name, one in found.items() if isinstance(one, str)}
        given = assign(self.exponents, low=self.low, high=self.high, mapping=self.mapping)
        self.factors.update({name: given.get(name, 1.0) for name in found})

    def get_lr(self) -> list[float | Tensor]:
        """The plain rates, since the factors act in ``optimizer.step()`` alone."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]

    def get_last_lr(self) -> list[float | Tensor]:
        """The rate with which each group takes its next step."""
        rates = self.get_lr()
        for name, place in self._places.items():
            rates[place] = rates[place] * self.factors[name]
        return rates

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on exactly: numbers and text alone."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "factors": dict(self.factors),
            "exponents": dict(self.exponents),
            "refusals": dict(self.refusals),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, before or after the optimizer's own is loaded.

        Raises:
            UsageError: The state speaks of other layers.
        """
        if set(state_dict["factors"]) != set(self._places):
            other = sorted(set(state_dict["factors"]) ^ set(self._places))
            raise UsageError(
                f"the state of {WHO} is for other layers ({other[0]} is on one side only); "
                "use the model, layers and skip with which it was saved"
            )
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        self.exponents, self.refusals = dict(state_dict["exponents"]), dict(state_dict["refusals"])
        self.factors.update(state_dict["factors"])

    def remove(self) -> None:
        """Let go of the optimizer; from now on every rate is the plain one."""
        if self._places:
            self._places.clear()
            delattr(self.optimizer, BALANCED)

    def _exponent(self, target: Target) -> float | str:
        weight = whole(target.parameter)
        device = weight.device if self.device is None else self.device
        return exponent(target.name, weight, view=self.view, fit=self.spectrum, device=device)


def _check(optimizer: Optimizer, low: float, high: float, mapping: str, every: int) -> None:
    if getattr(optimizer, BALANCED, False):
        raise UsageError(
            f"another {WHO} acts on this optimizer, and their factors would multiply; "
            "call remove() of the other first"
        )
    if not (0 < low < math.inf and 0 < high < math.inf):
        raise UsageError(f"low and high must be positive factors, but are {low} and {high}")
    if mapping not in ASSIGNMENTS:
        raise UsageError(f"mapping must be one of {', '.join(ASSIGNMENTS)}, but is {mapping!r}")
    if every < 1:
        raise UsageError(f"every must be at least 1 step, but is {every}")


def _act(optimizer: Optimizer, places: dict[str, int], factors: dict[str, float]) -> None:
    """Put factors on the rates for the time of each step, which its hooks are a part of.

    The two dictionaries are shared with the scheduler, which changes them in place. Neither it
    nor the optimizer is held here, so both are freed as soon as nobody uses them.
    """
    inner, owner = optimizer.step, weakref.ref(optimizer)

    @functools.wraps(inner)  # with the mark by which PyTorch knows that it has wrapped it before
    def step(*args: Any, **kwargs: Any) -> Any:
        groups = getattr(owner(), "param_groups", [])
        plain = {place: groups[place]["lr"] for place in places.values()}
        for name, place in places.items():
            groups[place]["lr"] = plain[place] * factors[name]
        try:
            return inner(*args, **kwargs)
        finally:
            for place, lr in plain.items():
                groups[place]["lr"] = lr

    optimizer.step = step  # type: ignore[method-assign]


def _agreed(found: dict[str, float | str]) -> dict[str, float | str]:
    """What the first process found: eigenvalues may differ in the last digits between GPUs."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return found
    box = [found]
    dist.broadcast_object_list(box, src=0)
    if box[0].keys() != found.keys():
        raise UsageError(
            f"the first process balances other layers than process {dist.get_rank()}; "
            f"{WHO} needs the same model in every process"
        )
    return box[0]
