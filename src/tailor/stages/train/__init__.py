"""Training as a generator: the body of the caller's loop is the callback.

::

    loop                        train: what takes part, and the order of a step
    settings                    its arguments, and what of them makes no sense
    batches, chance             what goes in: examples, and random numbers
    step                        forward, backward, a look at the numbers, the move
    precision, processes        autocast; DDP and fully_shard
    checkpoint, sharded         a run that was killed goes on
    tails, monitor, stopping    spectra of the layers on the way, and rules that end it
"""

from tailor.stages.train.batches import Batches, batches
from tailor.stages.train.checkpoint import Checkpoint
from tailor.stages.train.loop import train
from tailor.stages.train.monitor import Monitor
from tailor.stages.train.precision import Precision
from tailor.stages.train.settings import Noise
from tailor.stages.train.step import Loss, Step
from tailor.stages.train.stopping import Patience, SpectrumSettles, StopRule
from tailor.stages.train.tails import LayerTail

__all__ = [
    "train",
    "Step",
    "LayerTail",
    "Loss",
    "Noise",
    "Precision",
    "batches",
    "Batches",
    "Checkpoint",
    "Monitor",
    "StopRule",
    "Patience",
    "SpectrumSettles",
]
