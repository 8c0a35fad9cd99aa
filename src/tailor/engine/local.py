"""This machine: in this process, or in a few others."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from tailor.engine.crew import Crew
from tailor.engine.interface import Engine, Result, Task, dear_first, lost_for_good
from tailor.engine.worker import Lost
from tailor.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(Engine):
    """This machine.

    A worker process that is killed, for instance because memory ran out, costs only the task
    that it held. That task is run again at the end, alone, so that nothing but its own need for
    memory can end it again.

    Attributes:
        workers: 1 runs in this process, in the order of the tasks; more use that many
            processes with one linear-algebra thread each.
        retries: How often a task is run again after its worker died.
    """

    workers: int = 1
    retries: int = 2

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, but is {self.workers}")
        if self.retries < 0:
            raise UsageError(f"retries must be at least 0, but is {self.retries}")

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], costs: Sequence[float]
    ) -> Iterator[tuple[int, Result]]:
        """See ``Engine.map``."""
        order = dear_first(tasks, costs)
        if self.workers == 1 or len(tasks) < 2:
            for i, task in enumerate(tasks):
                yield i, function(task)
            return
        with Crew(min(self.workers, len(tasks))) as crew:
            yield from _arrivals(crew, function, tasks, order, self.retries)


def _arrivals(
    crew: Crew,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    order: list[int],
    retries: int,
) -> Iterator[tuple[int, Result]]:
    waiting = deque(order)
    losses: Counter[int] = Counter()
    running: dict[Future[Result], int] = {}
    while waiting or running:
        # One task beyond those at work is ready for each worker while the caller is busy. Lost
        # tasks stand behind all others, and go one by one.
        while waiting and len(running) < (1 if losses[waiting[0]] else 2 * crew.size):
            i = waiting.popleft()
            running[crew.submit(function, tasks[i])] = i
        done = wait(running, return_when=FIRST_COMPLETED).done
        for future in sorted(done, key=_failed):
            i = running.pop(future)
            if isinstance(future.exception(), Lost):
                losses[i] += 1
                if losses[i] > retries:
                    raise lost_for_good(i, tasks[i], losses[i], str(future.exception()))
                waiting.append(i)
            else:
                yield i, future.result()


def _failed(future: Future[Result]) -> bool:
    return future.exception() is not None  # what succeeded is handed over before an error
