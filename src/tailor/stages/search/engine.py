"""A search that can be stopped at any time, and goes on where it stood."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from tailor import records
from tailor.errors import UsageError
from tailor.stages.compress import Adaptive, Coder, CompressedModel
from tailor.stages.search.jobs import Job, Target, default_jobs
from tailor.tasks import Data, ErrorCount, Frozen, zero_one

JOURNAL = "search.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Progress:
    """Where a search stands.

    Attributes:
        step: Jobs and rounds done so far.
        job: What was done last.
        bound: Smallest bound so far.
        bits: Length of that file's stream.
        errors: Its errors.
        best: That file.
    """

    step: int
    job: str
    bound: float
    bits: int
    errors: int
    best: CompressedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What a folder remembers of a search.

    Attributes:
        fingerprint: SHA-256 of everything that the result depends on.
        done: Names of what was done, in order.
        file: Name of the best file.
        author: Position of the job that made it.
        bound: Its bound.
        bits: Length of its stream.
        errors: Its errors.
        idle: Rounds since it was last improved.
    """

    fingerprint: str
    done: tuple[str, ...]
    file: str
    author: int
    bound: float
    bits: int
    errors: int
    idle: int


def search(
    build: Callable[[], nn.Module],
    data: Data,
    *,
    jobs: Sequence[Job] | None = None,
    delta: float = 0.05,
    choices: int = 1,
    error: ErrorCount = zero_one,
    coder: Coder | None = None,
    seed: int = 0,
    rounds: int = 20,
    patience: int = 5,
    seconds: float | None = None,
    folder: str | Path | None = None,
) -> Iterator[Progress]:
    """Look for the file with the smallest Occam bound: all jobs, then rounds from the best file.

    The Occam bound holds for all files of one code at once, so looking for the best one costs
    nothing. What is not in the file (the network, the features it stands on) has to be fixed
    before the data are seen, or paid for by ``choices``.

    Args:
        build: As for ``certify``.
        data: The examples to be certified.
        jobs: What is tried; by default what suits the network.
        delta: As for ``certify``.
        choices: As for ``certify``.
        error: As for ``certify``.
        coder: Of the files; ``Adaptive()`` by default.
        seed: Of everything random.
        rounds: Improvements of the best file, at most.
        patience: Stop after so many rounds without one.
        seconds: Start nothing new after this time.
        folder: Holds the best file and a journal after each step, so that a search that was
            killed goes on and ends with the same file as one that was not.

    Yields:
        A ``Progress`` after each job and each round.

    Raises:
        UsageError: A number is out of range, there are no jobs or two of one name, or the folder
            holds another search.
    """
    if choices < 1 or rounds < 0 or patience < 1:
        raise UsageError(
            f"needs choices >= 1, rounds >= 0 and patience >= 1, but got {choices}, {rounds} "
            f"and {patience}"
        )
    target = Target(
        build=build,
        data=data,
        delta=delta,
        paid=float(np.log2(choices)),
        error=error,
        coder=Adaptive() if coder is None else coder,
    )
    chosen = tuple(default_jobs(build, data) if jobs is None else jobs)
    if not chosen or len({job.name for job in chosen}) < len(chosen):
        raise UsageError(f"needs jobs of different names, but got {[j.name for j in chosen]}")
    state = _State(target, chosen, seed, None if folder is None else Path(folder))
    return _steps(state, rounds, patience, seconds)


def _steps(
    state: "_State", rounds: int, patience: int, seconds: float | None
) -> Iterator[Progress]:
    end = None if seconds is None else time.monotonic() + seconds
    if state.journal is not None:
        yield state.progress()  # where it stood
    for at, job in enumerate(state.jobs):
        if job.name in state.done():
            continue
        if end is not None and time.monotonic() > end and state.journal is not None:
            return
        state.offer(job.make(state.target, state.seed), at, job.name)
        yield state.progress()
    for number in range(rounds):
        name = f"round {number + 1}"
        if name in state.done():
            continue
        if state.idle() >= patience or (end is not None and time.monotonic() > end):
            return
        state.improve(name, number)
        yield state.progress()


class _State:
    """The best file, and what was done."""

    def __init__(
        self, target: Target, jobs: tuple[Job, ...], seed: int, folder: Path | None
    ) -> None:
        self.target, self.jobs, self.seed, self.folder = target, jobs, seed, folder
        self.journal: Journal | None = None
        self.best: CompressedModel | None = None
        self.fingerprint = self._fingerprint()
        if folder is not None and (folder / JOURNAL).exists():
            self._resume(folder)

    def done(self) -> tuple[str, ...]:
        return () if self.journal is None else self.journal.done

    def idle(self) -> int:
        return 0 if self.journal is None else self.journal.idle

    def improve(self, name: str, number: int) -> None:
        """One round from the best file, by the job that made it."""
        assert self.journal is not None
        assert self.best is not None
        job = self.jobs[self.journal.author]
        seed = int(np.random.default_rng((self.seed, number)).integers(2**31))
        self.offer(job.improve(self.target, self.best, seed), self.journal.author, name)

    def offer(self, file: CompressedModel, author: int, name: str) -> None:
        """Note that something was done, and keep the file if it is better."""
        bound, errors, bits = self.target.measure(file)
        old = self.journal
        if old is None or (bound, bits) < (old.bound, old.bits):
            self.best = file
            self.journal = Journal(
                fingerprint=self.fingerprint,
                done=(*self.done(), name),
                file=f"best-{hashlib.sha256(file.payload).hexdigest()[:16]}.tailor",
                author=author,
                bound=bound,
                bits=bits,
                errors=errors,
                idle=0,
            )
        else:
            self.journal = replace(old, done=(*old.done, name), idle=old.idle + 1)
        self._save()

    def progress(self) -> Progress:
        """For the caller."""
        journal, best = self.journal, self.best
        assert journal is not None
        assert best is not None
        return Progress(
            step=len(journal.done),
            job=journal.done[-1],
            bound=journal.bound,
            bits=journal.bits,
            errors=journal.errors,
            best=best,
        )

    def _save(self) -> None:
        """The file first: the journal that names it is what counts."""
        if self.folder is None:
            return
        assert self.journal is not None
        assert self.best is not None
        path = self.folder / self.journal.file
        if not path.exists():
            self.best.save(path)
        records.save(self.journal, self.folder / JOURNAL)
        for other in self.folder.glob("best-*.tailor"):
            if other != path:
                other.unlink()

    def _resume(self, folder: Path) -> None:
        journal = records.load(Journal, folder / JOURNAL)
        if journal.fingerprint != self.fingerprint:
            raise UsageError(
                f"{folder} holds another search (other data, jobs, seed or numbers); choose "
                "another folder, or empty it"
            )
        self.journal = journal
        self.best = CompressedModel.load(folder / journal.file)

    def _fingerprint(self) -> str:
        target = self.target
        model = target.build()
        frozen = [part.digest() for part in model.modules() if isinstance(part, Frozen)]
        text = (
            f"{target.data.digest()} {target.delta!r} {target.paid!r} {target.coder!r} {model} "
            f"{frozen} {self.seed} {[repr(job) for job in self.jobs]}"
        )
        return hashlib.sha256(text.encode()).hexdigest()
