"""``analyze``: every matrix of a model through the engine, one in memory at a time."""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tailor import records
from tailor.engine import Engine, Local
from tailor.errors import NonFinite
from tailor.numerics.powerlaw import Clauset, TailFit
from tailor.stages.analyze.journal import Journal
from tailor.stages.analyze.layer import Measurement, Rows, SpectrumFit, measure
from tailor.stages.analyze.measures import Exact, Measure
from tailor.stages.analyze.record import Analysis, Failed, LayerAnalysis, Skipped
from tailor.weights.layer import Layer, Weights
from tailor.weights.source import Source, fingerprint, read
from tailor.weights.views import Standard, View

Watch: TypeAlias = Callable[[str, int, int], None]


def analyze(
    source: Source | Weights,
    *,
    spectrum: SpectrumFit | None = None,
    entries: TailFit | None = None,
    measures: Sequence[Measure] = (),
    view: View | None = None,
    solver: Exact | None = None,
    drawings: bool = False,
    engine: Engine | None = None,
    journal: str | os.PathLike[str] | None = None,
    label: str | None = None,
    seed: int | None = None,
    watch: Watch | None = None,
) -> Analysis:
    """Measure every weight matrix of a model; each worker holds one tensor at a time.

    Args:
        source: What ``read`` takes, or what it gives (also from ``select`` or ``difference``).
        spectrum: Fit of the eigenvalues' tail; ``Clauset()`` by default.
        entries: Fit of the weights' tail, such as ``Clauset(largest=10_000)``; None: no fit.
        measures: What else to measure, such as ``MarchenkoPastur()``.
        view: How tensors become matrices; ``Standard()`` by default.
        solver: How eigenvalues are computed; ``Exact()`` by default.
        drawings: Keep a histogram and the survival function of the weights, for figures.
        engine: Where the work runs; ``Local()`` by default.
        journal: File to which every result is appended as it comes. A run that finds there
            what an equal run began (same source, same settings) goes on from it. Delete it
            when you have kept the result.
        label: Name for the report; what ``read`` calls the source by default.
        seed: Seed of the run that made the model, for the record.
        watch: Called after each tensor with its name, how many are done, and how many there are.

    Returns:
        One record for each matrix, and every tensor that is none. A matrix with NaN becomes a
        ``Failed``.

    Raises:
        SourceError: The source cannot be read.
        NonFinite: Not one matrix could be analyzed; the message names the first.
    """
    weights = source if isinstance(source, Weights) else read(source)
    settings = {
        "spectrum": Clauset() if spectrum is None else spectrum,
        "entries": entries,
        "measures": tuple(measures),
        "view": Standard() if view is None else view,
        "solver": Exact() if solver is None else solver,
        "drawings": drawings,
    }
    tasks = [Measurement(layer=layer, **settings) for layer in weights.layers]  # type: ignore[arg-type]
    book = Journal(journal, fingerprint(weights), settings)
    rows = dict(book.found(len(tasks)))
    _run(engine or Local(), tasks, rows, book, watch)
    found = [one for i in range(len(tasks)) for one in rows[i]]
    layers = tuple(one for one in found if isinstance(one, LayerAnalysis))
    failed = tuple(one for one in found if isinstance(one, Failed))
    if not layers:
        raise NonFinite(f"{failed[0].name}: {failed[0].reason}")
    return Analysis(
        source=weights.source if label is None else label,
        layers=layers,
        failed=failed,
        skipped=tuple(map(Skipped.of, weights.others)),
        provenance=records.Provenance.now(seed, **settings),
    )


def _run(
    engine: Engine,
    tasks: list[Measurement],
    rows: dict[int, Rows],
    book: Journal,
    watch: Watch | None,
) -> None:
    """Measure what the journal does not have, and write it down as it comes."""
    missing = [i for i in range(len(tasks)) if i not in rows]
    costs = [_cost(tasks[i].layer) for i in missing]
    for place, result in engine.map(measure, [tasks[i] for i in missing], costs):
        index = missing[place]
        rows[index] = result
        book.append(index, result)
        if watch is not None:
            watch(tasks[index].layer.name, len(rows), len(tasks))


def _cost(layer: Layer) -> float:
    rows, columns = layer.shape[0], int(np.prod(layer.shape[1:]))
    return float(rows) * columns * min(rows, columns)
