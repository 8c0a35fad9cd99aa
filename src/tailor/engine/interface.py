"""What every engine promises, and what all of them need."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tailor.errors import EngineError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Workers share the cores, so each gets one thread for its linear algebra. The libraries read
# these when they are loaded, so they have to be set before a worker starts.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}


class Engine(ABC):
    """Maps a function over independent tasks of unequal cost."""

    @abstractmethod
    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], costs: Sequence[float]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(i, function(tasks[i]))`` for each task, as the results arrive.

        The order of arrival is open: merge by index. Whatever has arrived is final, so it can
        be written down at once. Closing the iterator, and any exception, ends the work that is
        under way.

        Args:
            function: A pure function; picklable when the engine leaves this process. A task
                whose worker dies is run again, so it may run more than once.
            tasks: Independent tasks. An engine that leaves this process copies only as many
                as its workers can hold.
            costs: Relative cost of each task; dear ones are started first.

        Raises:
            UsageError: There is not one cost for each task, or a task cannot be pickled.
            EngineError: A task lost its worker again and again, or workers cannot be had.
            Exception: Whatever ``function`` raises comes out as it is; it is not tried again.
        """


def dear_first(tasks: Sequence[object], costs: Sequence[float]) -> list[int]:
    """Indices of the tasks, dearest first: the last ones to run are then short.

    Raises:
        UsageError: There is not one cost for each task.
    """
    if len(tasks) != len(costs):
        raise UsageError(f"each task needs one cost, but {len(tasks)} came with {len(costs)} costs")
    return sorted(range(len(tasks)), key=lambda i: -costs[i])


def lost_for_good(index: int, task: object, times: int, how: str) -> EngineError:
    """The error for a task that its workers do not survive."""
    return EngineError(
        f"the worker that held task {index} died {times} times ({how}): {repr(task)[:160]}; "
        "if memory ran out, use fewer workers or a machine with more of it"
    )
