"""The section Analyze: spectra and tails of every weight matrix, network beside network."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell import figures
from tailor.shell.figures.analysis import DECADES, Layers
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.networks import Networks
from tailor.shell.page.tables import count, number, share, table
from tailor.shell.page.text import dimensions, escape, matrices
from tailor.stages.analyze import Analyses, LayerAnalysis

OPEN_LAYERS = 3  # with more matrices only the first is open

Groups: TypeAlias = Mapping[str, Layers]  # every matrix by its name


def section(analyses: Analyses, networks: Networks) -> str:
    """Body of the section."""
    groups = _by_matrix(analyses)
    parts = [
        "<p>Every weight matrix is measured without data: the eigenvalues of WᵀW (squared "
        "singular values) and the sizes of its weights. A straight line on these log-log axes "
        "is a power law, p(x) ~ x<sup>−α</sup>. A small α is a heavy tail.</p>",
        reading(_comparison(groups, networks)),
        "<p>Any sample gets an exponent, also one without a power law. D says how far the "
        "fitted tail is from the data; 0 is perfect. An asymptotic interval takes xmin as "
        "given and is somewhat too short.</p>",
    ]
    if len(groups) > OPEN_LAYERS:
        parts.append(_overview(analyses, networks))
    parts.append(_numbers(groups, networks))
    for place, (name, layers) in enumerate(groups.items()):
        is_open = place == 0 or len(groups) <= OPEN_LAYERS
        parts.append(_matrix(f"matrix-{place}", name, layers, networks, is_open=is_open))
    parts.append(_skipped(analyses, networks))
    return "\n".join(parts)


def _by_matrix(analyses: Analyses) -> Groups:
    """Every matrix in the networks that have it, in the order in which they are met."""
    groups: dict[str, list[tuple[str, LayerAnalysis]]] = {}
    for analysis in analyses.analyses:
        for one in analysis.layers:
            groups.setdefault(one.name, []).append((analysis.source, one))
    return groups


# ---- what is seen -------------------------------------------------------------------------


def _comparison(groups: Groups, networks: Networks) -> list[str]:
    """In how many matrices the intervals of two networks lie apart."""
    if all(len(layers) != 2 for layers in groups.values()):
        return []
    said = []
    for which, noun in (("entries", "weights"), ("spectrum", "eigenvalues")):
        pairs = _pairs(groups.values(), which)
        apart = [a for a, b in pairs if a[1].high < b[1].low]
        heavier = {name for name, _ in apart}
        of = f"{len(apart)} of {matrices(len(pairs))}"
        if len(heavier) == 1:
            name = networks.name(heavier.pop())
            said.append(f"Tail of the {noun}: heavier in {name}, intervals apart in {of}.")
        elif pairs:
            rest = "in no one direction" if apart else "the networks cannot be told apart"
            said.append(f"Tail of the {noun}: intervals apart in {of}, {rest}.")
        else:
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


def _in_words(fit: PowerLawFit | NoFit) -> str:
    if isinstance(fit, NoFit):
        return f"have no fit ({escape(fit.reason)})"
    return (
        f"α\u00a0=\u00a0{fit.alpha:.2f} [{fit.low:.2f},\u00a0{fit.high:.2f}] over the largest "
        f"{fit.n_tail:,} of {fit.n:,}, D\u00a0=\u00a0{fit.D:.3f}"
    )


# ---- figures ------------------------------------------------------------------------------


def _overview(analyses: Analyses, networks: Networks) -> str:
    """All exponents, for models of many matrices."""
    return grid(
        *(
            figure(
                f"all-{which}",
                figures.exponents(analyses, networks.colours, of=which),
                f"<strong>Exponents of the {noun},</strong> matrix by matrix. Matrices "
                "without a fit have no mark; long intervals end at the axis.",
                f"Exponents of the {noun} of all matrices",
            )
            for which, noun in (("spectrum", "eigenvalues"), ("entries", "weights"))
        )
    )


def _matrix(anchor: str, name: str, layers: Layers, networks: Networks, *, is_open: bool) -> str:
    """One matrix in all networks that have it: three figures, drawn when they are seen."""
    shapes = sorted({dimensions(one.shape) for _, one in layers})
    said = [
        f"{networks.name(network)}: {noun} {_in_words(fit)}."
        for network, one in layers
        for noun, fit in (("weights", one.entries), ("eigenvalues", one.spectrum))
    ]
    bars = " Counts in equal bins, scaled to a density; its axis is logarithmic."
    made = [
        ("spectrum", figures.spectrum, "Eigenvalues.", _lines(layers, "spectrum")),
        ("entries", figures.entries, "Sizes of the weights.", _lines(layers, "entries")),
        ("histogram", figures.histogram, "Weights.", bars),
    ]
    shown = [
        figure(
            f"{anchor}-{kind}",
            draw(layers, networks.colours),
            f"<strong>{title}</strong>{more}",
            f"{title[:-1]} of {name}",
        )
        for kind, draw, title, more in made
    ]
    ids = " ".join(f"{anchor}-{kind}" for kind, *_ in made)
    return (
        f'<details class="layer"{" open" if is_open else ""}>'
        f'<summary><b>{escape(name)}</b><span class="sub">{", ".join(shapes)}</span></summary>'
        f"{reading(said)}{grid(*shown)}"
        f'<details data-numbers="{ids}"><summary class="sub">Numbers drawn here</summary>'
        "</details></details>"
    )


def _lines(layers: Layers, of: str) -> str:
    """What the lines of a tail's figure mean, and what its axis leaves out."""
    said = " Both axes are logarithmic."
    if any(isinstance(getattr(one, of), PowerLawFit) for _, one in layers):
        said += " Line: fitted tail. Dotted: xmin."
    drawn: list[float] = []
    for _, one in layers:
        drawn += [value**2 for value in one.singular_values] if of == "spectrum" else one.survival.x
    decades = DECADES[of]
    least = max(drawn, default=0.0) / 10**decades
    if any(0 < value < least for value in drawn):
        said += f" Values below 10<sup>−{decades}</sup> of the largest are left of the axis."
    return said


# ---- tables -------------------------------------------------------------------------------


def _numbers(groups: Groups, networks: Networks) -> str:
    """Three tables: norms, fits of the eigenvalues, fits of the weights."""
    found = [(network, one) for layers in groups.values() for network, one in layers]
    names = [[escape(one.name), networks.name(network)] for network, one in found]
    layers = [one for _, one in found]
    norms = [[*name, *_norms(one)] for name, one in zip(names, layers, strict=True)]
    head = ["matrix", "network", "shape", "as a matrix", "type", "stable rank"]
    head += ["spectral norm", "Frobenius norm", "zeros", "same tensor as"]
    shown = table("Shapes and norms", head, norms, text=(0, 1, 2, 3, 4, 9))
    head = ["matrix", "network", "α", "95 % interval", "kind", "tail index α − 1"]
    head += ["std. error", "xmin", "xmax", "D", "values in tail"]
    for which, noun in (("spectrum", "eigenvalues"), ("entries", "sizes of the weights")):
        fits = [getattr(one, which) for one in layers]
        rows = [[*name, *_fit(fit)] for name, fit in zip(names, fits, strict=True)]
        shown += table(f"Power law of the {noun}", head, rows, text=(0, 1))
    return shown


def _norms(one: LayerAnalysis) -> list[str]:
    return [
        dimensions(one.shape),
        f"{one.rows:,} × {one.columns:,}",
        escape(one.dtype),
        number(one.stable_rank),
        number(one.spectral_norm),
        number(one.frobenius_norm),
        share(one.zeros),
        ", ".join(map(escape, one.aliases)) or "–",
    ]


def _fit(fit: PowerLawFit | NoFit) -> list[str]:
    """The fit, or its refusal."""
    if isinstance(fit, NoFit):
        return ["no fit", *["–"] * 7, f"0 of {count(fit.n)}: {escape(fit.reason)}"]
    return [
        number(fit.alpha),
        f"[{number(fit.low)}, {number(fit.high)}]",
        escape(fit.interval),
        number(fit.alpha - 1),
        number(fit.sigma),
        number(fit.xmin),
        number(fit.xmax),
        number(fit.D),
        f"{count(fit.n_tail)} of {count(fit.n)}",
    ]


def _skipped(analyses: Analyses, networks: Networks) -> str:
    """Tensors that are no matrices, and why."""
    rows = [
        [
            escape(one.name),
            networks.name(analysis.source),
            dimensions(one.shape),
            escape(one.dtype),
            escape(one.reason),
        ]
        for analysis in analyses.analyses
        for one in analysis.skipped
    ]
    if not rows:
        return "<p>No tensor was left out.</p>"
    head = ["tensor", "network", "shape", "type", "why it was left out"]
    shown = table("Tensors that were not analyzed", head, rows, text=range(5), wrap=4)
    return closed(f"{len(rows):,} tensors were not analyzed", shown)
