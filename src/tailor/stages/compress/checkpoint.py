"""Compress a checkpoint on disk: one matrix in memory at a time, and no network needed."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from tailor import records
from tailor.errors import RecordError, UsageError
from tailor.numerics.coding import Coded, Spec
from tailor.numerics.coding.packed import ending, groups, write_group
from tailor.records import Json, Provenance
from tailor.stages.allocate import Allocated
from tailor.stages.compress.measure import Known, overall, tensor_report
from tailor.stages.compress.payload import (
    RANS,
    CompressedModel,
    raw,
    spec_of,
    to_tensor,
    write_file,
)
from tailor.stages.compress.quantize import quantize_layer
from tailor.stages.compress.recipe import Prune, Quantize, Recipe, Step
from tailor.stages.compress.report import Beside, CompressionReport, TensorReport
from tailor.stages.modules import LeftAlone
from tailor.stages.prune import prune_layers
from tailor.stages.sparse import speed_note
from tailor.version import __version__
from tailor.weights.layer import Layer, Other, Weights
from tailor.weights.source import fingerprint, select

Watch = Callable[[str, int, int], None]
Evaluate = Callable[[Mapping[str, Tensor]], float]

PARTIAL = ".partial"  # added to the name of the file, for the folder of what is done


def compress_checkpoint(
    weights: Weights,
    path: str | Path,
    recipe: Recipe | Sequence[Step],
    *,
    beside: bool = True,
    evaluate: Evaluate | None = None,
    quality: str = "quality",
    label: str | None = None,
    about: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> CompressionReport:
    """Prune and quantise the matrices of a checkpoint, and write them as one file.

    Only one matrix is in memory at a time. What is finished is kept beside the file until the
    file is whole, so that a run that was killed goes on where it was.

    Args:
        weights: From ``read``.
        path: The file to write.
        recipe: One ``Prune`` or one ``Quantize``, or both in this order. Scores and allocations
            that look at data need the network: use ``compress``.
        beside: Do the same with a uniform allocation where the recipe has another one, so that
            the report can say what the allocation is worth.
        evaluate: Measures a network with these weights by name; called before, after, and for
            ``beside``.
        quality: What it measures, for people.
        label: What the report calls the source.
        about: Free text that is stored with the file.
        watch: Called with a tensor's name, how many are done, and how many there are.

    Raises:
        UsageError: The recipe has other steps, needs data, or does not fit the matrices.
        NonFinite: A weight is NaN or infinite.
        OutputError: The file cannot be written.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe(tuple(recipe))
    prune, quantize = _steps(recipe)
    run = _Run(
        weights=weights,
        path=Path(path),
        prune=prune,
        quantize=quantize,
        about=dict(about or {"recipe": recipe.written()}),
        watch=watch,
    )
    before = None
    if evaluate is not None:  # first, since weights that do not fit are found out by it
        before = float(evaluate({one.name: one.load() for one in _tensors(weights)}))
    allocated, rows = run.write()
    uniform = None
    even = recipe.with_uniform()
    if beside and even != recipe:
        aside = run.path.with_name(run.path.name + ".uniform")
        second = replace(run, path=aside, prune=_steps(even)[0])
        _, others = second.write()
        sparsity, error = overall(others, run.matrices)
        uniform = Beside(
            sparsity=sparsity,
            error=error,
            quality=_quality(evaluate, aside),
            file_bytes=aside.stat().st_size,
        )
        aside.unlink()
    report = _report(run, recipe, allocated, rows, uniform, label or weights.source)
    if evaluate is not None:
        report = replace(
            report,
            quality_name=quality,
            quality_before=before,
            quality_after=_quality(evaluate, run.path),
        )
    run.clear()
    return report


def _quality(evaluate: Evaluate | None, path: Path) -> float | None:
    if evaluate is None:
        return None
    return float(evaluate(CompressedModel.load(path).state_dict()))


def _steps(recipe: Recipe) -> tuple[Prune | None, Quantize | None]:
    kinds = [type(step) for step in recipe.steps]
    if kinds not in ([Prune], [Quantize], [Prune, Quantize]):
        named = ", ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"a checkpoint can be pruned, quantised, or both in this order, but the recipe has "
            f"{named}; use compress on the network for more"
        )
    prune = next((step for step in recipe.steps if isinstance(step, Prune)), None)
    quantize = next((step for step in recipe.steps if isinstance(step, Quantize)), None)
    if prune is not None:
        for method in (prune.score, prune.allocation):
            if method.needs != "nothing":
                raise UsageError(
                    f"{method} has to see what the layers are given, which a checkpoint cannot "
                    "say; use compress on the network with data"
                )
    return prune, quantize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """All tensors of one checkpoint, on their way into one file."""

    weights: Weights
    path: Path
    prune: Prune | None
    quantize: Quantize | None
    about: dict[str, str]
    watch: Watch | None
    matrices: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrices", frozenset(one.name for one in self.weights.layers))

    def write(self) -> tuple[Allocated | None, list[TensorReport]]:
        """Write the file; what each tensor became, in its order."""
        work = self._begin()
        allocated = self._allocated(work)
        tensors = _tensors(self.weights)
        rows: list[TensorReport] = []
        specs: dict[str, Spec] = {}
        sections: list[Path] = []
        for number, pairs in enumerate(groups((one, _size_of(one)) for one in tensors)):
            group = [one for one, _ in pairs]
            section, record = (work / f"{number:06}.{end}" for end in ("section", "json"))
            found = _finished(section, record)
            if found is None:
                found = self._group(group, allocated, section, record)
            for row, dtype in zip(found.rows, found.dtypes, strict=True):
                specs[row.name] = Spec(shape=row.shape, dtype=dtype)
            rows += found.rows
            sections.append(section)
            if self.watch is not None:
                self.watch(rows[-1].name, len(rows), len(tensors))
        ties = {alias: one.name for one in self.weights.layers for alias in one.aliases}
        stream = _joined(sections, sum(map(_elements, tensors)))
        write_file(self.path, specs, stream, coder=RANS(), ties=ties, about=self.about)
        return allocated, rows

    def clear(self) -> None:
        """Remove what was kept for another run."""
        for path in (self.path, self.path.with_name(self.path.name + ".uniform")):
            shutil.rmtree(path.with_name(path.name + PARTIAL), ignore_errors=True)

    def _begin(self) -> Path:
        """The folder of what is done; empty unless an equal run was there."""
        work = self.path.with_name(self.path.name + PARTIAL)
        steps = [one for one in (self.prune, self.quantize) if one is not None]
        head: Json = {
            "tailor": __version__,
            "source": fingerprint(self.weights),
            "recipe": repr(tuple(steps)),
            "names": [one.name for one in _tensors(self.weights)],
        }
        with suppress(OSError, ValueError):
            known = json.loads((work / "run.json").read_bytes())
            if known == head and known["source"] is not None:
                return work
        shutil.rmtree(work, ignore_errors=True)
        records.write(work / "run.json", json.dumps(head).encode())
        return work

    def _allocated(self, work: Path) -> Allocated | None:
        if self.prune is None:
            return None
        path = work / "allocated.json"
        with suppress(RecordError):
            return records.load(Allocated, path)
        prune = self.prune
        if prune.pattern is not None:
            return None
        chosen = select(self.weights, *_patterns(prune)).layers
        found = prune.allocation.allocate(chosen, prune.sparsity, score=prune.score)
        records.save(found, path)
        return found

    def _group(
        self,
        group: Sequence[Layer | Other],
        allocated: Allocated | None,
        section: Path,
        record: Path,
    ) -> "_Group":
        pairs: list[tuple[Coded, Spec]] = []
        rows: list[TensorReport] = []
        for one in group:
            coded, spec, row = self._tensor(one, allocated)
            pairs.append((coded, spec))
            rows.append(row)
        records.write(section, write_group(pairs))
        found = _Group(rows=tuple(rows), dtypes=tuple(spec.dtype for _, spec in pairs))
        records.save(found, record)  # last: it says that the section is whole
        return found

    def _tensor(
        self, one: Layer | Other, allocated: Allocated | None
    ) -> tuple[Coded, Spec, TensorReport]:
        """Load, prune, quantise and measure one tensor."""
        before = one.load().detach()
        spec, known = spec_of(before, one.name), Known()
        tensor = before
        coded: Coded = raw(before)
        if isinstance(one, Layer):
            layer = replace(one, load=lambda: before, factors=None)
            if self.prune is not None and _fits(layer, self.prune):
                tensor = self._pruned(layer, allocated, self.prune, known)
                coded = raw(tensor)
            if self.quantize is not None and _fits(layer, self.quantize):
                here = replace(layer, load=lambda: tensor)
                found = quantize_layer(here, self.quantize.quantizer)
                if not isinstance(found, LeftAlone):
                    coded = found[0]
        after = to_tensor(coded, spec)
        return coded, spec, tensor_report(one.name, before, after, coded, spec, known)

    def _pruned(
        self, layer: Layer, allocated: Allocated | None, prune: Prune, known: Known
    ) -> Tensor:
        chosen = allocated or Allocated(method=str(prune.pattern), drop={}, sizes={})
        (one,) = prune_layers([layer], chosen, prune.score, pattern=prune.pattern)
        known.target[layer.name] = one.row.target
        if layer.name in chosen.metric:
            known.metric[layer.name] = chosen.metric[layer.name]
        return one.tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A finished section, on disk beside it."""

    rows: tuple[TensorReport, ...]
    dtypes: tuple[str, ...]


def _finished(section: Path, record: Path) -> _Group | None:
    if not section.is_file():
        return None
    with suppress(RecordError):
        return records.load(_Group, record)
    return None


def _tensors(weights: Weights) -> list[Layer | Other]:
    return [*weights.layers, *weights.others]


def _size_of(one: Layer | Other) -> Spec:
    """Its shape, with a type that plays no part in how tensors are put together."""
    return Spec(shape=one.shape, dtype="float32")


def _elements(one: Layer | Other) -> int:
    return math.prod(one.shape)


def _patterns(step: Prune | Quantize) -> tuple[tuple[str, ...], tuple[str, ...]]:
    both = [(one,) if isinstance(one, str) else tuple(one) for one in (step.layers, step.skip)]
    return both[0], both[1]


def _fits(layer: Layer, step: Prune | Quantize) -> bool:
    alone = Weights(source="", layers=(layer,), others=())
    try:
        return bool(select(alone, *_patterns(step)).layers)
    except UsageError:
        return False


def _joined(sections: Sequence[Path], elements: int) -> Iterator[bytes]:
    written = 0
    for section in sections:
        data = section.read_bytes()
        written += len(data)
        yield data
    yield ending(elements, written)


def _report(
    run: _Run,
    recipe: Recipe,
    allocated: Allocated | None,
    rows: list[TensorReport],
    uniform: Beside | None,
    label: str,
) -> CompressionReport:
    sparsity, error = overall(rows, run.matrices)
    size = run.path.stat().st_size
    elements = sum(map(_elements, _tensors(run.weights)))
    notes = [allocated.note if allocated else "", speed_note(sparsity) if run.prune else ""]
    return CompressionReport(
        source=label,
        recipe=str(recipe),
        tensors=tuple(rows),
        sparsity=sparsity,
        error=error,
        parameters=(elements, elements),
        dense_bytes=sum(row.dense_bytes for row in rows),
        file_bytes=size,
        stream_bytes=round(sum(row.packed_bytes for row in rows)),
        limit_bytes=sum(row.limit_bytes for row in rows),
        quality_name="",
        quality_before=None,
        quality_after=None,
        uniform=uniform,
        frontier=(),
        latency=None,
        left_alone=(),
        notes=tuple(note for note in notes if note),
        provenance=Provenance.now(recipe=recipe),
    )
