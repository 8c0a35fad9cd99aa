"""What a kind of certificate is: a theorem, and what it needs to be applied."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from tailor.stages.compress import CompressedModel
from tailor.tasks import Data, ErrorCount


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """What a method is given; everything in it has been checked.

    Attributes:
        small: The file.
        model: What it decodes to: float64, on the CPU, in evaluation mode.
        build: Makes the network with fresh weights.
        data: The examples that the claim is about, in their order.
        error: Which examples count as errors.
        delta: Probability with which this bound may fail, all of it.
        choices: Among how many alternatives anything outside the file was chosen.
    """

    small: CompressedModel
    model: nn.Module
    build: Callable[[], nn.Module]
    data: Data
    error: ErrorCount
    delta: float
    choices: int


@runtime_checkable
class Evidence(Protocol):
    """A frozen record of every number that a bound was computed from."""

    @property
    def n(self) -> int:
        """Number of examples that the theorem counts."""

    @property
    def errors(self) -> int:
        """Errors among them."""

    @property
    def risk_bound(self) -> float:
        """The bound, rounded up."""


class Method(ABC):
    """A kind of certificate. Its fields are everything that has to be fixed before the data.

    Attributes:
        kind: Its name in a certificate; ``tailor.verifier`` has its words and its recount.
    """

    kind: ClassVar[str]

    @abstractmethod
    def prove(self, case: Case) -> Evidence:
        """Apply the theorem."""

    def guess(self, case: Case) -> float:
        """Risk of the best constant guess, which a bound has to beat."""
        return case.data.majority_error()
