"""One worker process, seen from its parent: started afresh, or forked from this process."""

import os
import signal
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from multiprocessing import spawn
from threading import Lock
from typing import BinaryIO, cast

import torch

from tailor.engine.child import receive, send, serve
from tailor.engine.interface import ONE_THREAD
from tailor.errors import UsageError

_INSIDE = "TAILOR_WORKER"  # stands in the environment of workers

# Not multiprocessing.Process, which cannot give a child an environment of its own, and which
# imports the program of the parent into every child. Ctrl-C is for the parent, which ends the
# others.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {path!r}
from tailor.engine.child import serve_standard_input
serve_standard_input({main!r})
"""


class Lost(Exception):
    """A worker process died while it held a task; the message says how."""


class Worker(ABC):
    """One process, with a pipe to it and one from it."""

    to: BinaryIO
    back: BinaryIO

    @abstractmethod
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it lives."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def wait(self) -> None:
        """Until it has ended."""

    def ask(self, message: bytes) -> bytes:
        """The answer to one message.

        Raises:
            Lost: The process died.
        """
        try:
            send(self.to, message)
            return receive(self.back)
        except (EOFError, OSError):
            self.close()
            raise Lost(_how(self.code() or 0)) from None

    def close(self) -> None:
        """Kill the process if it lives, and let go of its pipes."""
        self.kill()
        self.wait()
        self.back.close()
        with suppress(OSError):  # a message was still on its way
            self.to.close()


class Started(Worker):
    """A fresh interpreter: safe everywhere, and a second or more late for importing torch."""

    def __init__(self) -> None:
        _refuse_nesting()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=[*map(str, sys.path)], main=_main())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD | {_INSIDE: "1"},
        )
        self.to = cast(BinaryIO, self._process.stdin)
        self.back = cast(BinaryIO, self._process.stdout)

    def code(self) -> int | None:
        """See ``Worker.code``."""
        return self._process.poll()

    def kill(self) -> None:
        """See ``Worker.kill``."""
        self._process.kill()

    def wait(self) -> None:
        """See ``Worker.wait``."""
        self._process.wait()


class Forked(Worker):
    """A copy of this process, at once; as torch's own DataLoader has its workers on Linux.

    A copy must not use CUDA, nor more than one thread of OpenMP, whose pool is not copied.

    Args:
        others: Workers that were forked before; their pipes are not for this one.
    """

    def __init__(self, others: "list[Forked]") -> None:
        _refuse_nesting()
        inward, outward = os.pipe(), os.pipe()
        with warnings.catch_warnings():  # Python 3.12 warns of every fork beside a thread
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _live_as_a_copy(inward, outward, others)
        os.close(inward[0])
        os.close(outward[1])
        self._code: int | None = None
        self._collecting = Lock()  # two threads may ask, and a process can be collected once
        self.to = os.fdopen(inward[1], "wb")
        self.back = os.fdopen(outward[0], "rb")

    def code(self) -> int | None:
        """See ``Worker.code``."""
        self._collect(os.WNOHANG)
        return self._code

    def kill(self) -> None:
        """See ``Worker.kill``."""
        if self.code() is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        """See ``Worker.wait``."""
        self._collect(0)

    def _collect(self, options: int) -> None:
        with self._collecting:
            if self._code is not None:
                return
            pid, status = os.waitpid(self._pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)


def can_fork() -> bool:
    """Whether a copy of this process can compute."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def _live_as_a_copy(
    inward: tuple[int, int], outward: tuple[int, int], others: list[Forked]
) -> None:
    """Serve until the parent hangs up; never come back, whatever happens."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (inward[1], outward[0]):
            os.close(descriptor)
        for other in others:
            for pipe in (other.to, other.back):
                os.close(pipe.fileno())
        os.environ |= ONE_THREAD | {_INSIDE: "1"}
        serve(os.fdopen(inward[0], "rb"), os.fdopen(outward[1], "wb"), _main())
        code = 0
    finally:
        os._exit(code)


def _refuse_nesting() -> None:
    if _INSIDE in os.environ:
        raise UsageError(
            "a worker process was asked to start workers; guard the last lines of your "
            'script with `if __name__ == "__main__":`'
        )


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
