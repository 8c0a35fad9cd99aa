"""The far end of a worker process: answers tasks until its parent hangs up."""

import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import spawn
from struct import Struct
from traceback import format_exception
from typing import Any, BinaryIO

import torch
from threadpoolctl import threadpool_limits

from tailor.engine.answer import Answer, Raised, attempt, pack
from tailor.errors import UsageError

_LENGTH = Struct("<Q")
dumps = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)


def send(stream: BinaryIO, message: bytes) -> None:
    """Write one message.

    Raises:
        OSError: The other end is gone.
    """
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    """Read one message.

    Raises:
        EOFError: The other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise EOFError
    return found


def serve_standard_input(main: dict[str, str]) -> None:
    """``serve`` through standard input and output, for a process that was started afresh."""
    outgoing = os.fdopen(os.dup(1), "wb")
    serve(sys.stdin.buffer, outgoing, main)


def serve(incoming: BinaryIO, outgoing: BinaryIO, main: dict[str, str]) -> None:
    """Answer every (function, task) that comes in.

    Args:
        incoming: Messages of the parent.
        outgoing: For the answers.
        main: Where the program of the parent lies, see ``_understand``.
    """
    torch.set_num_threads(1)
    threadpool_limits(1)  # of BLAS libraries that were loaded with more
    os.dup2(2, 1)  # what a task prints must not come between the answers
    while True:
        try:
            send(outgoing, pack(_answer(receive(incoming), main), dumps))
        except (EOFError, OSError):  # the parent has gone
            return


def _answer(message: bytes, main: dict[str, str]) -> Answer:
    try:
        function, task = _understand(message, main)
    except BaseException as error:
        return Raised(error=error, traceback="".join(format_exception(error)))
    return attempt(function, task)


def _understand(message: bytes, main: dict[str, str]) -> tuple[Callable[[Any], Any], Any]:
    """The function and its task.

    The program of the parent is imported only when they come from there: it may be slow, and a
    script that does not guard its last lines with ``if __name__ == "__main__"`` would run.
    """
    try:
        return _unpickle(message)
    except AttributeError:
        spawn.prepare(main)
    try:
        return _unpickle(message)
    except AttributeError as error:
        raise UsageError(
            f"a worker process cannot find what a task needs ({error}); define it in a module "
            "that can be imported, or use one worker"
        ) from error


def _unpickle(message: bytes) -> tuple[Callable[[Any], Any], Any]:
    function, task = pickle.loads(message)  # noqa: S301 (our own parent wrote it)
    return function, task
