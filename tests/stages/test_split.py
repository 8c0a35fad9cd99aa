import math

import numpy as np
import pytest
import torch
from scipy import stats

from tailor.errors import NonFinite, UsageError
from tailor.numerics.stable import sample_stable
from tailor.stages.allocate import ByDeviation, ByError, ByTailIndex
from tailor.stages.split import output_error, redraw_flip_bound, refill, split

SIZE = 400


def gaussian():
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def laplace():
    return torch.from_numpy(np.random.default_rng(0).laplace(size=(SIZE, SIZE)))


def student():
    return torch.from_numpy(np.random.default_rng(0).standard_t(3, size=(SIZE, SIZE)))


# Integrals of the normal and the Laplace density; Student's are those of a sample, since its
# fourth moment is infinite. One standard deviation is kept; what goes is zero, or noise with the
# deviation of all entries, or with its own.
ONE = stats.norm.pdf(1.0)
NORMAL = {"share": 2 * stats.norm.sf(1), "zero": 1 - 2 * stats.norm.sf(1) - 2 * ONE}
THRESHOLD = math.sqrt(2)
LAPLACE = {
    "share": math.exp(-THRESHOLD),
    "zero": 1 - math.exp(-THRESHOLD) * (2 + 2 * THRESHOLD + THRESHOLD**2) / 2,
}


@pytest.mark.parametrize(("make", "law"), [(gaussian, NORMAL), (laplace, LAPLACE)])
def test_one_standard_deviation(make, law):
    W = make()
    parts = split(W, ByDeviation())
    assert parts.share == pytest.approx(law["share"], abs=0.003)
    expected = {
        "zero": law["zero"],
        "redraw_matched": 2 * law["zero"],
        "redraw_global": law["zero"] + 1 - law["share"],
    }
    for mode, error in expected.items():
        changed = (refill(parts, mode, seed=1) - W).square().sum() / W.square().sum()
        assert float(changed) == pytest.approx(error, abs=0.02)  # 160,000 entries: deviation 0.006
    assert 1 - parts.energy_kept == pytest.approx(law["zero"], abs=0.005)


def test_published_errors_of_one_standard_deviation():
    """Relative squared errors 0.20, 0.40, 0.88 (normal) and 0.18, 0.36, 1.00 (Student, 3)."""
    for W, expected in ((gaussian(), (0.20, 0.40, 0.88)), (student(), (0.18, 0.36, 1.00))):
        parts = split(W, ByDeviation())
        modes = ("zero", "redraw_matched", "redraw_global")
        found = [float((refill(parts, m) - W).square().sum() / W.square().sum()) for m in modes]
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_two_parts_are_the_matrix():
    W = student()
    before = W.clone()
    parts = split(W)
    assert torch.equal(W, before)
    assert torch.equal(parts.large + parts.small, W)
    assert not (parts.large.bool() & parts.small.bool()).any()
    assert torch.equal(parts.large != 0, parts.keep)
    assert parts.large[parts.keep].abs().min() >= parts.threshold == parts.small.abs().max()
    assert parts.rule == repr(ByError())


def test_by_default_the_fewest_with_a_tenth_of_error():
    W = student()
    parts = split(W)
    squares = np.sort(W.numpy().ravel() ** 2)[::-1]
    expected = int(np.argmax(np.cumsum(squares) >= 0.99 * squares.sum())) + 1
    assert parts.kept == expected == int(parts.keep.sum())
    assert 0.99 <= parts.energy_kept < 0.9901


@pytest.mark.parametrize(("rule", "kept"), [(0, 0), (7, 7), (0.25, 5), (20, 20)])
def test_a_number_and_a_share(rule, kept):
    W = torch.arange(1.0, 21.0).reshape(4, 5)
    parts = split(W, rule)
    assert parts.kept == int(parts.keep.sum()) == kept
    assert parts.keep.flatten().tolist() == [False] * (20 - kept) + [True] * kept
    assert parts.energy_kept == pytest.approx(
        sum(x * x for x in range(21 - kept, 21)) / sum(x * x for x in range(21))
    )


def test_a_tail_index_below_two():
    W = sample_stable((SIZE, SIZE), 1.0, generator=torch.Generator().manual_seed(0))
    parts = split(W, ByTailIndex(error=0.1))
    assert 50 <= parts.kept <= 75  # 61 at index 1, which is estimated
    with pytest.raises(UsageError, match="cannot be told from 2"):
        split(gaussian(), ByTailIndex())


def test_matrices_without_a_tail():
    zero = split(torch.zeros(3, 4), ByDeviation())
    assert (zero.kept, zero.energy_kept, zero.threshold) == (0, 1.0, 0.0)
    for mode in ("zero", "redraw_matched", "redraw_global"):
        assert torch.equal(refill(zero, mode), torch.zeros(3, 4))
    for mode in ("zero", "redraw_matched", "redraw_global"):
        constant = split(torch.full((3, 4), 2.0), ByDeviation())  # no deviation: all are above it
        assert torch.equal(refill(constant, mode), torch.full((3, 4), 2.0))
    one = split(torch.ones(1, 1), 0)
    assert refill(one, "redraw_matched").item() == 1.0  # mean 1, deviation 0
    ties = split(torch.ones(2, 2), 1)
    assert ties.keep.flatten().tolist() == [False, False, False, True]


def test_half_precision_stays_and_seeds_differ():
    W = student().to(torch.bfloat16)
    parts = split(W, 0.1)
    assert parts.large.dtype == parts.small.dtype == torch.bfloat16
    drawn = [refill(parts, "redraw_matched", seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].dtype == torch.bfloat16
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][parts.keep], W[parts.keep])


def test_noise_has_the_law_that_was_asked_for():
    W = student() + 0.5
    parts = split(W, 0.1)
    for mode, values in (("redraw_matched", W[~parts.keep]), ("redraw_global", W.flatten())):
        drawn = refill(parts, mode)[~parts.keep]
        assert float(drawn.mean()) == pytest.approx(float(values.mean()), abs=0.02)
        assert float(drawn.std()) == pytest.approx(float(values.std()), rel=0.01)


def test_the_output_error_is_that_of_each_input():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    X = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    X[2] = 0
    other = refill(split(W, 0.5))
    found = output_error(W, other, X)
    for i, x in enumerate(X):
        change, plain = (other - W) @ x, W @ x
        assert float(found[i]) == (
            0 if i == 2 else pytest.approx(float(change.norm() / plain.norm()))
        )
    assert torch.equal(output_error(W, W, X), torch.zeros(6, dtype=torch.float64))
    assert output_error(torch.zeros(5, 8), torch.ones(5, 8), torch.ones(1, 8)).item() == math.inf


def test_zeros_err_less_than_noise():
    """E||(A - G) x||^2 = ||A x||^2 + E||G x||^2."""
    W = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 64)))
    X = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 64)))
    parts = split(W, ByDeviation())
    found = [
        float(output_error(W, refill(parts, mode), X).median())
        for mode in ("zero", "redraw_matched", "redraw_global")
    ]
    np.testing.assert_allclose(found, [0.43, 0.60, 0.99], atol=0.08)


def test_the_bound_on_flips_holds():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    X = torch.randn(60, 12, generator=generator, dtype=torch.float64) + 0.3
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    for mode in ("redraw_matched", "redraw_global"):
        parts = split(W, 0.5)
        labels = (X @ parts.large.T + bias).argmax(dim=1)
        bound = redraw_flip_bound(parts, X, labels, bias=bias, mode=mode)
        drawn = [refill(parts, mode, seed=seed) for seed in range(1000)]
        flips = torch.stack([(X @ V.T + bias).argmax(dim=1) != labels for V in drawn])
        share = flips.double().mean(dim=0)
        chance = 4 * (bound * (1 - bound) / 1000).sqrt() + 3 / 1000  # rare flips are no normal ones
        assert (share <= bound + chance).all()
        assert 0.1 < float(share.mean()) < float(bound.mean()) < 1


def test_the_bound_is_exact_for_two_classes():
    W = torch.tensor([[3.0, 0.2], [1.0, -0.2]], dtype=torch.float64)
    parts = split(W, 2)
    X = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    spread = np.std([0.2, -0.2], ddof=1)
    expected = stats.norm.cdf(-2 / (spread * math.sqrt(4 + 4)))
    found = redraw_flip_bound(parts, X, torch.tensor([0]))
    assert found.tolist() == pytest.approx([expected])
    wrong = redraw_flip_bound(parts, X, torch.tensor([1]))
    assert wrong.tolist() == pytest.approx([1 - expected])


def test_without_noise_only_the_margin_counts():
    parts = split(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 4)
    found = redraw_flip_bound(parts, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    assert found.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("matrix", "kind", "match"),
    [
        (torch.ones(4), UsageError, r"shape \(4,\)"),
        (torch.ones(2, 3, 3, 3), UsageError, "flatten"),
        (torch.ones(0, 3), UsageError, r"shape \(0, 3\)"),
        (torch.ones(2, 3, dtype=torch.int32), UsageError, "type int32"),
        (torch.ones(2, 3, dtype=torch.complex64), UsageError, "type complex64"),
        (torch.tensor([[1.0, torch.nan]]), NonFinite, "1 NaN or infinite"),
    ],
)
def test_what_cannot_be_split(matrix, kind, match):
    with pytest.raises(kind, match=match):
        split(matrix)


@pytest.mark.parametrize("rule", [-1, 7, True, 1.0, 0.0, float("nan")])
def test_how_many_is_checked(rule):
    with pytest.raises(UsageError, match=r"cannot be kept|a number of entries to keep"):
        split(torch.ones(2, 3), rule)


def test_shapes_and_classes_are_checked():
    W = torch.ones(2, 3)
    with pytest.raises(UsageError, match="two matrices of one shape"):
        output_error(W, torch.ones(3, 2), torch.ones(4, 3))
    for inputs, labels in (
        (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.ones(4, 3), torch.full((4,), 2)),
        (torch.ones(4, 3), torch.zeros(3, dtype=torch.int64)),
    ):
        with pytest.raises(UsageError, match="labels from 0 to 1"):
            redraw_flip_bound(split(W, 1), inputs, labels)
