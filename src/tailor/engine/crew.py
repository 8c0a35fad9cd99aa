"""Worker processes on this machine, seen from their parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import spawn
from threading import Lock
from types import TracebackType
from typing import BinaryIO, cast

from tailor.engine.answer import unpack
from tailor.engine.child import dumps, receive, send
from tailor.engine.interface import ONE_THREAD, Result, Task
from tailor.errors import UsageError

_INSIDE = "TAILOR_WORKER"  # stands in the environment of workers

# Not multiprocessing.Process, which cannot give a child an environment of its own, and which
# imports the program of the parent into every child. Ctrl-C is for the parent, which ends the
# others.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {path!r}
from tailor.engine.child import serve
serve({main!r})
"""


class Lost(Exception):
    """A worker process died while it held a task; the message says how."""


class Crew:
    """A fixed number of worker processes, each with one task at a time.

    Every process is served by one thread of this process, which waits for it. So a process that
    dies takes exactly one known task with it, and only that process has to be replaced.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="tailor")
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []
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

    def _hire(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise Lost("no work is taken on any more")
            while self._idle:
                worker = self._idle.pop()
                if worker.lives():
                    return worker
            worker = _Worker()
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


class _Worker:
    """One process."""

    def __init__(self) -> None:
        if _INSIDE in os.environ:
            raise UsageError(
                "a worker process was asked to start workers; guard the last lines of your "
                'script with `if __name__ == "__main__":`'
            )
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=[*map(str, sys.path)], main=_main())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD | {_INSIDE: "1"},
        )
        self._to = cast(BinaryIO, self._process.stdin)
        self._from = cast(BinaryIO, self._process.stdout)

    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, message: bytes) -> bytes:
        """The answer to one message.

        Raises:
            Lost: The process died.
        """
        try:
            send(self._to, message)
            return receive(self._from)
        except (EOFError, OSError):
            self.close()
            raise Lost(_how(self._process.returncode)) from None

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Kill the process if it lives, and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        self._from.close()
        with suppress(OSError):  # a message was still on its way
            self._to.close()


def _main() -> dict[str, str]:
    """Where the program that runs here can be imported from."""
    found = spawn.get_preparation_data("")
    return {key: str(found[key]) for key in found if key.startswith("init_main_from_")}


def _how(code: int) -> str:
    """What an exit code says."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
