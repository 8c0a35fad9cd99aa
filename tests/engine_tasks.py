"""What the tests of engines run in worker processes; imported there, so it is light."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_info

from tailor import NonFinite

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Squared(NamedTuple):
    """A result, and where it was found."""

    number: int
    process: int


def square(number: int) -> Squared:
    return Squared(number * number, os.getpid())


def threads(_: object) -> dict[str, object]:
    """How many threads linear algebra has here, as the libraries see it."""
    return {
        "torch": torch.get_num_threads(),
        "libraries": {library["num_threads"] for library in threadpool_info()},
        "limits": {os.environ.get(name) for name in LIMITS},
    }


def picky(number: int) -> int:
    if number == 2:
        raise NonFinite(f"task {number} is broken")
    return number


class Stubborn(Exception):
    """Pickles, but cannot be built again."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


def awkward(kind: str) -> object:
    """Do what a well-behaved task does not."""
    match kind:
        case "exception":
            raise Stubborn("a fault", "home")
        case "result":
            return lambda: None
        case "exit":
            raise SystemExit(3)
        case _:
            print("x" * 100_000)  # noqa: T201
            os.write(1, b"not an answer")
            return kind


def negative(tensor: torch.Tensor) -> torch.Tensor:
    return -tensor


def largest_singular_value(task: tuple[int, str]) -> float:
    """Of a random matrix; who began with which seed is written down."""
    seed, log = task
    with Path(log).open("a") as lines:
        lines.write(f"{os.getpid()} {seed}\n")
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(40, 30, generator=generator, dtype=torch.float64)
    return float(torch.linalg.svdvals(matrix)[0])


class Fragile(NamedTuple):
    """A task that kills its process in the first ``deaths`` attempts."""

    number: int
    folder: str
    deaths: int = 0


def survive(task: Fragile) -> int:
    """The number of the attempt; each is written down."""
    attempt = 1
    while (mark := Path(task.folder, f"{task.number}.{attempt}")).exists():
        attempt += 1
    mark.touch()
    with Path(task.folder, "log").open("a") as lines:
        lines.write(f"{task.number} begins\n")
    if attempt <= task.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(task.folder, "log").open("a") as lines:
        lines.write(f"{task.number} ends\n")
    return attempt


def hang_beside(task: tuple[int, str]) -> int:
    """Task 1 hangs; task 0 comes back once 1 hangs; task 2 fails then."""
    number, folder = task
    mark = Path(folder, "hangs")
    if number == 1:
        _write(mark, str(os.getpid()))
        time.sleep(60)  # long, should nobody end it
    _read(mark)
    if number == 2:
        raise NonFinite("beside one that hangs")
    return number


def _write(place: Path, text: str) -> None:
    half = place.with_suffix(".half")
    half.write_text(text)
    half.rename(place)  # whole or not at all


def _read(place: Path) -> str:
    """The text, once it is there."""
    for _ in range(6000):
        if place.exists():
            return place.read_text()
        time.sleep(0.01)
    raise TimeoutError(place)


def ends(process: int) -> bool:
    """Whether a process ends within a minute."""
    for _ in range(6000):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
