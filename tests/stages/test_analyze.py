"""Analysis against numpy and scipy, and what it refuses."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tailor import records
from tailor.engine import Local
from tailor.errors import NonFinite, UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit
from tailor.stages.analyze import Analyses, analyze
from tailor.weights.views import Flattened


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
    found = {layer.name: layer for layer in analyze(model).layers}
    assert list(found) == ["0.weight", "3.weight", "4.weight"]
    for name, layer in found.items():
        matrix = model.state_dict()[name].double().reshape(layer.rows, -1).numpy()
        values = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(layer.singular_values, values, rtol=1e-9)
        assert (layer.rows, layer.columns) == matrix.shape
        assert layer.spectral_norm == pytest.approx(np.linalg.norm(matrix, 2))
        assert layer.frobenius_norm == pytest.approx(np.linalg.norm(matrix))
        assert layer.stable_rank == pytest.approx((matrix**2).sum() / values[0] ** 2)
        assert layer.entries == Clauset(largest=10_000).fit(np.abs(matrix).flatten())
        assert layer.spectrum == Clauset().fit(np.array(layer.singular_values) ** 2)
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
    one, other = (analyze({"w": c * matrix}).layers[0] for c in (1.0, scale))
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
def test_nan_names_the_layer(value):
    model = network()
    with torch.no_grad():
        model[3].weight[0, :2] = value
    with pytest.raises(NonFinite, match=r"3.weight holds 2 NaN or infinite values of 3840"):
        analyze(model)


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


def test_a_view_of_several_matrices_is_refused():
    class Halves(Flattened):
        def split(self, tensor):
            return list(tensor.chunk(2))

    with pytest.raises(UsageError, match="splits w into 2 matrices"):
        analyze({"w": torch.randn(4, 4)}, view=Halves())
