"""Worker processes on this machine, seen from their parent."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import cast

from tailor.engine.answer import unpack
from tailor.engine.child import dumps
from tailor.engine.interface import Result, Task
from tailor.engine.worker import Forked, Lost, Started, Worker, can_fork
from tailor.errors import UsageError


class Crew:
    """A fixed number of worker processes, each with one task at a time.

    Every process is served by one thread of this process, which waits for it. So a process that
    dies takes exactly one known task with it, and only that process has to be replaced. The
    first ones are copies of this process where that is safe, their replacements are started
    afresh.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        copies: list[Forked] = []
        while can_fork() and len(copies) < size:  # before this process has threads of its own
            copies.append(Forked(copies))
        self._workers: list[Worker] = [*copies]
        self._idle: list[Worker] = [*copies]
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="tailor")
        self._closed = False
        self._lock = Lock()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every process at once, busy or not."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Run ``function(task)`` as soon as a worker is free; the task is copied only then.

        The future raises what the function raises, or ``Lost`` when the worker dies.
        """
        return self._threads.submit(self._run, function, task)

    def _run(self, function: Callable[[Task], Result], task: Task) -> Result:
        message = _pickle(function, task)
        worker = self._hire()
        answer = worker.ask(message)
        with self._lock:
            self._idle.append(worker)
        return cast(Result, unpack(answer))

    def _hire(self) -> Worker:
        with self._lock:
            if self._closed:
                raise Lost("no work is taken on any more")
            while self._idle:
                worker = self._idle.pop()
                if worker.code() is None:
                    return worker
            worker = Started()
            self._workers.append(worker)
            return worker


def _pickle(function: Callable[[Task], Result], task: Task) -> bytes:
    try:
        return dumps((function, task))
    except Exception as error:  # pickle raises whatever the object raises
        raise UsageError(
            f"a task cannot be sent to another process ({error}); use one worker, or define "
            "what it holds at the top level of a module"
        ) from error
