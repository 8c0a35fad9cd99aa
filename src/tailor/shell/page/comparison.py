"""The section Compare: models side by side, layer by layer, and against what is to be predicted."""

from collections.abc import Sequence

from tailor.shell import figures
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.networks import Networks
from tailor.shell.page.tables import count, number, sortable, table
from tailor.shell.page.text import escape, matrices
from tailor.stages.compare import METRICS, Comparison, LayerChange, ModelSummary


def section(comparison: Comparison, networks: Networks) -> str:
    """Body of the section."""
    return "\n".join(
        [
            "<p>The models in the order in which they were given. Averages over all matrices "
            "hide which of them differ; the table of matrices shows it.</p>",
            reading(_changed(comparison, networks)),
            _figures(comparison, networks),
            _models(comparison, networks),
            _quality(comparison, networks),
            _layers(comparison, networks),
            _unmatched(comparison),
        ]
    )


def _labels(comparison: Comparison, networks: Networks) -> list[str]:
    return [networks.label(one.source) for one in comparison.models]


def _ends(comparison: Comparison, networks: Networks) -> tuple[str, str]:
    first, last = comparison.models[0], comparison.models[-1]
    return networks.name(first.source), networks.name(last.source)


def _fitted(comparison: Comparison) -> list[LayerChange]:
    return [layer for layer in comparison.layers if layer.change is not None]


def _changed(comparison: Comparison, networks: Networks) -> list[str]:
    """How many intervals of the first and the last model lie apart."""
    fitted = _fitted(comparison)
    first, last = _ends(comparison, networks)
    if not fitted:
        return [f"No matrix has a fit in both {first} and {last}."]
    apart = sum(layer.apart for layer in fitted)
    chance = "; of so many, some lie apart by chance alone" if 0 < apart < len(fitted) else ""
    return [
        f"From {first} to {last} the 95 % intervals of α lie apart in {apart:,} of "
        f"{matrices(len(fitted))}{chance}."
    ]


def _figures(comparison: Comparison, networks: Networks) -> str:
    labels = _labels(comparison, networks)
    if not any(alpha is not None for layer in comparison.layers for alpha in layer.alpha):
        return ""
    shown = [
        figure(
            "over-models",
            figures.over_models(comparison, labels),
            "<strong>Exponents over the models,</strong> of the matrices that at least two of "
            "them have. Dot: median. Thick: the middle half. Thin: least to largest. These are "
            "the spread over matrices, no intervals of confidence.",
            "Exponents over the models",
        )
    ]
    if _fitted(comparison):
        shown.append(
            figure(
                "changes",
                figures.changes(comparison, labels),
                "<strong>Matrix by matrix,</strong> from the first model (ring) to the last "
                "(dot), with 95 % intervals. Diamond: they lie apart.",
                "Exponents of every matrix in the first and the last model",
            )
        )
    return grid(*shown, pairs=True)


# Tables


def _models(comparison: Comparison, networks: Networks) -> str:
    head = [
        "model",
        "no.",
        *([comparison.quality] if comparison.quality else []),
        "matrices with a fit",
    ]
    head += [
        "weights",
        *(f"median {name}" for name in METRICS),
        *(f"mean {name}" for name in METRICS),
    ]
    rows = [
        _model(i, one, comparison, networks) for i, one in enumerate(comparison.models, start=1)
    ]
    return table("The models; median and mean over their matrices", head, rows)


def _model(i: int, one: ModelSummary, comparison: Comparison, networks: Networks) -> list[str]:
    cells = [networks.name(one.source), count(i)]
    if comparison.quality:
        cells.append(_cell(one.quality))
    cells += [count(one.matrices), count(one.weights)]
    cells += [_cell(one.median.get(name)) for name in METRICS]
    return cells + [_cell(one.mean.get(name)) for name in METRICS]


def _layers(comparison: Comparison, networks: Networks) -> str:
    """Every matrix in the first and in the last model."""
    if not comparison.layers:
        return "<p>No matrix is in two of the models.</p>"
    head = [("no.", ""), ("matrix", ""), ("α, first", "with its 95 % interval"), ("α, last", "")]
    head += [("change", "of α, last minus first"), ("intervals", "of α in the first and last")]
    for name in ("stable rank", "log₁₀ ‖W‖²"):
        head += [(f"{name}, first", ""), (f"{name}, last", "")]
    rows = [
        [
            count(i),
            escape(one.name),
            *(_interval(one, place) for place in (0, -1)),
            _cell(one.change),
            "–" if one.change is None else "apart" if one.apart else "overlap",
            *(_cell(one.stable_rank[place]) for place in (0, -1)),
            *(_cell(one.log_norm[place]) for place in (0, -1)),
        ]
        for i, one in enumerate(comparison.layers, start=1)
    ]
    caption = "Matrices in the first and the last model; all models are in layers.csv"
    return sortable("changed", caption, head, rows, text=(1, 5))


def _interval(layer: LayerChange, place: int) -> str:
    alpha, low, high = layer.alpha[place], layer.low[place], layer.high[place]
    if alpha is None or low is None or high is None:
        return "–"
    return f"{number(alpha)} [{low:.1f}, {high:.1f}]"


def _unmatched(comparison: Comparison) -> str:
    if not comparison.unmatched:
        return ""
    items = "".join(f"<li>{escape(name)}</li>" for name in comparison.unmatched)
    title = f"{matrices(len(comparison.unmatched))} in one model only"
    return closed(title, f"<ul>{items}</ul>")


# Quality


def _quality(comparison: Comparison, networks: Networks) -> str:
    """What each number of a model says about its quality; in the record's words."""
    if not comparison.quality:
        return ""
    name = escape(comparison.quality)
    title = f"<h3>Does a number order the models by {name}?</h3>"
    if not comparison.predictions:
        return f"{title}<p>A rank correlation needs at least three models that differ.</p>"
    labels = _labels(comparison, networks)
    shown = [
        figure(
            f"quality-{i}",
            figures.against_quality(comparison, one, labels),
            f"<strong>{escape(one.metric)}:</strong> {escape(one.meaning)}. Rank correlation "
            f"{one.correlation.rho:+.2f} [{one.correlation.low:+.2f}, "
            f"{one.correlation.high:+.2f}].",
            f"{one.metric} against {comparison.quality}",
        )
        for i, one in enumerate(comparison.predictions)
    ]
    caveats = reading([escape(one) for one in comparison.caveats])
    return title + caveats + _correlations(comparison) + _few_open(shown)


def _few_open(shown: Sequence[str]) -> str:
    few, rest = shown[:3], shown[3:]
    return grid(*few) + (closed(f"{len(rest)} more figures", grid(*rest)) if rest else "")


def _correlations(comparison: Comparison) -> str:
    head = ["number", "what it says", "rank correlation", "95 % interval", "p", "p, corrected"]
    head.append("least possible p")
    rows = [
        [
            escape(one.metric),
            escape(one.meaning),
            number(one.correlation.rho),
            f"[{number(one.correlation.low)}, {number(one.correlation.high)}]",
            number(one.correlation.p),
            number(one.corrected_p),
            number(one.correlation.least_p),
        ]
        for one in comparison.predictions
    ]
    caption = (
        f"Spearman's rank correlation with {comparison.quality}; corrected for the number of "
        "metrics that were tried (Holm)"
    )
    return table(caption, head, rows, text=(0, 1), wrap=1)


def _cell(value: float | None) -> str:
    return "–" if value is None else number(value)
