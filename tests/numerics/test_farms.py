"""FARMS: the published check on Gaussian matrices, and its geometry written out."""

import re

import numpy as np
import pytest
import torch

from tailor.errors import UsageError
from tailor.numerics.powerlaw.clauset import Clauset
from tailor.numerics.powerlaw.farms import FARMS, MatrixFit
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit
from tailor.numerics.powerlaw.hill import Hill, HillMid


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heavy(rows, columns, seed):
    """Gaussian columns whose squared scales follow a Pareto law of density exponent 2.5."""
    scales = np.random.default_rng(seed).pareto(1.5, columns) + 1
    return gaussian(rows, columns, seed=seed) * torch.from_numpy(scales).sqrt()


def squares(matrix):
    return np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2


def pooled_by_loops(matrix, window, ratio, windows):
    """Eigenvalues of every window, by the loop that FARMS publishes for linear layers."""
    rows, columns = matrix.shape
    height = min(window, rows, columns)
    width = int(height * ratio)
    step_r = max(1, (rows - height) // (windows - 1))
    step_c = max(1, (columns - width) // (windows - 1))
    pool = []
    for i in range(min(windows, (rows - height) // step_r + 1)):
        for j in range(min(windows, (columns - width) // step_c + 1)):
            top, left = min(i * step_r, rows - height), min(j * step_c, columns - width)
            pool.append(squares(matrix[top : top + height, left : left + width]))
    return np.concatenate(pool)


@pytest.mark.parametrize(
    ("shape", "whole"), [((512, 512), 2.12), ((512, 1024), 2.71), ((256, 2048), 4.5)]
)
def test_gaussian_matrices_of_every_shape_look_alike(shape, whole):
    """The published purpose. Over seeds, 2.116 +- 0.004; whole matrices vary by up to 0.06."""
    matrix = gaussian(*shape)
    fit = FARMS().fit_matrices(matrix[None])
    assert isinstance(fit, PowerLawFit)
    assert fit.alpha == pytest.approx(2.116, abs=0.016)
    assert HillMid().fit(squares(matrix)).alpha == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((70, 110), {"window": 40, "windows": 4}),
        ((70, 110), {"window": 40, "windows": 4, "ratio": 0.5}),
        ((70, 110), {"window": 40, "windows": 3, "ratio": 2.0}),
        ((300, 41), {"window": 100, "windows": 9}),
        ((42, 45), {"window": 40, "windows": 9}),
        ((48, 51), {"window": 40, "windows": 4}),  # five places would fit
        ((60, 60), {"window": 100, "windows": 2}),
    ],
)
def test_windows_are_those_that_the_loop_visits(shape, settings):
    farms = FARMS(fit=Hill(k=0.2), **settings)
    pool = pooled_by_loops(gaussian(*shape), farms.window, farms.ratio, farms.windows)
    fit, told = farms.fit_matrices(gaussian(1, *shape)), Hill(k=0.2).fit(pool)
    for name in ("alpha", "xmin", "xmax", "D"):
        assert getattr(fit, name) == pytest.approx(getattr(told, name), rel=1e-9)
    assert (fit.n, fit.n_tail) == (told.n, told.n_tail)


def test_a_wide_window_shrinks_until_it_fits():
    """Twice as wide as high: in 60 columns no more than 30 rows."""
    matrix = gaussian(1, 70, 60)
    one = FARMS(window=40, ratio=2.0, windows=3).fit_matrices(matrix)
    assert one == FARMS(window=30, ratio=2.0, windows=3).fit_matrices(matrix)
    assert isinstance(one, PowerLawFit)
    assert one.n == 3 * 30


def test_sigma_counts_every_entry_once():
    """Windows of 40 at 0, 15, 30 along 70 rows and at 0, 35, 70 along 110 columns."""
    farms = FARMS(window=40, windows=3)
    fit = farms.fit_matrices(gaussian(1, 70, 110))
    told = HillMid().fit(pooled_by_loops(gaussian(70, 110), 40, 1.0, 3))
    overlap = 3 * 40 / 70 * 3 * 40 / 110
    assert fit.sigma == pytest.approx(told.sigma * np.sqrt(overlap), rel=1e-9)
    assert fit.low == pytest.approx(fit.alpha - 1.959964 * fit.sigma, rel=1e-6)
    assert fit.high == pytest.approx(fit.alpha + 1.959964 * fit.sigma, rel=1e-6)
    apart = FARMS(window=20, windows=2).fit_matrices(gaussian(1, 70, 110))
    assert apart.sigma == pytest.approx((apart.alpha - 1) / np.sqrt(apart.n_tail), rel=1e-9)


def test_sigma_is_not_too_short():
    """Where windows overlap five times, the fit's own sigma is too short, and this one is not."""
    fits = [FARMS(window=60).fit_matrices(heavy(80, 180, seed)[None]) for seed in range(40)]
    spread = np.std([fit.alpha for fit in fits])
    assert np.mean([(fit.alpha - 1) / np.sqrt(fit.n_tail) for fit in fits]) < spread
    assert spread < np.mean([fit.sigma for fit in fits])


@pytest.mark.parametrize("upright", [True, False])
def test_blocks_of_a_convolution(upright):
    """Nine 50 x 16 positions: three square blocks, pooled over positions, exponents averaged."""
    stack = gaussian(9, 50, 16)
    fits = []
    for block in range(3):
        rows = stack[:, 16 * block : 16 * (block + 1)]
        fits.append(HillMid().fit(np.concatenate([squares(matrix) for matrix in rows])))
    fit = FARMS().fit_matrices(stack if upright else stack.mT)
    assert fit.alpha == pytest.approx(np.mean([one.alpha for one in fits]), rel=1e-9)
    assert pytest.approx(np.mean([one.D for one in fits]), rel=1e-9) == fit.D
    assert fit.xmin == pytest.approx(np.mean([one.xmin for one in fits]), rel=1e-9)
    assert fit.sigma == pytest.approx(np.sqrt(sum(one.sigma**2 for one in fits)) / 3, rel=1e-9)
    assert fit.xmax == pytest.approx(max(one.xmax for one in fits), rel=1e-9)
    assert (fit.n, fit.n_tail) == (3 * 144, 3 * 72)


@pytest.mark.parametrize(("ratio", "height", "width"), [(0.5, 16, 8), (2.0, 8, 16)])
def test_blocks_of_another_ratio(ratio, height, width):
    """As published: narrower by the ratio below 1, flatter by it above."""
    stack = gaussian(9, 40, 16)
    alphas = []
    for block in range(2):
        part = stack[:, height * block : height * (block + 1), :width]
        values = np.concatenate([squares(matrix) for matrix in part])
        alphas.append(HillMid().fit(values).alpha)
    fit = FARMS(ratio=ratio).fit_matrices(stack)
    assert fit.alpha == pytest.approx(np.mean(alphas), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 120, 130), (4, 60, 24)])
@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_alpha_does_not_depend_on_the_scale(shape, factor):
    stack = gaussian(*shape)
    one, other = FARMS().fit_matrices(stack), FARMS().fit_matrices(factor * stack)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-9)
    assert other.xmin == pytest.approx(factor**2 * one.xmin, rel=1e-9)


def test_the_weights_stay_as_they_are():
    """The published code scales overlapping views of a convolution in place."""
    stack = gaussian(4, 60, 24).requires_grad_()
    before = stack.detach().clone()
    FARMS().fit_matrices(stack)
    assert torch.equal(stack, before)


def test_any_tail_fit_and_any_precision():
    matrix = heavy(200, 150, seed=1)
    farms = FARMS(window=50, windows=4, fit=Clauset())
    told = Clauset().fit(pooled_by_loops(matrix, 50, 1.0, 4))
    assert isinstance(farms, MatrixFit)
    assert farms.fit_matrices(matrix[None]).alpha == pytest.approx(told.alpha, rel=1e-9)
    half = FARMS().fit_matrices(matrix[None].to(torch.bfloat16))
    exact = FARMS().fit_matrices(matrix[None].to(torch.bfloat16).to(torch.float64))
    assert half == exact


def test_rounding_error_is_no_eigenvalue():
    """Windows of a matrix of rank 20 have 20 eigenvalues, not 60."""
    matrix = gaussian(90, 20) @ gaussian(20, 90, seed=1)
    fit = FARMS(window=60, windows=2).fit_matrices(matrix[None])
    assert fit.n == 4 * 20


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        (torch.zeros(1, 0, 5), r"a stack of shape \(1, 0, 5\) has no entries"),
        (torch.zeros(1, 30, 30), "0 of 0 values"),
        (torch.ones(1, 4, 4), "needs 10"),
        (torch.ones(3, 8, 2), "needs 10"),
    ],
)
def test_no_fit_says_why(stack, reason):
    fit = FARMS().fit_matrices(stack)
    assert isinstance(fit, NoFit)
    assert re.search(reason, fit.reason)


def test_refuses_what_has_no_windows():
    with pytest.raises(UsageError, match="window must be at least 1 and ratio positive"):
        FARMS(window=0)
    with pytest.raises(UsageError, match="window must be at least 1 and ratio positive"):
        FARMS(ratio=-1.0)
    with pytest.raises(UsageError, match="windows must be at least 2 along an axis, but is 1"):
        FARMS(windows=1)
    with pytest.raises(UsageError, match="finite weights"):
        FARMS().fit_matrices(torch.full((1, 30, 30), float("nan")))
