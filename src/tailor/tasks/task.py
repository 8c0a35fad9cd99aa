"""A task: how to build a network, which data it is for, and how its errors are counted."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from tailor.tasks.data import Data, ErrorCount, zero_one

Builder = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What a certificate is about.

    Attributes:
        name: For people; a task of your own is named ``module:name``.
        build: Makes the network with fresh weights; only names, types and shapes matter.
        train: The sample that the certificate counts errors on.
        test: Held-out examples, shown for information; None if there are none.
        error: Which examples count as errors.
    """

    name: str
    build: Builder = field(repr=False)
    train: Callable[[], Data] = field(repr=False)
    test: Callable[[], Data | None] = field(repr=False, default=lambda: None)
    error: ErrorCount = field(repr=False, default=zero_one)
