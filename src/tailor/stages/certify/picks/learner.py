"""What learns from picked examples alone."""

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tailor.stages.compress import CompressedModel
from tailor.tasks import Data


class Learner(ABC):
    """A deterministic map from an ordered list of picked examples to a network in a file.

    The theorem asks for nothing else, but for that wholly: whatever a learner reads beyond the
    picks must have been fixed without the sample, and be told by ``digest``. Random numbers
    come from seeds of its own or from PyTorch's global generator, which is seeded before each
    call. Training goes on one thread.
    """

    @abstractmethod
    def start(self) -> nn.Module:
        """The network before any example is seen; its class scores order the first picks."""

    @abstractmethod
    def update(self, model: nn.Module, picked: Data, new: Data, round: int) -> nn.Module:
        """Learn from the picks so far; may change ``model`` and return it.

        Args:
            model: What the last call gave; it may carry further state as attributes.
            picked: All picks in their order, the new ones last.
            new: Those picked in this round.
            round: Counts from 1.
        """

    @abstractmethod
    def finish(self, model: nn.Module, picked: Data) -> CompressedModel:
        """Prune, quantise and code a network learnt from the picks; ``model`` stays as it is.

        Whatever this stage does with the picks is part of the learner, so the bound is one for
        the network in the file.
        """

    def digest(self) -> str:
        """SHA-256 of everything that the learner is: its class and the fields of a dataclass.

        A learner that keeps anything elsewhere has to tell it by a method of its own.
        """
        names: dict[str, object] = getattr(self, "__dataclass_fields__", {})
        told = [f"{name}={_told(getattr(self, name))}" for name in names]
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return hashlib.sha256(f"{name}({', '.join(told)})".encode()).hexdigest()


def _told(value: object) -> str:
    """A text without addresses in memory."""
    if isinstance(value, CompressedModel):
        return hashlib.sha256(value.payload).hexdigest()
    if isinstance(value, Data):
        return value.digest()
    if inspect.isroutine(value):
        return f"{value.__name__}: {_source(value)}"
    return repr(value)


def _source(function: object) -> str:
    try:
        return inspect.getsource(function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return "source unknown"


@contextmanager
def alone(*key: object) -> Iterator[None]:
    """One thread, and a global generator seeded by ``key``; both are put back afterwards."""
    threads = torch.get_num_threads()
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
    state = torch.get_rng_state()
    torch.set_num_threads(1)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed goes to every device, slowly
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
