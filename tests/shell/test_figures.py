"""Every figure is one that plotly accepts, and shows what its records say."""

import functools
import math
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from scipy import integrate
from torch import nn

from tailor.numerics.bounds import OccamBound
from tailor.numerics.edge import marchenko_pastur_median
from tailor.numerics.powerlaw import FARMS, Clauset, NoFit, PowerLawFit
from tailor.records import Provenance
from tailor.shell import figures
from tailor.shell.demo import Compression, Epoch, Point, Stage
from tailor.shell.figures import labels, palette, tail
from tailor.shell.figures.null import marchenko_pastur_survival
from tailor.shell.figures.scan import considered
from tailor.stages.analyze import (
    Analyses,
    LayerAnalysis,
    MarchenkoPastur,
    PValue,
    Shuffled,
    analyze,
)
from tailor.stages.certify import (
    Certificate,
    CodeBits,
    HeldOutErrors,
    Network,
    OccamEvidence,
    Part,
    Registration,
)
from tailor.stages.compare import Comparison, compare

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


@functools.cache
def analyses() -> Analyses:
    return Analyses(
        analyses=tuple(
            analyze(
                model(i, 1.0 + 2 * i),
                spectrum=Clauset(bootstrap=5),
                entries=Clauset(),
                measures=(MarchenkoPastur(), Shuffled(replicates=8), PValue(replicates=10)),
                drawings=True,
                label=network,
            )
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
    bounds = OccamBound(binomial=0.40971, kl=0.410882, hoeffding=0.486174, empirical=32 / 1437)
    code = CodeBits(
        version=1,
        parts={"0.weight: positions": 371.4164, "0.weight: signs": 91.0, "a: b: signs": 23.5},
        rounding=2.0836,
        stream=488,
        pays="bytes",
        charged=488.0,
        units=(),
        choices=8.0,
        total=496.0,
    )
    network = Network(
        task="digits",
        tensors=2,
        values=4736,
        parts=(Part(name="0", statement="Random, seed 0.", domain=True, sha256="e" * 64),),
        sha256="f" * 64,
    )
    registration = Registration(
        networks=(network,),
        method="Occam()",
        delta=0.05,
        certificates=1,
        earlier=256,
        split=None,
        n=1437,
        data_sha256="b" * 64,
        seed=0,
        created="2026-01-02T03:04:05+00:00",
        sha256="9" * 64,
    )
    return Certificate(
        schema=2,
        kind="occam",
        method="Occam()",
        registered=True,
        claim="In words.",
        assumptions=("First.", "Second."),
        task="digits",
        delta=0.05,
        n=1437,
        errors=32,
        risk_bound=0.40971,
        evidence=OccamEvidence(n=1437, errors=32, risk_bound=0.40971, bounds=bounds, code=code),
        choices=256,
        repeated=0,
        majority_error=0.896311,
        non_vacuous=True,
        held_out=HeldOutErrors(
            n=360,
            errors=25,
            error=25 / 360,
            low=0.04549,
            high=0.10081,
            upper=0.09621,
            data_sha256="d" * 64,
        ),
        prior=None,
        network=network,
        model_sha256="a" * 64,
        data_sha256="b" * 64,
        records_sha256="8" * 64,
        registration=registration,
        warnings=("Beware.",),
        provenance=ABOUT,
        sha256="c" * 64,
    )


def layers() -> list[tuple[str, LayerAnalysis]]:
    return [(one.source, one.layers[0]) for one in analyses().analyses]


@functools.cache
def steps() -> Analyses:
    """Three steps of one training, as ``tailor compare`` sees them."""
    made = []
    for step in range(3):
        weights = {
            f"{i}.weight": torch.randn(40, 50, generator=torch.Generator().manual_seed(i)) ** 3
            + 4 * torch.eye(40, 50) * (step == 2)
            for i in range(4)
        }
        made.append(analyze(weights, drawings=True, label=f"run-{step}.pt"))
    return Analyses(analyses=tuple(made))


@functools.cache
def comparison() -> Comparison:
    return compare(steps().analyses, quality=[3.0, 2.0, 1.5], named="loss")


def test_plotly_accepts_every_figure() -> None:
    found, pressed, proof = analyses(), compression(), certificate()
    beside, names = comparison(), ["a", "b", "c"]
    made = [
        figures.training_loss(history(), COLOURS),
        figures.training_error(history(), COLOURS),
        figures.frontier(pressed, COLOURS),
        figures.path(pressed, COLOURS),
        figures.bounds(pressed, proof, COLOURS),
        figures.bounds(pressed, None, COLOURS),
        figures.bits(proof.evidence.code),
        figures.certified(proof),
        figures.exponents(depth(found), COLOURS, of="entries"),
        figures.exponents(depth(found), COLOURS),
        figures.exponents(depth(found)[:1], COLOURS),
        figures.norms(depth(found), COLOURS),
        figures.over_models(beside, names),
        figures.changes(beside, names),
        figures.against_quality(beside, beside.predictions[0], names),
    ]
    for place in range(len(found.analyses[0].layers)):
        pair = [(one.source, one.layers[place]) for one in found.analyses]
        for build in (figures.spectrum, figures.entries, figures.histogram, figures.scan):
            made.append(build(pair, COLOURS))
    for figure in made:
        figure["layout"]["template"] = figures.TEMPLATE
        assert len(go.Figure(figure).data) == len(figure["data"]) > 0
        assert figure["layout"]["xaxis"]["title"]["text"]


def depth(found: Analyses) -> figures.Depth:
    return [(one.source, one.layers) for one in found.analyses]


def test_the_fitted_line_meets_the_points_at_xmin() -> None:
    """The empirical share at xmin is where the line starts, and its slope is 1 - alpha."""
    for name, layer in layers():
        fit = layer.entries
        assert isinstance(fit, PowerLawFit)
        assert layer.survival is not None
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
    points, *noise = figures.spectrum([("plain", found.layers[1])], COLOURS)["data"]
    assert points["name"] == "plain, no fit"
    assert len(points["x"]) == 5
    assert {trace["name"] for trace in noise} <= {"random", "noise edge"}


def test_many_eigenvalues_are_thinned_from_largest_to_smallest() -> None:
    ranks = tail._ranks(10_000)
    assert ranks[0] == 10_000
    assert ranks[-1] == 1
    assert ranks == sorted(set(ranks), reverse=True)
    assert len(ranks) <= tail.MOST_POINTS


@pytest.mark.parametrize(("rows", "columns"), [(300, 300), (300, 100), (7, 4000)])
def test_the_random_curve_is_the_integral_of_the_density(rows: int, columns: int) -> None:
    long, short = max(rows, columns), min(rows, columns)
    c = short / long
    low, high = (1 - math.sqrt(c)) ** 2, (1 + math.sqrt(c)) ** 2
    x, share = marchenko_pastur_survival(
        rows=rows, columns=columns, count=50, norm=math.sqrt(50 * rows * columns), points=40
    )

    def density(y: float) -> float:
        return math.sqrt(max((high - y) * (y - low), 0)) / (2 * math.pi * c * y)

    assert len(x) == len(share) == 40
    assert (np.diff(x) > 0).all()
    for at, found in zip((x / long).tolist(), share.tolist(), strict=True):
        assert found == pytest.approx(integrate.quad(density, at, high)[0], abs=1e-6)
    median = float(np.interp(-0.5, -share, x)) / long
    assert median == pytest.approx(marchenko_pastur_median(c), rel=0.01)


def test_the_random_curve_is_that_of_a_random_matrix() -> None:
    """Whatever its scale, and pooled with others of its shape."""
    stack = 0.03 * np.random.default_rng(0).standard_normal((3, 200, 500))
    eigenvalues = np.linalg.svd(stack, compute_uv=False).ravel() ** 2
    x, share = marchenko_pastur_survival(
        rows=200, columns=500, count=3, norm=float(np.linalg.norm(stack)), points=40
    )
    above = [float((eigenvalues >= at).mean()) for at in x.tolist()]
    assert np.abs(np.array(above) - share).max() < 0.02


def test_a_product_of_low_rank_has_no_random_curve() -> None:
    (name, layer), _ = layers()
    named = [t["meta"] for t in figures.spectrum([(name, layer)], COLOURS)["data"]]
    core = replace(layer, singular_values=layer.singular_values[:10])
    without = [t["meta"] for t in figures.spectrum([(name, core)], COLOURS)["data"]]
    assert f"{name}, random" in named
    assert f"{name}, random" not in without
    assert figures.has_weights(layer)
    assert not figures.has_weights(core)


def test_the_edge_of_noise_is_drawn_where_it_was_measured() -> None:
    (name, layer), _ = layers()
    (edge,) = [t for t in figures.spectrum([(name, layer)], COLOURS)["data"] if "edge" in t["name"]]
    assert edge["x"] == [pytest.approx(layer.measures["tw_edge"], rel=1e-5)] * 2
    bare = replace(layer, measures={})
    assert all("edge" not in t["name"] for t in figures.spectrum([(name, bare)], COLOURS)["data"])


def test_the_ring_lies_on_the_curves_over_xmin() -> None:
    """Of 24 eigenvalues each begins a tail, so the chosen one is among them."""
    for name, layer in layers():
        fit = layer.spectrum
        assert isinstance(fit, PowerLawFit)
        alphas, alpha, distances, distance = figures.scan([(name, layer)], COLOURS)["data"]
        at = int(np.argmin(np.abs(np.array(distances["x"]) - fit.xmin)))
        assert distances["y"][at] == pytest.approx(fit.D, rel=1e-3)
        assert alphas["y"][at] == pytest.approx(fit.alpha, rel=1e-3)
        assert alpha["x"] == distance["x"] == [distances["x"][at]]
        assert alpha["y"] == [pytest.approx(fit.alpha, rel=1e-5)]
        assert distance["y"] == [pytest.approx(fit.D, rel=1e-5)]
        assert len(considered(layer)) == fit.n


def test_no_curve_has_more_points_than_a_screen_shows() -> None:
    _, layer = layers()[0]
    rng = np.random.default_rng(1)
    values = np.sort(rng.pareto(2, 4096))[::-1] + 1
    big = replace(
        layer,
        rows=4096,
        columns=4096,
        singular_values=tuple(np.sqrt(values).tolist()),
        spectrum=Clauset().fit(values[::-1]),
    )
    for build in (figures.spectrum, figures.scan):
        for trace in build([("", big)], {"": "#0072b2"})["data"]:
            assert 0 < len(trace["x"]) == len(trace["y"]) <= 160


def test_with_many_networks_colours_are_named_elsewhere() -> None:
    three = [(str(i), layers()[0][1]) for i in range(3)]
    ink = dict.fromkeys("012", "#0072b2")
    traces = figures.spectrum(three, ink)["data"]
    assert {t["name"] for t in traces if t.get("showlegend", True)} == {"random", "noise edge"}
    assert {t["visible"] for t in traces if t["name"] == "random"} == {"legendonly"}
    outlines = figures.histogram(three, ink)
    bars = figures.histogram(three[:2], ink)
    assert [t["y"] for t in outlines["data"][:2]] == [t["y"] for t in bars["data"]]
    assert (outlines["layout"]["showlegend"], bars["layout"]["showlegend"]) == (False, True)


def test_a_fit_of_other_samples_draws_no_line() -> None:
    """FARMS fits windows of the matrix; its xmin is none of this spectrum."""
    net = {"w": torch.randn(160, 160, generator=torch.Generator().manual_seed(0))}
    layer = analyze(net, spectrum=FARMS(), label="x").layers[0]
    assert isinstance(layer.spectrum, PowerLawFit)
    names = [t["name"] for t in figures.spectrum([("", layer)], {"": "#0072b2"})["data"]]
    assert names == [f"α = {layer.spectrum.alpha:.2f}", "random"]


def test_a_mark_shows_exponent_interval_and_verdict() -> None:
    found = analyses().analyses[0]
    (mark,) = figures.exponents([("", found.layers)], {"": "#0072b2"})["data"]
    fit = found.layers[0].spectrum
    assert isinstance(fit, PowerLawFit)
    assert isinstance(found.layers[1].spectrum, NoFit)
    assert (mark["x"], mark["y"]) == ([1.0], [pytest.approx(fit.alpha, rel=1e-4)])
    assert mark["error_y"]["array"] == [pytest.approx(fit.high - fit.alpha, rel=1e-3)]
    assert mark["error_y"]["arrayminus"] == [pytest.approx(fit.alpha - fit.low, rel=1e-3)]
    assert mark["name"] == found.layers[0].verdict
    assert mark["marker"]["symbol"] == palette.VERDICTS[found.layers[0].verdict][1]


def test_thresholds_are_drawn_where_verdicts_change() -> None:
    found = analyses()
    lines = figures.exponents(depth(found), COLOURS)["layout"]["shapes"]
    assert [(line["y0"], line["y1"]) for line in lines] == [(2.0, 2.0), (6.0, 6.0)]
    assert "shapes" not in figures.exponents(depth(found), COLOURS, of="entries")["layout"]


def test_stable_ranks_and_norms_are_those_of_the_table() -> None:
    found = analyses().analyses[0]
    rank, norm, top = figures.norms([("", found.layers)], {"": "#0072b2"})["data"]
    table = found.to_frame()
    for trace, column in (
        (rank, "stable_rank"),
        (norm, "log_norm"),
        (top, "log_spectral_norm"),
    ):
        assert trace["y"] == pytest.approx(table[column].tolist(), rel=1e-4)


def test_models_are_summarised_by_the_quantiles_of_their_matrices() -> None:
    beside = comparison()
    whole, half, median = figures.over_models(beside, ["a", "b", "c"])["data"]
    for i in range(3):
        alphas = [one.alpha[i] for one in beside.layers]
        assert median["y"][i] == pytest.approx(np.median(alphas), rel=1e-4)
        assert whole["customdata"][i] == pytest.approx([min(alphas), max(alphas)], rel=1e-3)
        quartiles = np.quantile(alphas, (0.25, 0.75))
        assert half["customdata"][i] == pytest.approx(quartiles, rel=1e-3)


def test_intervals_that_lie_apart_are_marked() -> None:
    beside = comparison()
    layers = [replace(one, apart=i == 2) for i, one in enumerate(beside.layers)]
    beside = replace(beside, layers=tuple(layers))
    data = figures.changes(beside, ["a", "b", "c"])["data"]
    way, first, near, apart = data
    assert way["x"] == [2.88, 3.12, None]
    assert len(first["x"]) == 4
    assert near["text"] == ["0.weight", "1.weight", "3.weight"]
    assert apart["text"] == ["2.weight"]
    assert apart["name"] == "c, intervals apart"


def test_a_number_is_drawn_against_the_quality_of_its_model() -> None:
    beside = comparison()
    (prediction,) = [one for one in beside.predictions if one.metric == "mean_stable_rank"]
    (marks,) = figures.against_quality(beside, prediction, ["a", "b", "c"])["data"]
    assert marks["y"] == [3.0, 2.0, 1.5]
    expected = [one.mean["stable_rank"] for one in beside.models]
    assert marks["x"] == pytest.approx(expected, rel=1e-5)
    assert marks["text"] == ["1", "2", "3"]


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
