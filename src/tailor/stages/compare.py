"""Two or many analyzed models side by side, and whether their numbers predict a quality.

The rank correlation of a handful of models is a weak witness: with four of them even a perfect
order happens by chance once in twelve times. ``compare`` says so next to every number.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tailor import records
from tailor.errors import UsageError
from tailor.numerics.powerlaw import PowerLawFit
from tailor.numerics.ranks import RankCorrelation, rank_correlation
from tailor.stages.analyze import Analysis
from tailor.stages.analyze.table import row

if TYPE_CHECKING:
    import pandas

METRICS = (
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
)
SIGNIFICANT = 0.05  # after correction for the number of metrics that were tried


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One model in a few numbers.

    Attributes:
        source: Which one.
        quality: What is to be predicted, such as a test error; None if it is not known.
        matrices: Matrices with a fit.
        weights: Number of weights in all matrices.
        mean: Mean of each metric over the matrices that have it.
        median: Median of each.
    """

    source: str
    quality: float | None
    matrices: int
    weights: int
    mean: dict[str, float]
    median: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How well one number of a model orders the models by quality.

    Attributes:
        metric: Name, with how it was summarised over the matrices.
        correlation: Spearman's, with interval and p-value.
        corrected_p: Holm's p-value over all metrics that were tried.
        meaning: What this does and does not say, in a sentence.
    """

    metric: str
    correlation: RankCorrelation
    corrected_p: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """One matrix in the first and in the last model.

    Attributes:
        name: The matrix.
        alpha: Exponent in every model, in their order; None without a fit.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
        change: Exponent in the last model minus that in the first.
        apart: Whether these two intervals do not overlap.
        stable_rank: In every model.
        log_norm: log10 of the squared Frobenius norm in every model; None for a zero matrix.
    """

    name: str
    alpha: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    change: float | None
    apart: bool
    stable_rank: tuple[float | None, ...]
    log_norm: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models side by side.

    Attributes:
        models: One summary each, in the order that was given.
        layers: Matrices that at least two of them have.
        unmatched: Matrices that only one of them has, with its name.
        quality: What was to be predicted; empty if nothing was.
        predictions: One for each metric, least p-value first; empty without qualities.
        caveats: What the correlations cannot know, in sentences.
        provenance: Versions and settings.
    """

    models: tuple[ModelSummary, ...]
    layers: tuple[LayerChange, ...]
    unmatched: tuple[str, ...]
    quality: str
    predictions: tuple[Prediction, ...]
    caveats: tuple[str, ...]
    provenance: records.Provenance

    def to_frame(self) -> "pandas.DataFrame":
        """One row for each model."""
        import pandas

        rows = []
        for one in self.models:
            found: dict[str, object] = {"source": one.source, "matrices": one.matrices}
            found |= {"weights": one.weights}
            if self.quality:
                found[self.quality] = one.quality
            found |= {f"mean_{name}": value for name, value in one.mean.items()}
            found |= {f"median_{name}": value for name, value in one.median.items()}
            rows.append(found)
        return pandas.DataFrame(rows)

    def layers_to_frame(self) -> "pandas.DataFrame":
        """One row for each matrix in each model."""
        import pandas

        columns = ["layer", "source", "alpha", "alpha_ci_low", "alpha_ci_high", "stable_rank"]
        columns += ["log_norm", "change", "apart"]
        rows = [
            (
                layer.name,
                model.source,
                layer.alpha[i],
                layer.low[i],
                layer.high[i],
                layer.stable_rank[i],
                layer.log_norm[i],
                layer.change,
                layer.apart,
            )
            for layer in self.layers
            for i, model in enumerate(self.models)
        ]
        return pandas.DataFrame(rows, columns=columns)


def compare(
    analyses: Sequence[Analysis],
    *,
    quality: Mapping[str, float] | Sequence[float] | None = None,
    named: str = "quality",
    seed: int = 0,
) -> Comparison:
    """Put models side by side; with qualities, say which numbers order the models like them.

    Args:
        analyses: At least two, in order (of training, or as they came).
        quality: For each model, by its ``source`` or in the same order, such as a test error.
        named: What the quality is called.
        seed: Of the simulated intervals of the correlations.

    Raises:
        UsageError: Fewer than two models, equal names, qualities that do not match them, or a
            name of the quality that is taken.
    """
    if len(analyses) < 2:
        raise UsageError(f"compare needs at least two models, but got {len(analyses)}")
    names = [one.source for one in analyses]
    if len(set(names)) < len(names):
        raise UsageError("two of the models have the same name; give them different labels")
    known = None if quality is None else _qualities(quality, names)
    if named in ("", "source", "matrices", "weights"):
        raise UsageError(f"the quality cannot be called {named!r}; choose another name")
    models = tuple(
        _summary(one, None if known is None else known[i]) for i, one in enumerate(analyses)
    )
    layers, unmatched = _layers(analyses)
    return Comparison(
        models=models,
        layers=layers,
        unmatched=unmatched,
        quality="" if known is None else named,
        predictions=() if known is None else _predictions(models, known, named, seed),
        caveats=() if known is None else _caveats(analyses),
        provenance=records.Provenance.now(seed, quality=named if known else None),
    )


def _qualities(quality: Mapping[str, float] | Sequence[float], names: list[str]) -> list[float]:
    if isinstance(quality, Mapping):
        absent = [name for name in names if name not in quality]
        if absent:
            raise UsageError(f"there is no quality for {absent[0]}; known: {', '.join(quality)}")
        values = [float(quality[name]) for name in names]
    else:
        values = [float(value) for value in quality]
    if len(values) != len(names):
        raise UsageError(f"{len(values)} qualities were given for {len(names)} models")
    if not all(math.isfinite(value) for value in values):
        raise UsageError("every quality must be a finite number")
    return values


def _summary(analysis: Analysis, quality: float | None) -> ModelSummary:
    rows = [row(layer) for layer in analysis.layers]
    columns = {name: [r[name] for r in rows if r.get(name) is not None] for name in METRICS}
    found = {name: np.array(values, dtype=float) for name, values in columns.items() if values}
    return ModelSummary(
        source=analysis.source,
        quality=quality,
        matrices=sum(isinstance(layer.spectrum, PowerLawFit) for layer in analysis.layers),
        weights=sum(math.prod(layer.shape) for layer in analysis.layers),
        mean={name: float(values.mean()) for name, values in found.items()},
        median={name: float(np.median(values)) for name, values in found.items()},
    )


def _layers(analyses: Sequence[Analysis]) -> tuple[tuple[LayerChange, ...], tuple[str, ...]]:
    by_name = [{layer.name: layer for layer in one.layers} for one in analyses]
    names = dict.fromkeys(itertools.chain.from_iterable(by_name))
    shared, alone = [], []
    for name in names:
        found = [one.get(name) for one in by_name]
        owners = [one.source for one, layer in zip(analyses, found, strict=True) if layer]
        if len(owners) < 2:
            alone.append(f"{name} ({owners[0]})")
            continue
        fits = [None if layer is None else layer.spectrum for layer in found]
        kept = [fit if isinstance(fit, PowerLawFit) else None for fit in fits]
        first, last = kept[0], kept[-1]
        both = first is not None and last is not None
        rows = [None if layer is None else row(layer) for layer in found]
        shared.append(
            LayerChange(
                name=name,
                alpha=tuple(None if fit is None else fit.alpha for fit in kept),
                low=tuple(None if fit is None else fit.low for fit in kept),
                high=tuple(None if fit is None else fit.high for fit in kept),
                change=last.alpha - first.alpha if first and last else None,
                apart=both and (first.high < last.low or last.high < first.low),  # type: ignore[union-attr]
                stable_rank=tuple(None if r is None else r["stable_rank"] for r in rows),  # type: ignore[misc]
                log_norm=tuple(None if r is None else r["log_norm"] for r in rows),  # type: ignore[misc]
            )
        )
    return tuple(shared), tuple(alone)


# Quality


def _predictions(
    models: Sequence[ModelSummary], quality: list[float], named: str, seed: int
) -> tuple[Prediction, ...]:
    columns = _columns(models)
    if len(models) < 3 or not columns:
        return ()
    target = np.array(quality)
    found = {name: rank_correlation(x, target, seed=seed) for name, x in columns.items()}
    sizes = np.array([float(model.weights) for model in models])
    size = rank_correlation(sizes, target, seed=seed).rho if len(set(sizes)) > 1 else 0.0
    order = sorted(found, key=lambda name: found[name].p)
    predictions, worst = [], 0.0
    for place, name in enumerate(order):
        worst = max(worst, min(1.0, found[name].p * (len(order) - place)))  # Holm (1979)
        meaning = _meaning(found[name], worst, len(order), size, named)
        predictions.append(
            Prediction(metric=name, correlation=found[name], corrected_p=worst, meaning=meaning)
        )
    return tuple(predictions)


def _caveats(analyses: Sequence[Analysis]) -> tuple[str, ...]:
    shapes = {tuple((layer.name, layer.shape) for layer in one.layers) for one in analyses}
    if len(shapes) > 1:
        return ("The models differ in shape: what orders them may be their size or their depth.",)
    return (
        "All models have the same matrices. If they are steps of one training run they are not "
        "independent: everything that drifts with training is correlated, and p is too small.",
    )


def _columns(models: Sequence[ModelSummary]) -> dict[str, Float[ndarray, "models"]]:
    """Summaries that every model has and that are not all equal."""
    columns = {}
    for how in ("mean", "median"):
        for metric in METRICS:
            values = [getattr(model, how).get(metric) for model in models]
            if None not in values and len(set(values)) > 1:
                columns[f"{how}_{metric}"] = np.array(values, dtype=float)
    return columns


def _meaning(found: RankCorrelation, corrected: float, tried: int, size: float, named: str) -> str:
    """What a reader may conclude; never more than the sample carries."""
    least = min(1.0, found.least_p * tried)
    if least > SIGNIFICANT:
        return (
            f"says nothing: with {found.n} models and {tried} metrics even a perfect order has "
            f"p = {least:.2g}"
        )
    if corrected > SIGNIFICANT:
        return f"cannot be told from chance (p = {corrected:.2g} after {tried} metrics were tried)"
    direction = "rises" if found.rho > 0 else "falls"
    said = f"{named} {direction} with it (p = {corrected:.2g} after {tried} metrics were tried)"
    if abs(size) >= abs(found.rho):
        said += "; but the number of weights orders the models as well, so size may explain it"
    return said
