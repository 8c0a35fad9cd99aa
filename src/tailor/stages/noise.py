"""``StableNoise``: heavy-tailed noise on the weights after each step of the optimizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from tailor.errors import UsageError
from tailor.numerics.stable.draw import block_size
from tailor.numerics.stable.keyed import Kind as Law
from tailor.numerics.stable.keyed import keyed_rows
from tailor.stages.acting import group_of, groups_of, unless_skipped
from tailor.stages.schedule import Constant, Schedule
from tailor.stages.targets import Target, ends, patterns, rows, targets

Kind = Literal["rotation", "iid", "shared", "gaussian"]
LAWS: dict[Kind, Law] = {
    "rotation": "rotation",
    "iid": "iid",
    "shared": "shared",
    "gaussian": "iid",
}
LARGEST = 1e140  # noise, in float64; a double holds the sum of many squares of it
WHO = "StableNoise"
Factor: TypeAlias = float | Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StableNoise:
    """W <- W + scale x schedule x lr^(1/alpha) x alpha-stable noise, after the optimizer's step.

    Wan et al. (2024), equation 2 and section 3. A row (first axis) is one neuron or filter. All
    kinds have the characteristic function exp(-|u|^alpha), so that ``scale`` means the same in
    each, also at ``alpha`` 2, where the variance is 2. The noise is a function of the seed, the
    step, the weight's name, the row and the column: it depends on no random state, and is the
    same however the weights are spread over processes.

    The noise makes the norms of neurons heavy-tailed, so that more of them can be removed at a
    given error of the weights. It did not make accuracy under matched pruning better: on MNIST
    the network without noise kept more at every ratio. ``GroupLasso`` and ``NodeScale`` do what
    this promises. A step costs about 10 ns a weight.

    Attributes:
        alpha: Tail index, in (0, 2]. (Elsewhere alpha is a density exponent, larger by one.)
        scale: Size of the noise.
        kind: "rotation": independent rows, each pointing anywhere, the kind that costs least
            accuracy. "iid": independent entries. "shared": one value added to all of a row.
            "gaussian": independent normal entries; needs ``alpha`` 2.
        layers: Patterns of the names of weights.
        skip: Patterns of names to leave out all the same.
        targets: "hidden" leaves out embeddings, the first convolution and the last matrix.
        schedule: Factor for each step, counted from 0.
        lr_power: Power of the learning rate, that of the weight's parameter group; None for
            1/alpha, which keeps the noise of a stretch of training time the same whatever the
            rate is. That holds for plain SGD. 0 leaves the rate out.
        clip: Largest norm of a row's noise over that of the row's weights; None for no limit.
            With a limit the noise is no longer heavy-tailed.
        seed: Of the noise.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> injector = StableNoise(alpha=1.8, scale=1e-4).attach(model, optimizer)
        >>> injector.names
        ('0.weight',)
    """

    alpha: float
    scale: float
    kind: Kind = "rotation"
    layers: str | Sequence[str] = "*"
    skip: str | Sequence[str] = ()
    targets: Literal["hidden", "all"] = "hidden"
    schedule: Schedule = field(default_factory=Constant)
    lr_power: float | None = None
    clip: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 2 or not 0 <= self.scale < math.inf:
            raise UsageError(
                f"{WHO} needs a tail index alpha in (0, 2] and a scale that is not negative, but "
                f"got {self.alpha} and {self.scale}"
            )
        if self.kind not in LAWS or self.targets not in ("hidden", "all"):
            raise UsageError(
                f"{WHO} has the kinds {', '.join(LAWS)} and the targets hidden and all, but got "
                f"{self.kind!r} and {self.targets!r}"
            )
        if self.kind == "gaussian" and self.alpha != 2:
            raise UsageError(f"gaussian noise has tail index 2, but alpha is {self.alpha}")
        if not 0 <= (self.lr_power or 0) < math.inf or not (self.clip is None or self.clip > 0):
            raise UsageError(
                f"{WHO} needs lr_power >= 0 and clip > 0, but got {self.lr_power} and {self.clip}"
            )

    def attach(self, model: nn.Module, optimizer: Optimizer) -> "Injector":
        """Add noise after each step of an optimizer, until the injector is removed.

        Attach after ``fully_shard`` and before training. A step that gradient scaling (AMP)
        skips gets no noise.

        Raises:
            UsageError: No weight fits; one that fits cannot be changed (frozen, computed by a
                parametrization, of half precision) or is not the optimizer's; a parameter group
                has no learning rate.
        """
        outer = ends(model) if self.targets == "hidden" else ()
        found = targets(model, self.layers, (*patterns(self.skip), *map(escape, outer)), who=WHO)
        groups = groups_of(optimizer)
        for one in found:
            why = f"to which {WHO} would add noise"
            group = group_of(one.name, one.parameter, groups, why=why)
            if self._power and "lr" not in group:
                raise UsageError(
                    f"the parameter group of {one.name} has no learning rate; use lr_power=0"
                )
        return Injector(self, found, optimizer)

    @property
    def _power(self) -> float:
        return 1 / self.alpha if self.lr_power is None else self.lr_power


class Injector:
    """Noise at work; made by ``StableNoise.attach``.

    Attributes:
        noise: The settings.
        names: The weights that it is added to.
        step: How many steps of the optimizer it has seen.
        enabled: Set to False for no noise; steps are counted all the same.
    """

    def __init__(self, noise: StableNoise, found: Sequence[Target], optimizer: Optimizer) -> None:
        self.noise, self.step, self.enabled = noise, 0, True
        self.names = tuple(one.name for one in found)
        self._found = tuple(found)
        self._handle = optimizer.register_step_post_hook(self._after)

    def remove(self) -> None:
        """No noise from now on."""
        self._handle.remove()

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs: the step and the seed."""
        return {"step": self.step, "seed": self.noise.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where ``state_dict`` was taken.

        Raises:
            UsageError: The state is not one of an injector, or has another seed.
        """
        if set(state) != {"step", "seed"}:
            raise UsageError(
                f"the state of an injector has step and seed, but this one has {sorted(state)}"
            )
        if state["seed"] != self.noise.seed:
            raise UsageError(
                f"the noise was drawn with seed {state['seed']} before, but {WHO} has seed "
                f"{self.noise.seed}; use the same one to resume"
            )
        self.step = state["step"]

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        strength = self.noise.scale * self.noise.schedule(self.step) if self.enabled else 0.0
        if strength:
            groups, power = groups_of(optimizer), self.noise._power
            for one in self._found:
                group = groups[id(one.parameter)]
                factor = strength * group["lr"] ** power if power else strength
                _add(self.noise, one, unless_skipped(optimizer, factor), self.step)
        self.step += 1


def _add(noise: StableNoise, target: Target, factor: Factor, step: int) -> None:
    """To the rows that this process holds, block by block."""
    held = rows(target.parameter)
    if held.local.numel() == 0 or (isinstance(factor, float) and factor == 0):
        return
    if isinstance(factor, Tensor):
        factor = factor.to(held.local.device, non_blocking=True)
    columns = held.local[0].numel()
    largest = min(torch.finfo(held.local.dtype).max / 2, LARGEST)
    first = held.first
    block = max(1, block_size(held.local.device) // columns)
    for part in torch.split(held.local, block):
        drawn = keyed_rows(
            LAWS[noise.kind],
            noise.alpha,
            (noise.seed, target.name, step),
            range(first, first + len(part)),
            columns,
            dtype=part.dtype,
            device=part.device,
        )
        drawn.mul_(factor).clamp_(-largest, largest)
        if noise.clip is not None:
            drawn.mul_(_shortening(drawn, part.flatten(1), noise.clip))
        shape = part.shape if drawn.shape[1] == columns else (-1, *(1 for _ in part.shape[1:]))
        part.add_(drawn.reshape(shape))
        first += len(part)


def _shortening(
    drawn: Float[Tensor, "rows _"], weights: Float[Tensor, "rows columns"], clip: float
) -> Float[Tensor, "rows 1"]:
    """Factor for each row that brings its noise down to ``clip`` times the weights' norm."""
    double = torch.float64  # squares of large noise fit into it
    repeated = math.sqrt(weights.shape[1] / drawn.shape[1])
    length = torch.linalg.vector_norm(drawn, dim=1, keepdim=True, dtype=double).mul_(repeated)
    limit = torch.linalg.vector_norm(weights, dim=1, keepdim=True, dtype=double).mul_(clip)
    factor: Tensor = limit / length.clamp_(min=torch.finfo(double).tiny)
    return factor.clamp_(max=1).to(drawn.dtype)
