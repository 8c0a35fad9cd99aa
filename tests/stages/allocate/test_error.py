"""Rules for one matrix: by an error, by the deviation, by a tail index."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import NonFinite, UsageError
from tailor.numerics.compressibility import compressibility
from tailor.numerics.stable import sample_stable
from tailor.stages.allocate import ByDeviation, ByError, ByTailIndex, matrices
from tailor.stages.allocate import error as module
from tests.stages.allocate.layers import SCORE, layers


def by(rule, tensor):
    found = rule.allocate(layers({"w": tensor}), None, score=SCORE)
    return found.drop["w"], found.metric["w"]


@settings(max_examples=30)
@given(st.integers(0, 999), st.floats(0, 0.95), st.integers(1, 40))
def test_one_more_would_exceed_the_error(seed, error, count):
    w = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    w[0, 0] = 0.0
    drop, reached = by(ByError(error=error), w)
    rising = w.double().abs().flatten().sort().values
    norm = float(rising.norm())
    assert float(rising[:drop].norm()) / norm == pytest.approx(reached, abs=1e-12)
    assert reached <= error + 1e-12
    assert float(rising[: drop + 1].norm()) / norm > error - 1e-12


def test_the_error_of_many_weights_in_pieces(monkeypatch):
    w = torch.randn(300, 100, generator=torch.Generator().manual_seed(0))
    whole = by(ByError(), w)
    monkeypatch.setattr(module, "PIECE", 1000)
    monkeypatch.setattr(matrices, "PIECE", 1000)
    assert by(ByError(), w) == pytest.approx(whole, rel=1e-12)
    kept = compressibility(w.double().flatten().numpy()).kept
    assert whole[0] == round((1 - kept) * w.numel())
    assert whole[0] / w.numel() == pytest.approx(0.265, abs=0.005)


def test_zeros_go_at_an_error_of_0_and_zeros_alone_go_all():
    w = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    assert by(ByError(error=0.0), w) == (3, 0.0)
    assert by(ByError(error=0.0), torch.zeros(2, 3)) == (6, 0.0)
    assert by(ByDeviation(), torch.zeros(2, 3)) == (6, 0.0)
    assert by(ByError(), torch.zeros(0, 3)) == (0, 0.0)


def test_extreme_weights_do_not_overflow():
    w = torch.tensor([[1e200, 1e200, 1e-200, 3e190]], dtype=torch.float64)
    assert by(ByError(), w)[0] == 2


@pytest.mark.parametrize(("times", "share"), [(1.0, 0.6827), (2.0, 0.9545)])
def test_the_deviation_of_gaussian_weights(times, share):
    w = torch.randn(200, 500, generator=torch.Generator().manual_seed(1))
    drop, deviation = by(ByDeviation(times=times), w)
    assert drop / w.numel() == pytest.approx(share, abs=0.005)
    assert deviation == pytest.approx(float(w.double().std()), rel=1e-12)


def test_sizes_count_from_0_and_equal_ones_go():
    w = torch.tensor([[5.0, 5.0, 5.0, 6.0, 3.0]])  # deviation 1.095, mean 4.8
    assert by(ByDeviation(), w)[0] == 0
    deviation = float(w.double().std())
    exact = torch.tensor([[deviation, -deviation, 10 * deviation]], dtype=torch.float64)
    times = deviation / float(exact.std())
    assert by(ByDeviation(times=times * (1 + 1e-12)), exact)[0] == 2
    assert by(ByDeviation(), torch.tensor([[7.0]]))[0] == 0  # one weight has no deviation


def test_nothing_left():
    with pytest.raises(UsageError, match="would drop all 6 weights of w; ask for less, or leave"):
        by(ByDeviation(times=10.0), torch.randn(2, 3))


def stable(index, seed=0, rows=150, columns=200):
    generator = torch.Generator().manual_seed(seed)
    return sample_stable((rows, columns), index, generator=generator, dtype=torch.float64)


def test_a_stable_matrix_keeps_a_number_that_depends_on_its_index_alone():
    drop, index = by(ByTailIndex(), stable(1.0))
    assert index == pytest.approx(1.0, abs=0.05)
    assert 30 < 150 * 200 - drop < 120  # 61 for index 1 exactly
    larger, _ = by(ByTailIndex(), stable(1.0, rows=600))
    assert 600 * 200 - larger == pytest.approx(150 * 200 - drop, rel=0.35)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gauss", "the index 2.000 cannot be told from 2, that of a finite variance"),
        ("laplace", "the weights do not follow a stable law"),
        ("student", "the weights do not follow a stable law"),
        ("small", "40 values, needs 100"),
    ],
)
def test_an_index_that_is_not_to_be_relied_on_leaves_the_matrix_whole(name, reason):
    generator = np.random.default_rng(0)
    w = {
        "gauss": generator.standard_normal((100, 200)),
        "laplace": generator.laplace(size=(100, 200)),
        "student": generator.standard_t(3, size=(200, 200)),
        "small": generator.standard_normal((4, 10)),
    }[name]
    both = {"whole": torch.from_numpy(w), "tailed": stable(1.0)}
    found = ByTailIndex().allocate(layers(both), None, score=SCORE)
    assert found.drop["whole"] == 0 < found.drop["tailed"]
    assert found.note.startswith(f"1 of 2 matrices stay whole, such as whole: {reason}")
    with pytest.raises(
        UsageError, match=r"finds no number for any matrix, such as w: .*; use ByError"
    ):
        by(ByTailIndex(), torch.from_numpy(w))


def test_refusals():
    with pytest.raises(UsageError, match=r"finds its own sparsity, so give None, not 0\.5"):
        ByError().allocate(layers({"w": torch.ones(2, 2)}), 0.5, score=SCORE)
    with pytest.raises(UsageError, match=r"error must lie in \[0, 1\), but is 1\.0"):
        ByError(error=1.0)
    with pytest.raises(UsageError, match="error must be above 0"):
        ByTailIndex(error=0.0)
    with pytest.raises(UsageError, match="times must be at least 0 and finite, but is nan"):
        ByDeviation(times=float("nan"))
    with pytest.raises(NonFinite, match="w holds 1 NaN or infinite weights"):
        by(ByError(), torch.tensor([[1.0, float("inf")]]))
