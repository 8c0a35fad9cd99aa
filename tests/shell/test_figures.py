"""Every figure is one that plotly accepts, and shows what its records say."""

import math

import plotly.graph_objects as go
import pytest
import torch
from torch import nn

from tailor.numerics.bounds import OccamBound
from tailor.numerics.powerlaw import Clauset, PowerLawFit
from tailor.records import Provenance
from tailor.shell import figures
from tailor.shell.demo import Compression, Epoch, Point, Stage
from tailor.shell.figures import analysis, labels, palette
from tailor.stages.analyze import Analyses, analyze
from tailor.stages.certify import Certificate, CodeBits, HeldOut

NETWORKS = ("plain", "heavy-tailed")
COLOURS = figures.colours(NETWORKS)
ABOUT = Provenance(
    tailor="0", torch="0", numpy="0", python="0", machine="m", seed=1, settings={"epochs": "3"}
)


def history() -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            network=network,
            epoch=epoch,
            loss=2.0 / epoch + place,
            penalty=0.25 * place,
            train_error=0.31 / epoch,
            test_error=0.37 / epoch,
        )
        for place, network in enumerate(NETWORKS)
        for epoch in (1, 2, 3)
    )


def model(seed: int, power: float) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(24, 30), nn.ReLU(), nn.Linear(30, 5))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(weight.sign() * weight.abs() ** power)
    return net


def analyses() -> Analyses:
    return Analyses(
        analyses=tuple(
            analyze(model(i, 1.0 + 2 * i), spectrum=Clauset(bootstrap=5), label=network)
            for i, network in enumerate(NETWORKS)
        )
    )


def compression() -> Compression:
    points = [
        Point(
            network=network,
            sparsity=0.5 + i / 10,
            nonzeros=300 - 50 * i,
            bytes=900 - 200 * i - 100 * place,
            train_error=0.01 + i / 20,
            test_error=0.02 + i / 20,
            risk_bound=0.61234 - place / 10 + (i - 1) ** 2 / 10,
            chosen=i == 1,
        )
        for place, network in enumerate(NETWORKS)
        for i in range(3)
    ]
    stages = [
        Stage(
            network=network,
            stage=stage,
            how=f"how {stage} counts",
            bytes=size,
            nonzeros=size // 3,
            train_error=0.0123,
            test_error=0.0456,
        )
        for network in NETWORKS
        for stage, size in (("dense", 3480), ("pruned", 1200), ("coded", 700))
    ]
    return Compression(
        stages=tuple(stages),
        frontier=tuple(points),
        polish=(0.51239, 0.49871, 0.48765, 0.48991),
        provenance=ABOUT,
    )


def certificate() -> Certificate:
    return Certificate(
        claim="In words.",
        assumptions=("First.", "Second."),
        task="digits",
        delta=0.05,
        n=1437,
        errors=32,
        risk_bound=0.40971,
        bounds=OccamBound(
            binomial=0.40971, kl=0.410882, hoeffding=0.486174, empirical=0.02226861517
        ),
        code=CodeBits(
            parts={"0.weight: positions": 371.4164, "0.weight: signs": 91.0, "a: b: signs": 23.5},
            rounding=2.0836,
            stream=488,
            choices=8.0,
            total=496.0,
        ),
        majority_error=0.896311,
        non_vacuous=True,
        held_out=HeldOut(
            n=360, errors=25, error=25 / 360, low=0.04549, high=0.10081, data_sha256="d" * 64
        ),
        model_sha256="a" * 64,
        data_sha256="b" * 64,
        provenance=ABOUT,
        sha256="c" * 64,
    )


def layers() -> list[tuple[str, object]]:
    return [(one.source, one.layers[0]) for one in analyses().analyses]


def test_plotly_accepts_every_figure() -> None:
    found, pressed, proof = analyses(), compression(), certificate()
    made = [
        figures.training_loss(history(), COLOURS),
        figures.training_error(history(), COLOURS),
        figures.frontier(pressed, COLOURS),
        figures.path(pressed, COLOURS),
        figures.bounds(pressed, proof, COLOURS),
        figures.bounds(pressed, None, COLOURS),
        figures.bits(proof),
        figures.certified(proof),
        figures.exponents(found, COLOURS, of="entries"),
        figures.exponents(found, COLOURS, of="spectrum"),
    ]
    for place in range(len(found.analyses[0].layers)):
        pair = [(one.source, one.layers[place]) for one in found.analyses]
        made += [build(pair, COLOURS) for build in (figures.spectrum, figures.entries)]
        made.append(figures.histogram(pair, COLOURS))
    for figure in made:
        assert len(go.Figure(figure).data) == len(figure["data"]) > 0
        assert figure["layout"]["xaxis"]["title"]["text"]


def test_the_fitted_line_meets_the_points_at_xmin() -> None:
    """The empirical share at xmin is where the line starts, and its slope is 1 - alpha."""
    for name, layer in layers():
        fit = layer.entries
        assert isinstance(fit, PowerLawFit)
        _, line, mark = figures.entries([(name, layer)], COLOURS)["data"]
        sizes = sorted(abs(x) for x in layer.survival.x)
        share = [s for x, s in zip(layer.survival.x, layer.survival.share, strict=True)]
        near = min(range(len(sizes)), key=lambda i: abs(sizes[i] - fit.xmin))
        assert line["y"][0] == pytest.approx(share[near], rel=0.1)
        rise = math.log(line["y"][1] / line["y"][0]) / math.log(line["x"][1] / line["x"][0])
        assert rise == pytest.approx(1 - fit.alpha, rel=1e-3)
        assert mark["x"] == [line["x"][0]] * 2


def test_no_fit_shows_points_alone() -> None:
    found = analyses().analyses[0]
    (points,) = figures.spectrum([("plain", found.layers[1])], COLOURS)["data"]
    assert points["name"] == "plain, no fit"
    assert len(points["x"]) == 5


def test_many_eigenvalues_are_thinned_from_largest_to_smallest() -> None:
    ranks = analysis._ranks(10_000)
    assert ranks[0] == 10_000
    assert ranks[-1] == 1
    assert ranks == sorted(set(ranks), reverse=True)
    assert len(ranks) <= analysis.MOST_POINTS


def test_zero_errors_are_drawn_on_a_linear_axis() -> None:
    rows = [Epoch(network="plain", epoch=1, loss=1.0, penalty=0.0, train_error=0.0, test_error=0.1)]
    assert figures.training_error(rows, COLOURS)["layout"]["yaxis"]["type"] != "log"
    assert figures.training_error(history(), COLOURS)["layout"]["yaxis"]["type"] == "log"


@pytest.mark.parametrize(
    ("bound", "digits", "shown"),
    [
        (0.40971, 1, "41.0\xa0%"),
        (0.40971, 2, "40.98\xa0%"),
        (0.400001, 2, "40.01\xa0%"),
        (0.3, 2, "30.00\xa0%"),
        (1.0, 1, "100.0\xa0%"),
    ],
)
def test_bounds_are_rounded_up(bound: float, digits: int, shown: str) -> None:
    assert labels.percent_up(bound, digits) == shown


def test_every_colour_of_a_network_exists_in_the_dark() -> None:
    for colour in (palette.INK, palette.MUTED, palette.GRID, palette.PAPER):
        assert colour in figures.DARK
    for colour in COLOURS.values():
        assert colour in figures.DARK


def test_names_cannot_use_plotlys_markup_or_templates() -> None:
    assert labels.plain("<a href='x'>&%{x}") == "&lt;a href='x'&gt;&amp;%&#123;x}"
