"""What a command writes on: consoles, tables, and the check that a folder can be written."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tailor.errors import OutputError

Watch: TypeAlias = Callable[[str, int, int], None]

DONE, NO, MISUSE = 0, 1, 2  # exit codes


class Screen(Console):
    """A console that shows names as they are, and lets ``main`` know that its reader has gone."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1, which means "the answer is no"."""
        raise BrokenPipeError


ERR = Screen(stderr=True)


def console() -> Console:
    """As wide as the terminal; wide enough for long names when the output goes to a file."""
    return Screen(width=None if sys.stdout.isatty() else 160)


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table with text columns on the left and numbers on the right."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    made.padding = (0, 1, 0, 0)
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", overflow="fold")
    return made


@contextmanager
def progress(what: str) -> Iterator[Watch | None]:
    """A bar on a terminal, to be told name, how many are done, and how many there are."""
    if not ERR.is_terminal:
        yield None
        return
    with Progress(console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda name, k, n: bar.update(task, description=escape(name), completed=k, total=n)


def must_be_writable(folder: Path) -> None:
    """Find out before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tailor-can-write"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
