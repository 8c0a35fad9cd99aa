"""Analysis against numpy and scipy, what it refuses, and what it says of noise."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tailor import records
from tailor.engine import Local
from tailor.errors import NonFinite, UsageError
from tailor.numerics.alternatives import compare
from tailor.numerics.powerlaw import (
    Clauset,
    Hill,
    HillMid,
    NoFit,
    PowerLawFit,
    TailFit,
    WeightWatcherCompat,
)
from tailor.stages.analyze import (
    Analyses,
    Compressible,
    Exact,
    Failed,
    MarchenkoPastur,
    Measure,
    PValue,
    Rivals,
    RowsAndColumns,
    Shuffled,
    StableIndex,
    analyze,
)
from tailor.weights.layer import Layer, Weights
from tailor.weights.views import Circulant, Flattened, Fused, Taps


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 24, 3),
            nn.BatchNorm2d(24),
            nn.Flatten(),
            nn.Linear(96, 40),
            nn.Linear(40, 5),
        )


def test_every_number_against_numpy():
    model = network()
    entries = Clauset(largest=10_000)
    analysis = analyze(model, entries=entries, drawings=True, view=Flattened())
    found = {layer.name: layer for layer in analysis.layers}
    assert list(found) == ["0.weight", "3.weight", "4.weight"]
    for name, layer in found.items():
        matrix = model.state_dict()[name].double().reshape(layer.rows, -1).numpy()
        values = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(layer.singular_values, values, rtol=1e-7)
        assert (layer.rows, layer.columns) == matrix.shape
        assert layer.spectral_norm == pytest.approx(np.linalg.norm(matrix, 2))
        assert layer.frobenius_norm == pytest.approx(np.linalg.norm(matrix))
        assert layer.stable_rank == pytest.approx((matrix**2).sum() / values[0] ** 2)
        assert layer.entries == entries.fit(np.abs(matrix).flatten())
        expected = Clauset().fit(values**2)
        assert type(layer.spectrum) is type(expected)
        if isinstance(expected, PowerLawFit):
            assert layer.spectrum.alpha == pytest.approx(expected.alpha, rel=1e-9)
            assert layer.spectrum.n_tail == expected.n_tail
            total = math.log10(((values**2) ** expected.alpha).sum())
            assert layer.log_alpha_norm == pytest.approx(total)
        assert layer.matrix_rank == np.linalg.matrix_rank(matrix)
        assert layer.sv_min == pytest.approx(values[-1], rel=1e-6)
        shares = values**2 / (values**2).sum()
        entropy = -(shares * np.log(shares)).sum() / math.log(len(values))
        assert layer.entropy == pytest.approx(entropy, abs=1e-6)
        assert sum(layer.histogram.counts) == matrix.size
        for x, share in zip(layer.survival.x, layer.survival.share, strict=True):
            assert share == pytest.approx((np.abs(matrix) >= x).mean())
    assert isinstance(found["3.weight"].spectrum, PowerLawFit)
    assert found["4.weight"].spectrum == NoFit(reason="5 values, needs 20", n=5)


def test_a_convolution_is_flattened_to_outputs_by_the_rest():
    layer = analyze(network()).layers[0]
    assert (layer.shape, layer.rows, layer.columns) == ((24, 3, 3, 3), 24, 27)


def test_everything_else_is_listed_with_its_reason():
    skipped = {s.name: s.reason for s in analyze(network()).skipped}
    assert skipped["0.bias"] == "vector"
    assert skipped["1.num_batches_tracked"] == "not floating point (int64)"
    assert len(skipped) == 3 + 5 - 0  # biases of three layers, five tensors of the norm


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_alpha_does_not_depend_on_the_scale_of_the_weights(scale):
    matrix = torch.randn(60, 50, dtype=torch.float64) * torch.rand(60, 1, dtype=torch.float64)
    one, other = (analyze({"w": c * matrix}, entries=Clauset()).layers[0] for c in (1.0, scale))
    assert other.spectrum.alpha == pytest.approx(one.spectrum.alpha, rel=1e-9)
    assert other.entries.alpha == pytest.approx(one.entries.alpha, rel=1e-9)
    assert other.stable_rank == pytest.approx(one.stable_rank, rel=1e-9)


def test_frame_has_a_row_for_each_matrix_and_empty_numbers_for_no_fit():
    frame = analyze(network(), label="net", seed=3).to_frame()
    assert frame["layer"].tolist() == ["0.weight", "3.weight", "4.weight"]
    assert frame["alpha"].isna().tolist() == [False, False, True]
    assert frame["reason"].tolist() == ["", "", "5 values, needs 20"]
    assert set(frame["source"]) == {"net"}
    assert set(frame["seed"]) == {"3"}
    assert frame["settings"].str.contains("Clauset").all()
    assert frame["shape"][0] == "24x3x3x3"


def test_records_survive_json(tmp_path):
    found = Analyses(analyses=(analyze(network(), spectrum=Clauset(bootstrap=5)),))
    path = records.save(found, tmp_path / "a.json")
    assert records.load(Analyses, path) == found


def test_workers_and_sources_agree(tmp_path):
    model = network()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    torch.save(model.state_dict(), tmp_path / "m.pt")
    expected = analyze(model).layers
    seen = []
    for source in (state, tmp_path / "m.safetensors", str(tmp_path / "m.pt")):
        assert analyze(source, watch=lambda *at: seen.append(at)).layers == expected
    assert seen[:3] == [("0.weight", 1, 3), ("3.weight", 2, 3), ("4.weight", 3, 3)]
    two = analyze(tmp_path / "m.safetensors", engine=Local(workers=2)).layers
    for one, other in zip(expected, two, strict=True):
        assert other.name == one.name
        assert other.singular_values == pytest.approx(one.singular_values, rel=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_matrix_is_named_and_the_others_go_on(value):
    model = network()
    with torch.no_grad():
        model[3].weight[0, :2] = value
    found = analyze(model)
    assert [layer.name for layer in found.layers] == ["0.weight", "4.weight"]
    (failed,) = found.failed
    assert failed.name == "3.weight"
    assert failed.reason.startswith("2 of 3840 values are NaN or infinite")
    frame = found.to_frame()
    assert frame["status"].tolist() == ["success", "no fit", "failed"]
    assert np.isnan(frame["alpha"].tolist()[-1])
    assert np.isfinite(found.summary().loc["log_norm", "mean"])


def test_nothing_but_broken_matrices_is_an_error():
    with pytest.raises(NonFinite, match=r"w: 4 of 4 values are NaN"):
        analyze({"w": torch.full((2, 2), float("nan"))})


def test_low_precision_and_zero_matrices():
    state = {
        "half": torch.randn(30, 30).half(),
        "bf16": torch.randn(30, 30).bfloat16(),
        "zero": torch.zeros(30, 30),
    }
    found = {layer.name: layer for layer in analyze(state).layers}
    assert found["half"].dtype == "float16"
    assert isinstance(found["bf16"].spectrum, PowerLawFit)
    zero = found["zero"]
    assert (zero.stable_rank, zero.zeros, zero.spectral_norm) == (0.0, 1.0, 0.0)
    assert zero.spectrum == NoFit(reason="0 values, needs 20", n=0)


def test_eight_bit_floats_are_measured():
    weights = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    eight = weights.to(torch.float8_e4m3fn)
    found = analyze(
        {"w": eight}, drawings=True, entries=Hill(), measures=(RowsAndColumns(), Compressible())
    )
    exact = np.linalg.svd(eight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(found.layers[0].singular_values, exact, rtol=1e-7)
    eight.view(torch.uint8)[3, 5] = 0x7F  # NaN
    with pytest.raises(NonFinite, match="1 of 3072 values"):
        analyze({"w": eight})


def test_parts_of_a_tensor_are_rows_and_pooled_matrices_are_one():
    state = {"qkv": torch.randn(96, 32), "conv": torch.randn(16, 24, 3, 3)}
    split = analyze({"qkv": state["qkv"]}, view=Fused())
    assert [layer.name for layer in split.layers] == ["qkv[q]", "qkv[k]", "qkv[v]"]
    exact = np.linalg.svd(state["qkv"][32:64].double().numpy(), compute_uv=False)
    np.testing.assert_allclose(split.layers[1].singular_values, exact, rtol=1e-7)
    (pooled,) = analyze({"conv": state["conv"]}, view=Taps()).layers
    taps = state["conv"].double().permute(2, 3, 0, 1).reshape(9, 16, 24).numpy()
    values = np.sort(np.linalg.svd(taps, compute_uv=False).flatten())[::-1]
    np.testing.assert_allclose(pooled.singular_values, values, rtol=1e-7)
    assert (pooled.rows, pooled.columns, pooled.matrices) == (16, 24, 9)


def test_equal_eigenvalues_of_a_transform_widen_the_interval():
    conv = torch.randn(12, 10, 3, 3, generator=torch.Generator().manual_seed(1))
    (layer,) = analyze({"w": conv}, view=Circulant(grid=8), measures=(Shuffled(),)).layers
    fit = layer.spectrum
    assert fit.sigma == pytest.approx(math.sqrt(2) * (fit.alpha - 1) / math.sqrt(fit.n_tail))
    assert fit.high - fit.alpha == pytest.approx(1.96 * fit.sigma, rel=1e-4)
    assert layer.measures == {}  # the transform's entries are not the weights


def test_a_low_rank_layer_is_measured_through_its_factors():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(80, 24, generator=generator)
    right = torch.randn(24, 60, generator=generator)

    def dense():
        raise AssertionError("the product was formed")

    layer = Layer(
        name="w",
        key="w",
        kind="low-rank",
        shape=(80, 60),
        dtype="float32",
        load=dense,
        factors=lambda: (left, right),
    )
    weights = Weights(source="lora", layers=(layer,), others=())
    every = (Shuffled(), RowsAndColumns(), Compressible(), StableIndex(), MarchenkoPastur())
    (found,) = analyze(weights, measures=every).layers
    exact = np.linalg.svd((left.double() @ right.double()).numpy(), compute_uv=False)[:24]
    np.testing.assert_allclose(found.singular_values, exact, rtol=1e-9)
    assert (found.rows, found.columns, found.matrix_rank) == (80, 60, 24)
    assert "rand_distance" not in found.measures
    assert found.zeros == 0


# Table


def test_columns_follow_weightwatcher_definitions():
    matrix = torch.randn(60, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    frame = analyze({"w": matrix}, measures=(MarchenkoPastur(),)).to_frame()
    row = frame.iloc[0]
    values = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
    assert (row["N"], row["M"], row["Q"]) == (60, 40, 1.5)
    assert row["norm"] == pytest.approx(values.sum())
    assert row["spectral_norm"] == row["lambda_max"] == pytest.approx(values[0])
    assert row["sv_max"] == pytest.approx(math.sqrt(values[0]))
    assert row["log_norm"] == pytest.approx(math.log10(values.sum()))
    assert row["log_spectral_norm"] == pytest.approx(math.log10(values[0]))
    assert row["alpha_weighted"] == pytest.approx(row["alpha"] * math.log10(values[0]))
    assert row["log_alpha_norm"] == pytest.approx(math.log10((values ** row["alpha"]).sum()))
    assert row["rank_loss"] == 0
    assert row["weak_rank_loss"] == (values < 1e-6).sum()
    assert row["tail_fraction"] == row["num_pl_spikes"] / 40
    product = np.cumprod(values / values.mean())
    assert row["detX_num"] == np.flatnonzero(product < 1)[0] + 1
    assert row["ERG_gap"] == row["detX_num"] - row["num_pl_spikes"]
    assert row["mp_softrank"] == pytest.approx(row["bulk_max"] / row["lambda_max"])


# WeightWatcher(model=nn.Sequential(nn.Conv2d(24, 32, 3))).analyze() of weightwatcher 0.7.7, with
# the kernel of the test below.
WEIGHTWATCHER = {
    "alpha": 4.774768871395999,
    "D": 0.0954433397510539,
    "xmin": 28.79659257276416,
    "xmax": 61.67249034790641,
    "sigma": 0.5565593064312394,
    "num_pl_spikes": 46,
    "alpha_weighted": 8.5472731027822,
    "log_alpha_norm": 9.422836669661628,
    "norm": 3407.013346232355,
    "log_norm": 3.5323738348252043,
    "spectral_norm": 61.67249034790641,
    "log_spectral_norm": 1.7900914856813233,
    "stable_rank": 55.24364797031441,
    "entropy": 0.9267909086025626,
    "matrix_rank": 216,
    "rank_loss": 0,
    "N": 32,
    "M": 24,
    "Q": 32 / 24,
    "num_evals": 216,
    "sv_max": 7.853183453091263,
}


def test_weightwatcher_columns_of_a_convolution():
    kernel = np.random.default_rng(7).standard_normal((32, 24, 3, 3)).astype(np.float32)
    found = analyze(
        {"conv.weight": torch.from_numpy(kernel)},
        spectrum=WeightWatcherCompat(),
        view=Taps(scale=0.5**0.5),
    )
    row = found.to_frame().iloc[0]
    for column, value in WEIGHTWATCHER.items():
        assert row[column] == pytest.approx(value, rel=1e-6), column


def test_summary_weights_by_the_tail_and_leaves_out_what_has_no_number():
    found = analyze(network())
    frame, summary = found.to_frame(), found.summary()
    alpha = frame["alpha"].dropna()
    tail = frame["num_pl_spikes"].dropna()
    assert summary.loc["alpha", "matrices"] == 2
    assert summary.loc["alpha", "mean"] == pytest.approx(alpha.mean())
    assert summary.loc["alpha", "median"] == pytest.approx(alpha.median())
    weighted = (alpha * tail).sum() / tail.sum()
    assert summary.loc["alpha", "tail_weighted_mean"] == pytest.approx(weighted)
    assert summary.loc["stable_rank", "matrices"] == 3


# Measures


def test_shuffles_are_seeded_by_name_and_do_not_depend_on_order():
    one, two = torch.randn(40, 40), torch.randn(40, 40)
    measures = (Shuffled(replicates=8, seed=3),)
    both = analyze({"a": one, "b": two}, measures=measures).layers
    alone = analyze({"b": two}, measures=measures).layers
    assert both[1].measures == alone[0].measures
    other = analyze({"b": two}, measures=(Shuffled(replicates=8, seed=4),)).layers
    assert other[0].measures["rand_distance"] != alone[0].measures["rand_distance"]
    fewer = analyze({"b": two}, measures=(Shuffled(replicates=7),)).layers[0].measures
    assert fewer["null_z"] is None
    assert fewer["null_alpha"] is not None


def test_null_z_tells_structure_from_noise():
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((200, 150))
    scales = generator.pareto(1.2, 150) + 1
    structured = noise * np.sqrt(scales)
    state = {"noise": torch.from_numpy(noise), "structure": torch.from_numpy(structured)}
    found = {
        layer.name: layer.measures
        for layer in analyze(
            state, spectrum=Hill(k=0.2), measures=(Shuffled(replicates=20),)
        ).layers
    }
    assert abs(found["noise"]["null_z"]) < 4
    assert found["structure"]["null_z"] < -10
    assert found["noise"]["num_traps"] == 0
    assert found["structure"]["rand_distance"] > 5 * found["noise"]["rand_distance"]


def test_rivals_are_those_of_the_fitted_tail():
    matrix = torch.randn(150, 100, generator=torch.Generator().manual_seed(4))
    (layer,) = analyze({"w": matrix}, measures=(Rivals(),)).layers
    values = np.array(layer.singular_values) ** 2
    found = compare(values, layer.spectrum.xmin)
    for rival in found.rivals:
        assert layer.measures[f"R_{rival.name}"] == pytest.approx(rival.R, rel=1e-6, abs=1e-9)
        assert layer.measures[f"p_{rival.name}"] == pytest.approx(rival.p, rel=1e-6, abs=1e-9)
    assert layer.measures["R_exponential"] < 0  # the edge of noise falls faster than a power law
    assert layer.measures["Lambda"] > 0
    assert (
        "Lambda" not in analyze({"w": torch.randn(5, 5)}, measures=(Rivals(),)).layers[0].measures
    )


def test_a_measure_of_ones_own_adds_its_columns():
    class Trace(Measure):
        def measure(self, matrix):
            return {"trace": float(matrix.whole.sum())}

    found = analyze({"w": torch.eye(30)}, measures=(Trace(),))
    assert found.to_frame()["trace"].tolist() == [pytest.approx(30)]


# Verdicts


def spectrum_of(alpha, n=400, noise=0.0):
    """A diagonal matrix whose eigenvalues are Pareto quantiles."""
    share = (np.arange(n) + 0.5) / n
    return torch.diag(torch.from_numpy(share ** (-1 / (alpha - 1) / 2)))


@pytest.mark.parametrize(
    ("alpha", "verdict"),
    [(1.5, "over-trained"), (2.05, "undecided"), (3.5, "well-trained"), (9.0, "under-trained")],
)
def test_a_verdict_is_given_only_where_the_interval_is_on_one_side(alpha, verdict):
    (layer,) = analyze({"w": spectrum_of(alpha)}, spectrum=Clauset(bootstrap=100)).layers
    assert layer.spectrum.alpha == pytest.approx(alpha, abs=0.1)
    assert layer.verdict == verdict


def test_an_interval_that_takes_xmin_as_given_supports_no_verdict():
    (layer,) = analyze({"w": spectrum_of(3.5)}).layers
    assert 2 < layer.spectrum.low < layer.spectrum.high < 6
    assert layer.spectrum.interval == "asymptotic"
    assert layer.verdict == "undecided"


def test_noise_gets_no_verdict():
    generator = torch.Generator().manual_seed(0)
    noise = {f"w{i}": torch.randn(64, 64, generator=generator) for i in range(20)}
    found = analyze(noise, spectrum=Clauset(bootstrap=100))
    assert {layer.verdict for layer in found.layers} == {"undecided"}


def test_no_verdict_without_a_tail_or_against_a_rejected_power_law():
    matrix = spectrum_of(3.5)
    assert analyze({"w": matrix}, spectrum=HillMid()).layers[0].verdict == "undecided"
    method = Clauset(bootstrap=50)
    kept = analyze({"w": matrix}, spectrum=method, measures=(PValue(replicates=50),)).layers[0]
    assert kept.measures["p_value"] > 0.1
    assert kept.verdict == "well-trained"


class Sure(TailFit):
    """An interval from 3 to 4, whatever the values."""

    def fit(self, values):
        return replace(Clauset().fit(values), low=3.0, high=4.0, interval="bootstrap")


@pytest.mark.parametrize(
    ("column", "number", "verdict"),
    [
        ("p_value", 0.1, "undecided"),
        ("p_value", 0.11, "well-trained"),
        ("null_z", 1.9, "undecided"),
        ("null_z", -1.9, "undecided"),
        ("null_z", -2.1, "well-trained"),
        ("other", 0.0, "well-trained"),
    ],
)
def test_a_verdict_is_withdrawn_where_a_measure_speaks_against_the_power_law(
    column, number, verdict
):
    class Speaks(Measure):
        def measure(self, matrix):
            return {column: number}

    found = analyze({"w": spectrum_of(3.5)}, spectrum=Sure(), measures=(Speaks(),))
    assert found.layers[0].verdict == verdict


# Journal


def journalled(tmp_path, **options):
    path = tmp_path / "m.safetensors"
    if not path.exists():
        save_file({n: t.contiguous() for n, t in network().state_dict().items() if t.ndim}, path)
    seen = []
    found = analyze(
        path, journal=tmp_path / "j.jsonl", watch=lambda name, *_: seen.append(name), **options
    )
    return found, seen


def test_a_second_run_repeats_nothing_and_other_settings_begin_anew(tmp_path):
    first, seen = journalled(tmp_path)
    assert seen == ["0.weight", "3.weight", "4.weight"]
    again, seen = journalled(tmp_path)
    assert seen == []
    assert again == first
    other, seen = journalled(tmp_path, spectrum=Hill())
    assert len(seen) == 3
    assert other.layers != first.layers


def test_a_changed_file_begins_anew(tmp_path):
    journalled(tmp_path)
    os.utime(tmp_path / "m.safetensors", (1, 1))
    assert len(journalled(tmp_path)[1]) == 3


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty"])
def test_a_damaged_journal_loses_no_more_than_its_damaged_lines(tmp_path, harm):
    expected, _ = journalled(tmp_path)
    path = tmp_path / "j.jsonl"
    text = path.read_text()
    path.write_text({"cut": text[:-40], "garbage": "{" + text, "empty": ""}[harm])
    found, seen = journalled(tmp_path)
    assert found == expected
    assert len(seen) == {"cut": 1, "garbage": 3, "empty": 3}[harm]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """A process that kills itself after the second matrix, and one that finishes the rest."""
    expected, _ = journalled(tmp_path)
    (tmp_path / "j.jsonl").unlink()
    script = (
        "import os, signal, sys, tailor\n"
        "def watch(name, done, total):\n"
        "    if done == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tailor.analyze(sys.argv[1], journal=sys.argv[2], watch=watch)\n"
    )
    files = [str(tmp_path / "m.safetensors"), str(tmp_path / "j.jsonl")]
    killed = subprocess.run([sys.executable, "-c", script, *files], check=False)
    assert killed.returncode == -signal.SIGKILL
    found, seen = journalled(tmp_path)
    assert len(seen) == 1
    assert found == expected


def test_failed_layers_are_in_the_journal_too(tmp_path):
    state = {"a": torch.randn(30, 30), "b": torch.full((30, 30), float("nan"))}
    save_file(state, tmp_path / "m.safetensors")
    first, _ = journalled(tmp_path)
    again, seen = journalled(tmp_path)
    assert (seen, again) == ([], first)
    assert isinstance(again.failed[0], Failed)


# Settings


def test_float32_is_close_and_says_what_it_cannot_tell():
    matrix = torch.randn(120, 60, generator=torch.Generator().manual_seed(5))
    exact = analyze({"w": matrix}).layers[0]
    fast = analyze({"w": matrix}, solver=Exact(precision="float32")).layers[0]
    assert fast.spectrum.alpha == pytest.approx(exact.spectrum.alpha, rel=1e-4)
    singular = matrix.clone()
    singular[:, 0] = singular[:, 1]
    fast = analyze({"w": singular}, solver=Exact(precision="float32")).layers[0]
    assert (fast.matrix_rank, fast.sv_min, fast.entropy) == (None, None, None)
    assert analyze({"w": singular}).layers[0].matrix_rank == 59


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision must be float64 or float32, but is 'half'"):
        Exact(precision="half")


def test_frame_of_many_keeps_text_and_numbers_apart():
    frame = analyze(network(), measures=(MarchenkoPastur(),)).to_frame()
    assert pandas.api.types.is_float_dtype(frame["alpha"])
    assert pandas.api.types.is_float_dtype(frame["sigma_mp"])
