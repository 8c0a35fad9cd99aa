"""What to train, how, and how long."""

from dataclasses import dataclass, field, fields

from tailor.shell.training.choices import SGD, Adam, AdamW, Balance, HeldOutPatience
from tailor.stages.noise import StableNoise
from tailor.stages.regularize import Penalty
from tailor.stages.schedule import Schedule
from tailor.stages.train import Precision, SpectrumSettles
from tailor.tasks import Data, Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Everything that decides about a run; most fields are those of ``tailor.train``.

    Attributes:
        task: What is trained for.
        data: Its training examples.
        held_out: Its held-out examples, or None.
        epochs: Times that every example is seen.
        batch: Examples in a batch; the last one of an epoch may have fewer.
        lr: Learning rate.
        optimizer: Its settings.
        schedule: Factor of the learning rate over the steps.
        penalties: Terms on the weights.
        decoupled: Penalties act in the optimizer's step.
        noise: Noise on the weights, or None.
        balance: A learning rate for each layer, or None.
        seed: Of weights, batches, dropout, and noise that has none of its own.
        precision: Of the forward pass.
        accumulate: Batches that make one step.
        clip_norm: Longest gradient, or None.
        compile: Whether ``torch.compile`` is used.
        device: Where the network is trained.
        checkpoint_every: Steps between two checkpoints; None for no checkpoint.
        monitor_every: Steps between two looks at the layers.
        stop: Rules that may end training early.
        settings: The same as text, by option.
    """

    task: Task
    data: Data
    held_out: Data | None
    epochs: int
    batch: int
    lr: float
    optimizer: Adam | AdamW | SGD
    schedule: Schedule
    penalties: tuple[Penalty, ...]
    decoupled: bool
    noise: StableNoise | None
    balance: Balance | None
    seed: int
    precision: Precision
    accumulate: int
    clip_norm: float | None
    compile: bool
    device: str
    checkpoint_every: int | None
    monitor_every: int
    stop: tuple[HeldOutPatience | SpectrumSettles, ...]
    settings: dict[str, str] = field(default_factory=dict)

    def epoch_ends(self) -> list[int]:
        """The step with which each epoch ends."""
        per_epoch = batches_of(self.data, self.batch)
        return [-(-epoch * per_epoch // self.accumulate) for epoch in range(1, self.epochs + 1)]

    def differences(self, other: "Plan") -> list[str]:
        """Names of the fields that make the other plan's run another one."""
        apart = []
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if one.name not in _SAME_RUN and repr(mine) != repr(theirs):
                apart.append(one.name)
        return apart


# Tensors, and what changes nothing about the weights.
_SAME_RUN = ("data", "held_out", "checkpoint_every", "settings")


def batches_of(data: Data, size: int) -> int:
    """Batches in an epoch."""
    return -(-len(data) // size)
