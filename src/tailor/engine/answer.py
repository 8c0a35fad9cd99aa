"""What a worker sends back: a result, or an exception that comes out as itself."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exception
from typing import Any, TypeAlias

from tailor.engine.interface import Result, Task
from tailor.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The function came back.

    Attributes:
        value: Its result.
    """

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The function raised.

    Attributes:
        error: What it raised.
        traceback: Where, as text, since a traceback cannot be sent.
    """

    error: BaseException
    traceback: str


Answer: TypeAlias = Returned | Raised
Pickler: TypeAlias = Callable[[object], bytes]


class Elsewhere(Exception):
    """The traceback of an exception that was raised in another process."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def attempt(function: Callable[[Task], Result], task: Task) -> Answer:
    """Run the function and keep whatever it raises, exits too."""
    try:
        return Returned(value=function(task))
    except BaseException as error:  # it is for the caller to see
        return Raised(error=error, traceback="".join(format_exception(error)))


def pack(answer: Answer, dumps: Pickler) -> bytes:
    """The answer as bytes that ``unpack`` can certainly read."""
    try:
        packed = dumps(answer)
        if isinstance(answer, Raised):  # an exception may refuse to be built again
            pickle.loads(packed)  # noqa: S301 (written above)
    except Exception as error:
        return pickle.dumps(_substitute(answer, error))
    return packed


def unpack(packed: bytes) -> Any:
    """The result of the function.

    Raises:
        BaseException: Whatever the function raised.
        EngineError: Its result, or what it raised, cannot be pickled.
    """
    answer = pickle.loads(packed)  # noqa: S301 (our own worker wrote it)
    if isinstance(answer, Raised):
        raise answer.error from Elsewhere(answer.traceback)
    return answer.value


def _substitute(answer: Answer, error: Exception) -> Raised:
    """What is sent instead of an answer that pickle refuses with ``error``."""
    if isinstance(answer, Raised):
        what = f"a task raised {type(answer.error).__name__}: {answer.error}"
        return Raised(error=EngineError(what), traceback=answer.traceback)
    what = f"a result of type {type(answer.value).__name__} cannot be sent back ({error})"
    return Raised(error=EngineError(what), traceback="".join(format_exception(error)))
