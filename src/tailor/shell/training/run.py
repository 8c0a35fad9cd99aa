"""From plan to folder: train, watch, write everything down."""

import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from tailor import records
from tailor.errors import TailorError, TaskError, UsageError
from tailor.numerics.powerlaw import HillMid
from tailor.shell.training import stored as checkpoint
from tailor.shell.training.choices import HeldOutPatience
from tailor.shell.training.journal import HISTORY, STEPS, Errors, Journal
from tailor.shell.training.plan import Plan
from tailor.shell.training.record import (
    Training,
    paths_from_csv,
    save,
    with_look,
)
from tailor.stages.regularize import Regularizer
from tailor.stages.train import Checkpoint, Monitor, Step, StopRule, batches, train
from tailor.stages.train.tails import tails
from tailor.tasks import Data
from tailor.weights.views import Standard

FILES = (STEPS, HISTORY, "layers.csv", "model.pt", "train.toml", "training.json", "report.html")
NEVER = 2**62  # steps

Watch: TypeAlias = Callable[[str, int, int], None]


class Run:
    """One run. Making it builds everything and refuses what cannot be; ``go`` writes.

    Args:
        plan: What to train, and how.

    Attributes:
        step: Steps taken so far.

    Raises:
        TaskError: The network cannot be built.
        UsageError: A setting does not fit the network or the others.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.step = plan, 0
        self.model = _built(plan)
        self._ends = plan.epoch_ends()
        balance = plan.balance
        parameters: Any = self.model.parameters()
        if balance is not None:
            parameters = balance.groups(self.model, plan.lr)
        try:
            self.optimizer = plan.optimizer.of(parameters, plan.lr)
        except ValueError as error:  # torch's own checks
            raise UsageError(f"--optimizer: {error}") from error
        self.schedulers: list[LRScheduler] = [_scheduler(self.optimizer, plan)]
        if balance is not None:
            self.schedulers.append(balance.of(self.optimizer, self.model))
        self._try()

    def _try(self) -> None:
        """Find out now, not in the first step, what does not fit the network."""
        plan = self.plan
        if plan.penalties:
            Regularizer(self.model, plan.penalties)
        if plan.noise is not None:
            plan.noise.attach(self.model, self.optimizer).remove()
        self._steps(None)
        self._errors()

    def go(self, out: Path, watch: Watch | None) -> Training:
        """Train from the beginning, or from where the checkpoint in the folder is.

        Args:
            out: Folder of the run.
            watch: Told of each step: what there is to say, the step, and how many there are.
        """
        with one_thread():
            _tidy(out)
            stored = checkpoint.settle(out)
            journal = Journal(out, self._ends, stored.step, self._errors)
            with closing(journal):
                self._catch_up(journal, stored)
                stopped = self._loop(out, journal, watch) or stored.stopped
                journal.close_epoch()
            return self._finish(out, journal, stopped)

    def _catch_up(self, journal: Journal, stored: checkpoint.Stored) -> None:
        """The line of an epoch that ended with the checkpoint, if it was not written any more."""
        plan, self.step = self.plan, stored.step
        if stored.model is not None and journal.is_behind(stored.step):
            try:
                self.model.load_state_dict(stored.model)
            except RuntimeError as error:
                raise UsageError(
                    f"the network of {plan.task.name} is not the one of the checkpoint; give "
                    "another --out, or --again to begin anew"
                ) from error
            journal.close_epoch()

    def _loop(self, out: Path, journal: Journal, watch: Watch | None) -> str | None:
        """Every step; why training was stopped early, if it was."""
        stopped = None
        for step in self._steps(out):
            self.step, stopped = step.number, step.stopped
            journal.add(step)
            checkpoint.keep(out)
            if watch is not None:
                watch(_said(step, journal), step.number, self._ends[-1])
        return stopped

    def _steps(self, out: Path | None) -> Iterator[Step]:
        """The steps; nothing happens before the first one is asked for."""
        plan = self.plan
        where, monitor = None, None
        if out is not None:
            monitor = Monitor(every=plan.monitor_every, csv=out / "layers.csv")
            if plan.checkpoint_every is not None or checkpoint.exists(out):
                every = plan.checkpoint_every or NEVER
                where = Checkpoint(folder=out / checkpoint.FOLDER, every=every)
        return train(
            self.model,
            batches(
                _on(plan.data, plan.device), size=plan.batch, epochs=plan.epochs, seed=plan.seed
            ),
            loss=nn.functional.cross_entropy,
            optimizer=self.optimizer,
            penalties=plan.penalties,
            decoupled=plan.decoupled,
            noise=plan.noise,
            schedulers=self.schedulers,
            precision=plan.precision,
            accumulate=plan.accumulate,
            compile=plan.compile,
            clip_norm=plan.clip_norm,
            checkpoint=where,
            monitor=monitor,
            stop=[self._rule(one) for one in plan.stop],
            seed=plan.seed,
        )

    def _rule(self, one: HeldOutPatience | StopRule) -> StopRule:
        if isinstance(one, StopRule):
            return one
        held_out = self.plan.held_out
        if held_out is None:
            raise UsageError(
                f"--stop patience looks at held-out examples, but the task {self.plan.task.name} "
                "has none; use --stop settles"
            )
        return one.of(lambda: self._error(held_out), self._ends[0])

    def _errors(self) -> Errors:
        held_out = self.plan.held_out
        return Errors(
            train=self._error(self.plan.data),
            test=None if held_out is None else self._error(held_out),
        )

    def _error(self, data: Data) -> float:
        return float(self.plan.task.error(self.model, data).double().mean())

    def _finish(self, out: Path, journal: Journal, stopped: str | None) -> Training:
        """Write what the run leaves; ``training.json`` is the last, then the checkpoint goes."""
        plan = self.plan
        layers = paths_from_csv(out / "layers.csv")
        if layers and layers[0].steps[-1] != self.step:
            look = tails(self.model, HillMid(), Standard())
            layers = with_look(layers, self.step, look)
        last = journal.history[-1]
        made = Training(
            task=plan.task.name,
            steps=self.step,
            stopped=stopped,
            decoupled=plan.decoupled and bool(plan.penalties),
            train_error=last.train_error,
            test_error=last.test_error,
            history=tuple(journal.history),
            layers=layers,
            provenance=records.Provenance.now(plan.seed, **plan.settings),
        )
        records.write(out / "model.pt", _bytes(self.model))
        save(made, out)
        checkpoint.forget(out)
        return made


def _built(plan: Plan) -> nn.Module:
    """The network with fresh weights; random numbers of the caller stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        try:
            model = plan.task.build()
        except TailorError:
            raise
        except Exception as error:  # a user's network can fail in any way
            raise TaskError(
                f"the network of the task {plan.task.name} cannot be built: "
                f"{type(error).__name__}: {error}"
            ) from error
    try:
        return model.to(plan.device)
    except (RuntimeError, AssertionError) as error:  # what torch says when there is none
        said = str(error).splitlines()[0]
        raise UsageError(f"--device {plan.device} cannot be used ({said})") from error


def _scheduler(optimizer: torch.optim.Optimizer, plan: Plan) -> LRScheduler:
    def factor(step: int) -> float:  # LambdaLR would store the __dict__ of anything else
        return plan.schedule(step)

    return LambdaLR(optimizer, factor)


def _bytes(model: nn.Module) -> bytes:
    """A file with the network's state, on the CPU."""
    file = io.BytesIO()
    state = model.state_dict()
    torch.save({k: v.cpu() if isinstance(v, Tensor) else v for k, v in state.items()}, file)
    return file.getvalue()


def _tidy(out: Path) -> None:
    """Remove what a run that was killed while it wrote a file has left of it."""
    for name in FILES:
        for path in out.glob(f".{name}.????????"):
            path.unlink(missing_ok=True)


def _on(data: Data, device: str) -> Data:
    return Data(x=data.x.to(device), y=data.y.to(device))


def _said(step: Step, journal: Journal) -> str:
    """What stands before the bar."""
    text = f"epoch {len(journal.history) + 1}: loss {step.loss:.3f}"
    if not journal.history:
        return text
    last = journal.history[-1]
    error = last.train_error if last.test_error is None else last.test_error
    return f"{text}, error {error:.1%}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine: the same seed gives the same weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
