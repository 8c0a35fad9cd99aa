"""Norms without spectra: numpy's singular values are the reference."""

import numpy as np
import pytest
import torch
from torch import nn

from tailor import Circulant, NonFinite, UsageError, analyze, norms, records
from tailor.engine import Local
from tailor.stages.analyze import NormAnalysis


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.Conv2d(20, 20, 3, groups=5), nn.Linear(30, 50), nn.LSTM(8, 6)
    )


def test_norms_are_those_of_the_spectrum():
    model = network()
    quick, whole = norms(model), analyze(model)
    assert [one.name for one in quick.layers] == [one.name for one in whole.layers]
    for one, other in zip(quick.layers, whole.layers, strict=True):
        assert one.matrices == other.matrices
        assert one.frobenius_norm == pytest.approx(other.frobenius_norm, rel=1e-6)
        assert one.spectral_norm == pytest.approx(other.spectral_norm, rel=1e-6)
        assert one.stable_rank == pytest.approx(other.stable_rank, rel=1e-6)
    assert quick.skipped == whole.skipped


def test_norms_are_those_of_numpy_in_any_type():
    generator = torch.Generator().manual_seed(0)
    weights = {str(t): torch.randn(70, 40, generator=generator).to(t) for t in TYPES}
    found = norms(weights).layers
    assert len(found) == len(TYPES)
    for one in found:
        singular = np.linalg.svd(weights[one.name].double().numpy(), compute_uv=False)
        assert one.spectral_norm == pytest.approx(singular[0], rel=1e-6)
        assert one.frobenius_norm == pytest.approx(np.sqrt((singular**2).sum()), rel=1e-9)
        assert abs(singular - one.spectral_norm).min() <= one.residual + 1e-6 * singular[0]


TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)


def test_columns_have_the_names_and_meaning_of_an_analysis():
    frame, whole = norms(network()).to_frame(), analyze(network()).to_frame()
    shared = [name for name in frame if name not in ("sv_max_residual", "seconds")]
    assert {"norm", "log_norm", "spectral_norm", "stable_rank", "Q"} < set(shared)
    for name in shared:
        if frame[name].dtype.kind == "f":
            np.testing.assert_allclose(frame[name], whole[name], rtol=1e-5)
        else:
            assert frame[name].tolist() == whole[name].tolist()


def test_two_workers_give_the_same_record_and_it_loads_back():
    state = network().state_dict()
    found = norms(state)
    assert norms(state, engine=Local(workers=2)) == found
    assert records.from_json(NormAnalysis, records.to_json(found)) == found


def test_every_tensor_is_reported():
    seen = []
    norms(network(), watch=lambda *progress: seen.append(progress))
    assert [progress[1:] for progress in seen] == [(k, 5) for k in range(1, 6)]


def test_a_zero_matrix_has_no_rank_and_no_logarithm():
    found = norms({"w": torch.zeros(3, 4)})
    assert (found.layers[0].stable_rank, found.layers[0].spectral_norm) == (0.0, 0.0)
    assert found.to_frame()["log_norm"].isna().all()


def test_a_broken_matrix_fails_alone_and_all_of_them_together():
    broken = torch.full((3, 4), torch.nan)
    found = norms({"a": broken, "b": torch.ones(3, 4)})
    assert [one.name for one in found.layers] == ["b"]
    assert found.failed[0].reason.startswith("12 of 12 values are NaN or infinite")
    with pytest.raises(NonFinite, match=r"^a: 12 of 12 values are NaN"):
        norms({"a": broken})


def test_complex_matrices_are_refused():
    with pytest.raises(UsageError, match=r"^0\.weight: the view gives complex matrices; "):
        norms(nn.Sequential(nn.Conv2d(2, 2, 3)), view=Circulant(grid=8))
