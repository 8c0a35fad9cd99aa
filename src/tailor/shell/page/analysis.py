"""The section Analyze: what was found in all matrices, a table of them, and each by itself."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tailor.numerics.powerlaw import PowerLawFit
from tailor.shell import figures
from tailor.shell.figures import Layers
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.listing import listing
from tailor.shell.page.matrix import matrix
from tailor.shell.page.networks import Networks
from tailor.shell.page.overview import LEGEND, counts, failures, in_words, summary
from tailor.shell.page.tables import table
from tailor.shell.page.text import dimensions, escape, matrices
from tailor.stages.analyze import Analyses, Analysis, LayerAnalysis

OPEN_LAYERS = 3  # with more matrices only the first is open
LISTED_LAYERS = 40  # with more, the list of single matrices is closed at first
MOST_NETWORKS = len(figures.NETWORKS)  # drawn: as many as there are colours
MOST_DRAWN = 1200  # spectra with figures; a page of more would be slow to open


@dataclass(frozen=True, slots=True)
class Group:
    """One matrix in all networks that have it.

    Attributes:
        anchor: Its id on the page.
        name: Its name.
        layers: Networks by name, with its record.
        drawn: Whether it has figures.
    """

    anchor: str
    name: str
    layers: Sequence[tuple[str, LayerAnalysis]]
    drawn: bool


def section(analyses: Analyses, networks: Networks) -> str:
    """Body of the section."""
    shown, rest = _spread(analyses.analyses)
    groups = _by_matrix(shown)
    anchors = {group.name: group.anchor for group in groups if group.drawn}
    return "\n".join(
        [
            "<p>Every weight matrix is measured without data: the eigenvalues of WᵀW (squared "
            "singular values) and, if asked for, its weights. A straight line on log-log axes is "
            "a power law, p(x) ~ x<sup>−α</sup>; a small α is a heavy tail.</p>",
            rest,
            failures(shown, networks),
            reading([*in_words(shown, networks, anchors), *_comparison(groups, networks)]),
            counts(shown, networks),
            LEGEND,
            *_overview(shown, networks, many=len(groups) > OPEN_LAYERS),
            listing(shown, networks, anchors),
            _one_by_one(groups, networks),
            _skipped(shown, networks),
        ]
    )


def _spread(analyses: Sequence[Analysis]) -> tuple[Sequence[Analysis], str]:
    """As many models as there are colours, from first to last, and what is said of that."""
    if len(analyses) <= MOST_NETWORKS:
        return analyses, ""
    step = (len(analyses) - 1) / (MOST_NETWORKS - 1)
    shown = [analyses[round(i * step)] for i in range(MOST_NETWORKS)]
    return shown, (
        f'<p class="note">Of {len(analyses):,} models this section shows {len(shown)}, evenly '
        "spread from the first to the last. All of them are in analysis.csv.</p>"
    )


def _by_matrix(analyses: Sequence[Analysis]) -> list[Group]:
    """Every matrix in the networks that have it, in the order in which they are met."""
    found: dict[str, list[tuple[str, LayerAnalysis]]] = {}
    for analysis in analyses:
        for one in analysis.layers:
            found.setdefault(one.name, []).append((analysis.source, one))
    step = math.ceil(sum(map(len, found.values())) / MOST_DRAWN)
    return [
        Group(f"matrix-{place}", name, layers, place % step == 0)
        for place, (name, layers) in enumerate(found.items())
    ]


# What is seen


def _comparison(groups: Sequence[Group], networks: Networks) -> list[str]:
    """In how many matrices the intervals of two networks lie apart."""
    if len(networks.names) != 2 or all(len(group.layers) != 2 for group in groups):
        return []
    said = []
    layers = [group.layers for group in groups]
    for which, noun in (("entries", "weights"), ("spectrum", "eigenvalues")):
        pairs = _pairs(layers, which)
        apart = [a for a, b in pairs if a[1].high < b[1].low]
        heavier = {name for name, _ in apart}
        of = f"{len(apart)} of {matrices(len(pairs))}"
        if len(heavier) == 1:
            name = networks.name(heavier.pop())
            said.append(f"Tail of the {noun}: heavier in {name}, intervals apart in {of}.")
        elif pairs:
            rest = "in no one direction" if apart else "the networks cannot be told apart"
            said.append(f"Tail of the {noun}: intervals apart in {of}, {rest}.")
        elif any(getattr(one, which) is not None for group in layers for _, one in group):
            said.append(f"Tail of the {noun}: no matrix has a fit in both networks.")
    return said


def _pairs(groups: Iterable[Layers], which: str) -> list[list[tuple[str, PowerLawFit]]]:
    """Fits of matrices that have one in two networks, the heavier tail first."""
    pairs = []
    for layers in groups:
        fits = [(network, getattr(one, which)) for network, one in layers]
        fits = [(network, fit) for network, fit in fits if isinstance(fit, PowerLawFit)]
        if len(layers) == len(fits) == 2:
            pairs.append(sorted(fits, key=lambda pair: pair[1].alpha))
    return pairs


def _overview(shown: Sequence[Analysis], networks: Networks, *, many: bool) -> list[str]:
    """All exponents, stable ranks and norms along the depth, and their means."""
    if not many:
        return []
    depth = [(networks.label(one.source), one.layers) for one in shown]
    shapes = "Shapes: ● well-trained, ▼ over-trained, ▲ under-trained, ○ undecided."
    made = [
        figure(
            "all-spectrum",
            figures.exponents(depth, networks.colours),
            "<strong>Exponents of the eigenvalues</strong> along the network, with 95 % "
            f"intervals; dashed: 2 and 6. {shapes} A matrix without a fit has no mark.",
            "Exponents of the eigenvalues of all matrices",
        ),
        figure(
            "all-norms",
            figures.norms(depth, networks.colours),
            "<strong>Stable rank and norms</strong> along the network: ‖W‖² is the sum of the "
            "eigenvalues (dots), λmax the largest (diamonds); the stable rank is their ratio.",
            "Stable rank and norms of all matrices",
        ),
    ]
    if any(isinstance(one.entries, PowerLawFit) for _, layers in depth for one in layers):
        made.append(
            figure(
                "all-entries",
                figures.exponents(depth, networks.colours, of="entries"),
                "<strong>Exponents of the weights</strong> along the network.",
                "Exponents of the weights of all matrices",
            )
        )
    return [grid(*made, pairs=True), summary(shown, networks)]


# One by one


def _one_by_one(groups: Sequence[Group], networks: Networks) -> str:
    """Every matrix, to open."""
    drawn = [group for group in groups if group.drawn]
    shown = "\n".join(
        matrix(
            group.anchor,
            group.name,
            group.layers,
            networks,
            is_open=place == 0 or len(drawn) <= OPEN_LAYERS,
        )
        for place, group in enumerate(drawn)
    )
    if len(groups) <= LISTED_LAYERS:
        return f'<div class="layers">{shown}</div>'
    of = f"{len(drawn):,} of " if len(drawn) < len(groups) else ""
    return (
        f'<details class="layers"><summary>{of}{matrices(len(groups))}, one by one: spectrum, '
        f"fit against xmin, weights</summary>{shown}</details>"
    )


def _skipped(shown: Sequence[Analysis], networks: Networks) -> str:
    """Tensors that are no matrices, and why."""
    rows = [
        [
            escape(one.name),
            *([] if networks.alone else [networks.name(analysis.source)]),
            dimensions(one.shape),
            escape(one.dtype),
            escape(one.reason),
        ]
        for analysis in shown
        for one in analysis.skipped
    ]
    if not rows:
        return "<p>No tensor was left out.</p>"
    head = ["tensor", *([] if networks.alone else ["network"]), "shape", "type"]
    head.append("why it was left out")
    title = "Tensors that were not analyzed"
    shown_rows = table(title, head, rows, text=range(len(head)), wrap=len(head) - 1)
    return closed(f"{len(rows):,} tensors were not analyzed", shown_rows)
