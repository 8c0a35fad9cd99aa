"""``train``: the loop itself, as a generator of its steps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from tailor.errors import UsageError
from tailor.stages.regularize import Penalty, Regularizer
from tailor.stages.train.batches import Pair, after, checksum, grouped
from tailor.stages.train.chance import own_random
from tailor.stages.train.checkpoint import Checkpoint, Keeper, Part, Place
from tailor.stages.train.monitor import Monitor, Recorder
from tailor.stages.train.precision import Precise, Precision
from tailor.stages.train.processes import Processes, inner
from tailor.stages.train.settings import Noise, Settings
from tailor.stages.train.step import Loss, Mover, Step
from tailor.stages.train.stopping import StopRule, Watch


def train(  # noqa: PLR0913 (each is one choice; most are left alone)
    model: nn.Module,
    batches: Iterable[Pair],
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    penalties: Sequence[Penalty] = (),
    decoupled: bool = False,
    noise: Noise | None = None,
    schedulers: Sequence[LRScheduler] = (),
    precision: Precision = "float32",
    accumulate: int = 1,
    compile: bool = False,
    clip_norm: float | None = None,
    checkpoint: Checkpoint | None = None,
    monitor: Monitor | None = None,
    stop: Sequence[StopRule] = (),
    seed: int = 0,
) -> Iterator[Step]:
    """Train ``model`` in place, one optimizer step each time the caller asks for the next.

    Args:
        model: Any module, also wrapped by DDP or sharded by ``fully_shard``; put in training
            mode.
        batches: Pairs of inputs and targets; training ends when they do. A run that is resumed
            needs the same sequence again, from its beginning.
        loss: From outputs and targets to a scalar, the mean over the examples.
        optimizer: Over the model's parameters.
        penalties: Terms on the weights, added to the loss once a step.
        decoupled: Penalties act in the optimizer's step instead of through the loss, as weight
            decay does in AdamW.
        noise: Noise on the weights after each step, such as ``StableNoise``.
        schedulers: Of the learning rate; each takes a step after every step of the optimizer.
        precision: Of the forward pass, by autocast; weights stay as they are.
        accumulate: Batches that make one step. Gradients are those of the mean over all their
            examples; the last step of a run may have fewer batches.
        compile: Whether ``torch.compile`` makes forward pass and loss faster.
        clip_norm: Longest gradient; a longer one is shortened to it.
        checkpoint: Where the run is stored, to go on from there when it was broken off.
        monitor: Measures the spectra of the layers during training.
        stop: Rules that may end training early.
        seed: For dropout and the like; the caller's random state is left as it was found.

    Yields:
        A record of each step, after the parameters have moved and the checkpoint was written.

    Raises:
        UsageError: An argument makes no sense; or, with the number of the step, loss, penalty or
            gradient is not finite, and the parameters are then those of the step before.
    """
    settings = Settings(
        model=model,
        batches=batches,
        loss=loss,
        optimizer=optimizer,
        penalties=tuple(penalties),
        decoupled=decoupled,
        noise=noise,
        schedulers=tuple(schedulers),
        precision=precision,
        accumulate=accumulate,
        compile=compile,
        clip_norm=clip_norm,
        checkpoint=checkpoint,
        monitor=monitor,
        stop=tuple(stop),
        seed=seed,
    )
    settings.check()
    return _steps(settings)


def _steps(given: Settings) -> Iterator[Step]:
    with ExitStack() as ends:
        run = _prepare(given, ends)
        place = Place() if run.keeper is None else run.keeper.resume()
        if place.stopped is None:
            yield from _loop(given, run, place, ends)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """What takes part in each step."""

    processes: Processes
    mover: Mover
    watch: Watch
    keeper: Keeper | None
    devices: tuple[torch.device, ...]


def _prepare(given: Settings, ends: ExitStack) -> _Run:
    """Attach everything to the optimizer, until ``ends``."""
    processes = Processes.of(given.model)
    precise = Precise(given.precision, processes.device.type)
    if precise.scaler is not None and processes.sharded:
        raise UsageError(
            "float16 needs one scale of the loss for all processes, which fully_shard does not "
            'have; use precision="bfloat16"'
        )
    parts: dict[str, Part] = {"model": inner(given.model), "optimizer": given.optimizer}
    term: Regularizer | None = None
    if given.penalties:
        parts["penalties"] = regularizer = Regularizer(given.model, given.penalties)
        if given.decoupled:
            ends.callback(regularizer.attach(given.optimizer).remove)
        else:
            term = regularizer
    if given.noise is not None:
        parts["noise"] = injector = given.noise.attach(given.model, given.optimizer)
        ends.callback(injector.remove)
    parts |= {f"scheduler {i}": one for i, one in enumerate(given.schedulers)}
    if precise.scaler is not None:
        parts["loss scale"] = precise.scaler
    parts["stop"] = watch = Watch(given.stop, given.model, processes)
    mover = Mover(
        given.model,
        given.loss,
        given.optimizer,
        term,
        precise,
        compiled=given.compile,
        clip_norm=given.clip_norm,
    )
    return _Run(
        processes=processes,
        mover=mover,
        watch=watch,
        keeper=_keeper(given, parts, processes),
        devices=_cuda(given.model),
    )


def _keeper(given: Settings, parts: Mapping[str, Part], processes: Processes) -> Keeper | None:
    if given.checkpoint is None:
        return None
    return Keeper(given.checkpoint, parts, given.told(processes), processes)


def _cuda(model: nn.Module) -> tuple[torch.device, ...]:
    found = {p.device for p in model.parameters() if p.device.type == "cuda"}
    return tuple(sorted(found, key=lambda device: device.index or 0))


def _loop(given: Settings, run: _Run, place: Place, ends: ExitStack) -> Iterator[Step]:
    source, last = after(given.batches, place.used)
    if given.checkpoint is not None and given.checkpoint.same_batches:
        _check_same(place, last, run.processes)
    recorder: Recorder | None = None
    if given.monitor is not None:
        writes = run.processes.rank == 0
        recorder = Recorder(given.monitor, given.model, place.step, writes=writes)
        ends.callback(recorder.close)
    given.model.train()
    stored, group = place.step, []
    for group in grouped(source, given.accumulate, place.used):
        step = _step(given, run, place.step + 1, group, recorder)
        place = Place(step=step.number, used=place.used + len(group), stopped=step.stopped)
        if run.keeper is not None and _due(given.checkpoint, place):
            run.keeper.save(replace(place, last=checksum(group[-1])))
            stored = place.step
        yield step
        if step.stopped is not None:
            return
    if place.step == 0:
        raise UsageError("batches is empty, so there was no step; give at least one batch")
    if run.keeper is not None and stored < place.step:
        run.keeper.save(replace(place, last=checksum(group[-1])))


def _step(
    given: Settings, run: _Run, number: int, group: list[Pair], recorder: Recorder | None
) -> Step:
    if not given.model.training:  # the caller has evaluated it
        given.model.train()
    groups = given.optimizer.param_groups
    rate = float(groups[0]["lr"]) if "lr" in groups[0] else None
    with own_random(given.seed, number, run.processes.rank, run.devices):
        moved = run.mover.move(number, group)
    if not moved.skipped:
        for scheduler in given.schedulers:
            scheduler.step()
    return Step(
        number=number,
        loss=moved.loss,
        penalty=moved.penalty,
        gradient_norm=moved.gradient_norm,
        lr=rate,
        skipped=moved.skipped,
        layers=() if recorder is None else recorder.look(number),
        stopped=run.watch.look(number),
    )


def _due(checkpoint: Checkpoint | None, place: Place) -> bool:
    if checkpoint is None:
        return False
    return place.stopped is not None or place.step % checkpoint.every == 0


def _check_same(place: Place, last: Pair | None, processes: Processes) -> None:
    stored = processes.rank == 0 or processes.sharded  # with DDP only the first stores its batch
    if processes.any_failed(stored and last is not None and checksum(last) != place.last):
        raise UsageError(
            f"batch {place.used} is not the one that the checkpoint has seen; give the same "
            "sequence of batches again (a DataLoader that shuffles needs a generator with a seed), "
            "or set same_batches=False"
        )
