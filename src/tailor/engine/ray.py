"""A Ray cluster: many machines, or this one."""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any

import torch

from tailor.engine.answer import attempt, pack, unpack
from tailor.engine.interface import ONE_THREAD, Engine, Result, Task, dear_first, lost_for_good
from tailor.errors import EngineError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray(Engine):
    """A Ray cluster; needs ``pip install 'tailor[ray]'`` on every machine of it.

    A program that is connected to Ray already stays so, and its connection is used. Otherwise
    this connects for the time of one ``map``. Each task has one linear-algebra thread.

    Attributes:
        address: Of a cluster, as ``ray.init`` takes it. None means the one that ``RAY_ADDRESS``
            names or that was started on this machine with ``ray start``; if there is none, one
            is started on this machine for the time.
        retries: How often Ray runs a task again after its worker or machine died.
        cpus_per_task: Processors that Ray sets aside for each task. More than one leaves more
            memory to each.
    """

    address: str | None = None
    retries: int = 2
    cpus_per_task: int = 1

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise UsageError(f"retries must be at least 0, but is {self.retries}")
        if self.cpus_per_task < 1:
            raise UsageError(f"cpus_per_task must be at least 1, but is {self.cpus_per_task}")

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], costs: Sequence[float]
    ) -> Iterator[tuple[int, Result]]:
        """See ``Engine.map``."""
        order = dear_first(tasks, costs)
        ray = _ray()
        if not tasks:
            return
        with _connection(ray, self.address):
            _refuse_to_wait_forever(ray, self.cpus_per_task)
            work = ray.remote(
                num_cpus=self.cpus_per_task,
                max_retries=self.retries,
                retry_exceptions=False,
                runtime_env={"env_vars": ONE_THREAD},
            )(_work)
            yield from self._arrivals(ray, work, function, tasks, order)

    def _arrivals(
        self,
        ray: Any,
        work: Any,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        order: list[int],
    ) -> Iterator[tuple[int, Result]]:
        waiting = iter(order)
        running: dict[Any, int] = {}
        try:
            while True:
                # One more for each processor than are at work; no more, since each is a copy.
                room = 2 * _places(ray, self.cpus_per_task) - len(running)
                for _, i in zip(range(room), waiting, strict=False):
                    running[_submit(work, function, tasks[i])] = i
                if not running:
                    return
                (ready,), _ = ray.wait(list(running), num_returns=1)
                i = running.pop(ready)
                yield i, self._fetch(ray, ready, i, tasks[i])
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _fetch(self, ray: Any, reference: Any, index: int, task: object) -> Any:
        lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
        )
        try:
            packed = ray.get(reference)
        except lost as error:
            how = type(error).__name__
            raise lost_for_good(index, task, self.retries + 1, how) from error
        except ray.exceptions.RayError as error:
            raise EngineError(f"Ray could not run task {index}: {error}") from error
        return unpack(packed)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "the Ray engine needs the package ray, which is not installed; "
            "install it with: pip install 'tailor[ray]'"
        ) from error
    return ray


@contextmanager
def _connection(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster; what was not opened here is not closed here."""
    if ray.is_initialized():
        if address is not None:
            raise UsageError(
                f"this program is connected to Ray already; leave out the address {address!r}, "
                "or call ray.shutdown() first"
            )
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    _connect(ray, address)
    try:
        yield
    finally:
        ray.shutdown()
        if before is not None and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str | None) -> None:
    try:
        _knock(address or os.environ.get("RAY_ADDRESS", ""))
        with _quietly():
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
    except Exception as error:  # what Ray raises here has no common base
        where = "on this machine" if address is None else f"at {address}"
        raise EngineError(f"no Ray cluster can be had {where}: {error}") from error


def _knock(address: str) -> None:
    """Raise OSError when nobody is at home, where Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _quietly() -> Iterator[None]:
    """``ray.init`` neither speaks nor leaves anything in the environment of this process."""
    logger = logging.getLogger("ray")
    level, before = logger.level, dict(os.environ)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _places(ray: Any, cpus_per_task: int) -> int:
    """How many tasks the cluster runs at once, as it is now."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)) // cpus_per_task)


def _refuse_to_wait_forever(ray: Any, cpus_per_task: int) -> None:
    """A single machine that is too small stays so; a cluster may still grow."""
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if len(sizes) == 1 and 0 < sizes[0] < cpus_per_task:
        raise UsageError(
            f"each task wants {cpus_per_task} processors, but the machine has {sizes[0]}; "
            "lower cpus_per_task"
        )


def _submit(work: Any, function: Callable[[Task], Result], task: Task) -> Any:
    try:
        return work.remote(function, task)
    except Exception as error:  # pickle raises whatever the object raises
        raise UsageError(f"a task cannot be sent to another process ({error})") from error


def _work(function: Callable[[Task], Result], task: Task) -> bytes:
    """What a worker of Ray runs."""
    from ray import cloudpickle

    torch.set_num_threads(1)
    return pack(attempt(function, task), cloudpickle.dumps)
