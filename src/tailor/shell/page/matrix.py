"""One matrix in all networks that have it: what is said of it, its figures, all its numbers."""

import math
from bisect import bisect_right
from collections.abc import Callable

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell import figures
from tailor.shell.figures import Layers
from tailor.shell.figures.scan import THRESHOLDS
from tailor.shell.figures.tail import DECADES, is_low_rank, is_of_these
from tailor.shell.page.blocks import figure, grid, reading
from tailor.shell.page.listing import named_values
from tailor.shell.page.networks import Networks
from tailor.shell.page.text import dimensions, escape, safe_json
from tailor.stages.analyze import LayerAnalysis
from tailor.stages.analyze.layer import LIKE_NOISE, REJECTED

Drawing = tuple[str, Callable[[Layers, figures.Colours], figures.Figure], str, str]


def matrix(anchor: str, name: str, layers: Layers, networks: Networks, *, is_open: bool) -> str:
    """A part of the page that opens on a click; its figures are drawn when they are seen.

    Args:
        anchor: Id of the part.
        name: Of the matrix.
        layers: Networks by name, with its record.
        networks: All networks of the page.
        is_open: Whether it is open at first.
    """
    shapes = sorted({dimensions(one.shape) for _, one in layers})
    said = [_start(network, networks) + s for network, one in layers for s in _sentences(one)]
    drawn = [(networks.label(network), one) for network, one in layers]
    made = _drawings(drawn)
    shown = [
        figure(
            f"{anchor}-{kind}",
            draw(drawn, networks.colours),
            f"<strong>{title}</strong>{more}",
            f"{title[:-1]} of {name}",
        )
        for kind, draw, title, more in made
    ]
    ids = " ".join(f"{anchor}-{kind}" for kind, *_ in made)
    return (
        f'<details class="layer" id="{anchor}"{" open" if is_open else ""}>'
        f"<summary><b>{escape(name)}</b>"
        f'<span class="sub">{", ".join(shapes)}{_in_short(layers)}</span></summary>'
        f"{reading(said)}{grid(*shown, pairs=len(shown) == 4)}"
        f"{_numbers(anchor, layers, networks)}"
        f'<details data-numbers="{ids}"><summary class="sub">Numbers drawn here</summary>'
        '</details><p class="sub"><a href="#matrices">Table of all matrices</a></p></details>'
    )


# In words


def _start(network: str, networks: Networks) -> str:
    return "" if networks.alone else f"{networks.name(network)}: "


def _in_short(layers: Layers) -> str:
    """Exponent and verdict, where there is one network."""
    if len(layers) > 1:
        return ""
    ((_, one),) = layers
    fit = one.spectrum
    return ", no fit" if isinstance(fit, NoFit) else f", α = {fit.alpha:.2f}, {escape(one.verdict)}"


def _sentences(one: LayerAnalysis) -> list[str]:
    """What is known of one matrix of one network."""
    said = [f"eigenvalues {_fitted(one.spectrum)}."]
    if isinstance(one.spectrum, PowerLawFit):
        said[0] += f" {escape(one.verdict.capitalize())}: {_why(one, one.spectrum)}."
    said += _measured(one)
    if one.entries is not None:
        said.append(f"weights {_fitted(one.entries)}.")
    if one.matrices > 1:
        pooled = f"{one.matrices:,} matrices of {one.rows:,} × {one.columns:,}"
        said.append(f"{len(one.singular_values):,} eigenvalues of {pooled} are pooled.")
    if is_low_rank(one):
        count = len(one.singular_values)
        said.append(f"a product of low rank, with {count:,} eigenvalues that are not zero.")
    if one.aliases:
        said.append(f"also stored as {', '.join(map(escape, one.aliases))}.")
    return [
        sentence if sentence[0] == "α" else sentence[0].upper() + sentence[1:] for sentence in said
    ]


def _fitted(fit: PowerLawFit | NoFit) -> str:
    if isinstance(fit, NoFit):
        return f"have no fit ({escape(fit.reason)})"
    return (
        f"α\u00a0=\u00a0{fit.alpha:.2f} [{fit.low:.2f},\u00a0{fit.high:.2f}] over the largest "
        f"{fit.n_tail:,} of {fit.n:,}, D\u00a0=\u00a0{fit.D:.3f}"
    )


def _why(one: LayerAnalysis, fit: PowerLawFit) -> str:
    """What the verdict rests on."""
    low, high = THRESHOLDS
    if one.verdict != "undecided":
        where = {"over-trained": f"below {low:g}", "under-trained": f"above {high:g}"}
        place = where.get(one.verdict, f"between {low:g} and {high:g}")
        return f"the whole 95 % interval lies {place}"
    p, z = one.measures.get("p_value"), one.measures.get("null_z")
    if isinstance(p, float) and p <= REJECTED:
        return f"the power law is rejected (p = {p:.2f})"
    if isinstance(z, float) and abs(z) < LIKE_NOISE:
        return f"the same weights in random order give a similar α (null_z = {z:.1f})"
    inside = [f"{at:g}" for at in THRESHOLDS if fit.low <= at <= fit.high]
    if inside:
        return f"the 95 % interval includes {' and '.join(inside)}"
    return "this estimator's α is no exponent of the tail"


def _measured(one: LayerAnalysis) -> list[str]:
    """What the measures say, if they were asked for."""
    said = []
    p, z = one.measures.get("p_value"), one.measures.get("null_z")
    if isinstance(p, float) and p > REJECTED:
        said.append(f"the power law is not rejected (p = {p:.2f}), which is no proof of it.")
    if isinstance(z, float) and abs(z) >= LIKE_NOISE:
        side = "below" if z < 0 else "above"
        said.append(
            f"α lies {abs(z):.1f} standard deviations {side} that of the same weights in random "
            "order."
        )
    spikes = one.measures.get("tw_spikes")
    if isinstance(spikes, int):
        count = len(one.singular_values)
        said.append(
            f"{spikes:,} of {count:,} eigenvalues lie above the edge that noise of the estimated "
            "level keeps below with 95 % probability."
        )
    return said


# Figures


def _drawings(layers: Layers) -> list[Drawing]:
    """The figures for which there are data, with their captions."""
    made: list[Drawing] = []
    if any(one.spectral_norm > 0 for _, one in layers):
        made.append(("spectrum", figures.spectrum, "Eigenvalues.", _lines(layers, "spectrum")))
    if any(figures.has_choice(one) for _, one in layers):
        made.append(
            (
                "scan",
                figures.scan,
                "Choice of xmin.",
                " α and D by maximum likelihood if the tail began there. Ring: the fit. A flat α "
                "near it says that the choice matters little.",
            )
        )
    weights = [one for _, one in layers if figures.has_weights(one)]
    if any(one.entries is not None and one.survival is not None for one in weights):
        made.append(
            ("entries", figures.entries, "Sizes of the weights.", _lines(layers, "entries"))
        )
    if any(one.histogram is not None for one in weights):
        bars = " Counts in equal bins, scaled to a density; its axis is logarithmic."
        made.append(("histogram", figures.histogram, "Weights.", bars))
    return made


def _lines(layers: Layers, of: str) -> str:
    """What the lines of a tail's figure mean, and what its axis leaves out."""
    said = " Both axes are logarithmic."
    fits = [getattr(one, of) for _, one in layers]
    if of == "spectrum":
        fits = [one.spectrum for _, one in layers if is_of_these(one)]
    if any(isinstance(fit, PowerLawFit) for fit in fits):
        said += " Line: fitted tail. Dotted: xmin."
    if of == "spectrum" and not all(is_low_rank(one) for _, one in layers):
        said += (
            " Dashed: random matrix, the law of Marchenko and Pastur for independent entries of "
            "the same shape and norm."
        )
    if of == "spectrum" and any(one.measures.get("tw_edge") for _, one in layers):
        said += (
            " Dash-dotted: where noise would end (Tracy and Widom, 95 %) if it had the level that "
            "the small eigenvalues suggest."
        )
    decades = DECADES[of]
    if _goes_below(layers, of, 10.0**-decades):
        said += f" Values below 10<sup>−{decades}</sup> of the largest are left of the axis."
    return said


def _goes_below(layers: Layers, of: str, share: float) -> bool:
    """Whether a positive value lies below this share of the largest of all."""
    if of == "spectrum":
        falling = [one.singular_values for _, one in layers]
        share = math.sqrt(share)
    else:
        falling = [one.survival.x[::-1] for _, one in layers if one.survival is not None]
    least = share * max((values[0] for values in falling if values), default=0.0)
    places = [bisect_right(values, -least, key=lambda value: -value) for values in falling]
    return any(v[at] > 0 for v, at in zip(falling, places, strict=True) if at < len(v))


# Numbers


def _numbers(anchor: str, layers: Layers, networks: Networks) -> str:
    """All numbers, as data that the page's script turns into a table when it is opened."""
    found = [named_values(one) for _, one in layers]
    names = dict.fromkeys(name for values in found for name in values)
    rows = [[name, *(values.get(name) for values in found)] for name in names]
    rows = [one for one in rows if any(value not in (None, "") for value in one[1:])]
    head = ["column", *(networks.label(network) or "value" for network, _ in layers)]
    return (
        f'<details data-all="{anchor}-all"><summary class="sub">All numbers of this matrix'
        f'</summary></details><script type="application/json" id="{anchor}-all">'
        f"{safe_json([head, *rows])}</script>"
    )
