"""No file is opened while a network is built and evaluated: a decoder must not look at data."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tailor.verifier.said import Mismatch

CODE = (".py", ".pyc", ".so", ".pyd", ".dylib", ".dll")
SYSTEM = ("/proc/", "/sys/", "/dev/")

_opened: list[list[str]] = []  # one list for each block that is watched now
_hooked: list[bool] = []


@contextmanager
def without_files() -> Iterator[None]:
    """Watch a block for files that it opens, other than code.

    Raises:
        Mismatch: It opened one.
    """
    if not _hooked:  # a hook cannot be taken away; outside of blocks this one does nothing
        sys.addaudithook(_note)
        _hooked.append(True)
    found: list[str] = []
    _opened.append(found)
    try:
        yield
    finally:
        _opened.remove(found)
    if found:
        raise Mismatch(f"the network opens {found[0]} while it is built or evaluated")


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _opened or event != "open":
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.fsdecode(path)
    if not name.endswith(CODE) and not name.startswith(SYSTEM):
        for found in _opened:
            found.append(name)
