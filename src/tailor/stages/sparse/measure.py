"""Which of two calls is faster."""

import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

SHORTEST = 1e-3  # seconds that one sample takes at least, well above the resolution of the clock

Run: TypeAlias = Callable[[], object]
Measure: TypeAlias = Callable[[Run, Run, int], tuple[float, float]]


def alternately(first: Run, second: Run, repeats: int) -> tuple[float, float]:
    """Median seconds of two calls, timed in turns so that a busy machine slows both alike."""
    loops = 1
    while min(_seconds(first, loops), _seconds(second, loops)) < SHORTEST:
        loops *= 2
    pairs = [(_seconds(first, loops), _seconds(second, loops)) for _ in range(repeats)]
    return (
        statistics.median(pair[0] for pair in pairs) / loops,
        statistics.median(pair[1] for pair in pairs) / loops,
    )


def _seconds(run: Run, loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        run()
    return time.perf_counter() - start
