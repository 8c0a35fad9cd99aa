"""Where independent tasks run: results always come back in the order of the tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import torch

from tailor.errors import UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(ABC):
    """Maps a function over independent tasks of unequal cost."""

    @abstractmethod
    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], costs: Sequence[float]
    ) -> Iterator[Result]:
        """Yield ``function(task)`` for each task, in the order of ``tasks``.

        Args:
            function: A pure function; picklable when the engine leaves this process.
            tasks: Independent tasks.
            costs: Relative cost of each task; dear ones are started first.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(Engine):
    """This machine.

    Attributes:
        workers: 1 runs in this process; more use that many processes with one
            linear-algebra thread each.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, but is {self.workers}")

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], costs: Sequence[float]
    ) -> Iterator[Result]:
        """See ``Engine.map``; a task is started at most once."""
        if self.workers == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        longest_first = sorted(range(len(tasks)), key=lambda i: -costs[i])
        with ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_one_thread
        ) as pool:
            futures: dict[int, Future[Result]] = {
                i: pool.submit(function, tasks[i]) for i in longest_first
            }
            try:
                for i in range(len(tasks)):
                    yield futures.pop(i).result()
            finally:  # after a failure, what has not begun need not begin
                pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
