"""A recipe, followed."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tailor import records
from tailor.errors import UsageError
from tailor.numerics.coding import Coded
from tailor.records import Provenance
from tailor.stages.compress.frontier import tidy_order, tidy_scales
from tailor.stages.compress.held import Train, retrain_held
from tailor.stages.compress.measure import (
    Known,
    latency,
    overall,
    tensor_report,
)
from tailor.stages.compress.payload import Coder, CompressedModel, pack, to_tensor
from tailor.stages.compress.quantize import quantize
from tailor.stages.compress.recipe import (
    Factorize,
    Prune,
    Quantize,
    Recipe,
    Rescale,
    Retrain,
    Shrink,
    Step,
)
from tailor.stages.compress.report import Beside, CompressionReport, TensorReport
from tailor.stages.compress.rounding import round_held
from tailor.stages.factorize import factorize
from tailor.stages.inputs import collect
from tailor.stages.prune import geometric, prune
from tailor.stages.shrink import shrink, sizes_of
from tailor.stages.sparse import speed_note
from tailor.stages.targets import fitting
from tailor.stages.units import chains
from tailor.weights.layer import Layer
from tailor.weights.source import read
from tailor.weights.source.writing import once

Evaluate = Callable[[nn.Module], float]
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """A network after a recipe.

    Attributes:
        model: The network that the file holds, ready to use.
        file: The file.
        report: What was done, and what it cost.
    """

    model: nn.Module
    file: CompressedModel
    report: CompressionReport

    def save(self, folder: str | Path) -> Path:
        """Write ``model.tailor`` and ``compressed.json`` into a folder, each whole or not at all.

        Returns:
            The folder.
        """
        folder = Path(folder)
        self.file.save(folder / "model.tailor")
        records.save(self.report, folder / "compressed.json")
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the caller gave the steps to work with.

    Attributes:
        data: Batches for scores, allocations and compensation that need them; gone through more
            than once.
        retrain: Trains the module that it is given, in place.
        example: What the model is called with.
        watch: Is told the name of each step, how many are done, and how many there are.
    """

    data: Sequence[Any] | None = None
    retrain: Train | None = None
    example: tuple[Any, ...] | None = None
    watch: Watch | None = None


def compress(
    model: nn.Module,
    recipe: Recipe | Sequence[Step],
    *,
    data: Iterable[Any] | None = None,
    retrain: Train | None = None,
    evaluate: Evaluate | None = None,
    quality: str = "quality",
    example: Any = None,
    beside: bool = True,
    coder: Coder | None = None,
    about: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> Compressed:
    """Follow a recipe, and pack what comes out as one file.

    Args:
        model: The trained network; it is not changed.
        recipe: The steps, such as ``[Prune(0.8), Quantize()]``.
        data: Batches of inputs, for steps that look at what the layers see.
        retrain: Trains the module that it is given, in place, with whatever loop and data; zeros
            and rounded weights stay what they are.
        evaluate: Measures a network; called before, after, and for ``beside``.
        quality: What ``evaluate`` measures, for people.
        example: A tensor or a tuple that the model is called with. ``Shrink`` needs it, and with
            it the latency is measured.
        beside: Follow the recipe once more with uniform allocations where it has others, so that
            the report can say what the allocation is worth.
        coder: ``RANS()`` by default; ``Adaptive()`` for a certificate.
        about: Free text that is stored with the file.
        watch: Called with a step's name, how many are done, and how many there are.

    Returns:
        The network, the file and the report.

    Raises:
        UsageError: A step cannot be done, or lacks data, an example or a function.
        NonFinite: A weight is NaN or infinite.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(tuple(recipe))
    example = example if isinstance(example, tuple) or example is None else (example,)
    given = Given(
        data=None if data is None else list(data), retrain=retrain, example=example, watch=watch
    )
    done = _followed(model, recipe, given)
    about = {"recipe": recipe.written()} if about is None else dict(about)
    file, rows = _packed(model, done, coder, about)
    uniform = _uniform(model, recipe, given, evaluate, coder) if beside else None
    return Compressed(
        model=done.model,
        file=file,
        report=_report(model, recipe, done, file, rows, given, evaluate, quality, uniform),
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """A network on its way, and what the steps said."""

    model: nn.Module
    coded: dict[str, Coded] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    left_alone: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rescaled: bool = False


def _followed(model: nn.Module, recipe: Recipe, given: Given) -> _Work:
    work = _Work(model=copy.deepcopy(model))
    for number, step in enumerate(recipe.steps):
        if given.watch is not None:
            given.watch(type(step).__name__.lower(), number, len(recipe.steps))
        if work.coded:
            work.coded.clear()  # only the values that the last step leaves are coded
        match step:
            case Prune():
                _prune(work, step, given)
            case Shrink():
                _shrink(work, step, given)
            case Factorize():
                _factorize(work, step, given)
            case Retrain():
                _retrain(work, given)
            case Rescale():
                tidy_scales(work.model, chains(work.model))
                work.rescaled = True
            case Quantize():
                _quantize(work, step, given)
    return work


def _prune(work: _Work, step: Prune, given: Given) -> None:
    keys = _keys(work.model)
    for sparsity in _path(step):
        pruned = prune(
            work.model,
            sparsity,
            score=step.score,
            allocation=step.allocation,
            pattern=step.pattern,
            data=given.data,
            layers=step.layers,
            skip=step.skip,
            inplace=True,
        )
        if given.retrain is not None:
            _retrain(work, given)
    for row in pruned.report:
        work.known.target[keys[row.name]] = row.target
        if row.output_error is not None:
            work.known.output_error[keys[row.name]] = row.output_error
        if row.note:
            work.notes.append(f"{row.name}: {row.note}.")
    if pruned.allocated is not None:
        work.known.metric |= {keys[n]: value for n, value in pruned.allocated.metric.items()}
        if pruned.allocated.note:
            work.notes.append(pruned.allocated.note)


def _path(step: Prune) -> Sequence[float | None]:
    if step.rounds == 1 or step.sparsity is None:
        return (step.sparsity,)
    return geometric(step.sparsity, step.rounds)


def _shrink(work: _Work, step: Shrink, given: Given) -> None:
    if given.example is None:
        raise UsageError("Shrink has to see the network at work; give compress an example")
    small = shrink(
        work.model,
        step.ratio,
        given.example,
        data=given.data,
        importance=step.importance,
        compensate=step.compensate,
        align=step.align,
        layers=step.layers,
        skip=step.skip,
    )
    work.model = small.model
    work.left_alone += [(one.name, one.reason) for one in small.left_alone]


def _factorize(work: _Work, step: Factorize, given: Given) -> None:
    low = factorize(
        work.model,
        rank=step.rank,
        energy=step.energy,
        params=step.params,
        error=step.error,
        inputs=None if given.data is None else collect(work.model, given.data, gram="*"),
        layers=step.layers,
        skip=step.skip,
    )
    work.model = low.model
    work.left_alone += [(one.name, one.reason) for one in low.left_alone]


def _retrain(work: _Work, given: Given) -> None:
    if given.retrain is None:
        raise UsageError("Retrain has nothing to call; give compress a retrain function")
    zeros = {key: layer.load().detach() == 0 for key, layer in _layers(work.model).items()}
    retrain_held(work.model, {k: z for k, z in zeros.items() if bool(z.any())}, given.retrain)


def _quantize(work: _Work, step: Quantize, given: Given) -> None:
    retrain = given.retrain if step.retrain else None
    if retrain is not None or work.rescaled:
        keys = {one.key for one in fitting(work.model, step.layers, step.skip, who="Quantize")}
        fitted = round_held(work.model, step.quantizer, keys, retrain)
        if work.rescaled:
            tidy_order(work.model, chains(work.model))
        state = work.model.state_dict()
        work.coded |= {key: one.code(state[key]) for key, one in fitted.items()}
        return
    small = quantize(work.model, step.quantizer, layers=step.layers, skip=step.skip)
    work.model = small.model
    work.coded |= small.coded
    work.left_alone += [(one.name, one.reason) for one in small.left_alone]


def _layers(model: nn.Module) -> dict[str, Layer]:
    return {layer.key: layer for layer in read(model).layers}


def _keys(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.key for layer in read(model).layers}


# What is said of it


def _uniform(
    model: nn.Module,
    recipe: Recipe,
    given: Given,
    evaluate: Evaluate | None,
    coder: Coder | None,
) -> Beside | None:
    """The same with uniform allocations; None where the recipe has no others."""
    plain = recipe.with_uniform()
    if plain == recipe:
        return None
    work = _followed(model, plain, replace(given, watch=None))
    file, rows = _packed(model, work, coder, {})
    sparsity, error = overall(rows, _layers(work.model))
    return Beside(
        sparsity=sparsity,
        error=error,
        quality=None if evaluate is None else float(evaluate(work.model)),
        file_bytes=len(file.payload),
    )


def _changed(before: nn.Module, after: nn.Module) -> dict[str, dict[str, Any]]:
    """Sizes of the modules that were made smaller."""
    old = sizes_of(before)
    return {name: told for name, told in sizes_of(after).items() if told != old.get(name, told)}


def _report(
    model: nn.Module,
    recipe: Recipe,
    work: _Work,
    file: CompressedModel,
    rows: list[TensorReport],
    given: Given,
    evaluate: Evaluate | None,
    quality: str,
    uniform: Beside | None,
) -> CompressionReport:
    before, after = model.state_dict(), work.model.state_dict()
    zeros, error = overall(rows, _layers(work.model))
    counts = _count(before), _count(after)
    pruned = any(isinstance(step, Prune) for step in recipe.steps)
    note = speed_note(zeros) if pruned and counts[0] == counts[1] else ""
    return CompressionReport(
        source=type(model).__name__,
        recipe=str(recipe),
        tensors=tuple(rows),
        sparsity=zeros,
        error=error,
        parameters=counts,
        dense_bytes=sum(t.numel() * t.element_size() for t in once(before)[0].values()),
        file_bytes=len(file.payload),
        stream_bytes=len(file.stream),
        limit_bytes=sum(row.limit_bytes for row in rows),
        quality_name=quality if evaluate is not None else "",
        quality_before=None if evaluate is None else float(evaluate(model)),
        quality_after=None if evaluate is None else float(evaluate(work.model)),
        uniform=uniform,
        frontier=(),
        latency=None if given.example is None else latency(model, work.model, given.example),
        left_alone=tuple(work.left_alone),
        notes=(*work.notes, *([note] if note else [])),
        provenance=Provenance.now(recipe=recipe),
    )


def _packed(
    model: nn.Module, work: _Work, coder: Coder | None, about: Mapping[str, str]
) -> tuple[CompressedModel, list[TensorReport]]:
    """The file, and its rows; what it holds is put into the network, so that this is measured."""
    sizes = _changed(model, work.model)
    file = pack(work.model, work.coded, coder=coder, about=about, sizes=sizes)
    before, coded, specs = model.state_dict(), file.coded(), file.specs()
    after = {name: to_tensor(coded[name], spec) for name, spec in specs.items()}
    work.model.load_state_dict(after | {alias: after[name] for alias, name in file.ties.items()})
    return file, [
        tensor_report(
            name, _same(before.get(name), after[name]), after[name], coded[name], spec, work.known
        )
        for name, spec in specs.items()
    ]


def _same(before: Tensor | None, after: Tensor) -> Tensor | None:
    return before if before is not None and before.shape == after.shape else None


def _count(state: Mapping[str, Tensor]) -> int:
    """Elements of all tensors, those that share their memory once."""
    return sum(tensor.numel() for tensor in once(state)[0].values())
