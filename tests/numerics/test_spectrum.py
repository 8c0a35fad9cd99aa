"""Spectra against numpy's and scipy's singular values; norms and measures by their definitions."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import NonFinite, UsageError
from tailor.numerics.spectrum import (
    SpectralNorm,
    determinant_count,
    entropy,
    frobenius_norm,
    openblas,
    pooled,
    positive_floor,
    product_core,
    spectral_norm,
    spectrum,
    stable_rank,
)
from tailor.numerics.spectrum import blocks as blocks_module
from tailor.numerics.spectrum import gram as gram_module

SEEDS = st.integers(0, 10_000)
SIDES = st.integers(1, 12)
needs_openblas = pytest.mark.skipif(
    openblas._routine("dsyrk") is None, reason="numpy was built without the OpenBLAS of its wheels"
)
DOUBLE, SINGLE = torch.float64, torch.float32
COMPLEX = torch.complex128


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def by_numpy(stack):
    """Singular values, one row a matrix, and the sum of numpy's ranks."""
    array = stack.to(COMPLEX if stack.is_complex() else DOUBLE).numpy()
    return np.linalg.svd(array, compute_uv=False), int(np.linalg.matrix_rank(array).sum())


def assert_is_spectrum_of(found, stack, least=True):
    singular, rank = by_numpy(stack)
    expected = np.sort(singular.ravel() ** 2)
    assert found.eigenvalues.shape == expected.shape
    assert (np.diff(found.eigenvalues) >= 0).all()
    assert found.eigenvalues[0] >= 0
    # numpy's own singular values are exact to about ten eps of the largest
    allowed = found.error + 20 * np.finfo(np.float64).eps * expected[-1]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=0, atol=allowed)
    if least:
        assert found.rank == rank
        noise = max(stack.shape[1:]) * np.finfo(np.float64).eps * singular.max()
        assert found.least == pytest.approx(singular.min(), rel=0.05, abs=noise)


# ---- all eigenvalues ----------------------------------------------------------------------


@given(st.integers(1, 4), SIDES, SIDES, SEEDS, st.sampled_from([SINGLE, DOUBLE, COMPLEX]))
def test_equals_the_squared_singular_values_of_numpy(count, rows, columns, seed, dtype):
    stack = normal(count, rows, columns, seed=seed, dtype=dtype)
    before = stack.clone()
    assert_is_spectrum_of(spectrum(stack), stack)
    assert torch.equal(stack, before)


@given(st.integers(1, 4), SIDES, SIDES, SEEDS, st.sampled_from([SINGLE, DOUBLE, COMPLEX]))
def test_float32_keeps_its_bound_and_tells_what_it_can(count, rows, columns, seed, dtype):
    stack = normal(count, rows, columns, seed=seed, dtype=dtype)
    found = spectrum(stack, dtype=SINGLE)
    assert_is_spectrum_of(found, stack, least=found.rank is not None)
    assert (found.rank is None) == (found.least is None)
    assert found.method == "gram"


@given(SIDES, SIDES, st.integers(0, 4), SEEDS)
def test_rank_of_deficient_matrices_equals_numpy(rows, columns, rank, seed):
    stack = normal(2, rows, rank, seed=seed) @ normal(2, rank, columns, seed=seed + 1)
    assert_is_spectrum_of(spectrum(stack), stack)


def test_float32_cannot_tell_the_rank_of_a_singular_matrix():
    found = spectrum(normal(5, 9, 3) @ normal(5, 3, 7, seed=1), dtype=SINGLE)
    assert found.rank is None
    assert found.least is None
    assert (found.eigenvalues >= 0).all()
    assert spectrum(normal(1, 90, 7), dtype=SINGLE).rank == 7


def test_small_singular_values_are_found_where_a_gram_matrix_loses_them():
    left, _ = torch.linalg.qr(normal(8, 8))
    right, _ = torch.linalg.qr(normal(8, 8, seed=1))
    true = torch.logspace(-11, 0, 8, dtype=DOUBLE)
    found = spectrum((left @ torch.diag(true) @ right)[None])
    assert found.method == "svd"
    assert found.rank == 8
    np.testing.assert_allclose(np.sqrt(found.eigenvalues), true.numpy(), rtol=1e-3)
    assert found.least == pytest.approx(1e-11, rel=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(20, 9), (9, 20), (9, 9)])
def test_zero_rows_and_columns_are_no_reason_for_singular_values(rows, columns):
    matrix = normal(rows, columns)
    matrix[:, 2] = 0
    matrix[4] = 0
    if rows == columns:  # a square block would be nearly singular now and then
        matrix[5] = matrix[6] = 0
    found = spectrum(matrix[None])
    assert found.method == "gram"
    assert_is_spectrum_of(found, matrix[None])
    assert found.least == 0


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_a_zero_matrix_has_rank_nought_alone_and_in_a_pool(dtype):
    found = spectrum(torch.zeros(2, 3, 4), dtype=dtype)
    assert (found.rank, found.least, found.error) == (0, 0, 0)
    np.testing.assert_array_equal(found.eigenvalues, np.zeros(6))
    mixed = torch.cat([torch.zeros(1, 3, 9), torch.eye(3, 9)[None]])
    found = spectrum(mixed, dtype=dtype)
    assert (found.rank, found.least) == (3, 0)
    np.testing.assert_array_equal(found.eigenvalues, [0, 0, 0, 1, 1, 1])


@given(st.integers(-400, 400), st.sampled_from([SINGLE, DOUBLE]), SEEDS)
def test_a_power_of_two_scales_the_spectrum_exactly(power, dtype, seed):
    stack = normal(2, 7, 5, seed=seed)
    plain, scaled = spectrum(stack, dtype=dtype), spectrum(stack * 2.0**power, dtype=dtype)
    np.testing.assert_array_equal(scaled.eigenvalues, np.ldexp(plain.eigenvalues, 2 * power))
    assert scaled.rank == plain.rank


@pytest.mark.parametrize("mode", [SINGLE, DOUBLE])
@pytest.mark.parametrize("power", [-130, -100, -30, 30, 100, 120])
def test_float32_matrices_of_any_scale_neither_overflow_nor_vanish(power, mode):
    stack = torch.eye(5, 8).mul(torch.arange(1, 9))[None]  # exact at every scale
    found = spectrum(stack * 2.0**power, dtype=mode)
    expected = np.ldexp(np.arange(1, 6) ** 2.0, 2 * power)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-6)
    assert found.rank == 5


def test_matrices_of_very_different_scale_keep_their_own_rank():
    stack = torch.stack([torch.eye(4), 1e-30 * torch.eye(4)])
    found = spectrum(stack)
    assert found.rank == 8
    np.testing.assert_allclose(found.eigenvalues, [1e-60] * 4 + [1] * 4, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64],
)
def test_every_type_of_entry_is_accepted(dtype):
    stack = (normal(2, 6, 4, dtype=torch.complex64) if dtype.is_complex else normal(2, 6, 4)).to(
        dtype
    )
    assert_is_spectrum_of(spectrum(stack), stack)
    assert_is_spectrum_of(spectrum(stack, dtype=SINGLE), stack)


def test_views_and_parameters_are_accepted():
    kernel = torch.nn.Parameter(normal(6, 4, 3, 3))
    slices = kernel.permute(2, 3, 0, 1).flatten(0, 1)
    assert_is_spectrum_of(spectrum(slices), slices.detach())
    strided = kernel[:, :, 0][:, ::2, ::2][None, :, :, 0]
    assert_is_spectrum_of(spectrum(strided), strided.detach())
    waves = normal(2, 5, 3, dtype=COMPLEX)
    np.testing.assert_array_equal(spectrum(waves.mH).eigenvalues, spectrum(waves.mT).eigenvalues)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns"), [(90, 40), (40, 90), (70, 70)])
@pytest.mark.parametrize("source", [SINGLE, DOUBLE, torch.bfloat16, COMPLEX])
def test_blocks_and_groups_do_not_change_the_result(rows, columns, source, seed, monkeypatch):
    stack = normal(5, rows, columns, seed=seed, dtype=COMPLEX if source.is_complex else DOUBLE)
    stack = stack.to(source)
    monkeypatch.setattr(blocks_module, "BLOCK", 2000)
    monkeypatch.setattr(pooled, "BLOCK", 2 * rows * columns * 8)  # two matrices in a group
    assert_is_spectrum_of(spectrum(stack), stack)
    found = spectrum(stack, dtype=SINGLE)
    assert_is_spectrum_of(found, stack, least=found.rank is not None)


@pytest.mark.parametrize("have_openblas", [pytest.param(True, marks=needs_openblas), False])
@pytest.mark.parametrize("numpy_from", [1, 1000])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_every_routine_gives_the_same_spectrum(dtype, numpy_from, have_openblas, monkeypatch):
    """Sides from which routines change are lowered, so that each is reached."""
    monkeypatch.setattr(openblas, "available", lambda: have_openblas)
    monkeypatch.setattr(gram_module, "NUMPY_FROM", numpy_from)
    monkeypatch.setattr(openblas, "TWO_STAGE_FROM", {"d": 150, "s": 150})
    monkeypatch.setattr(blocks_module, "BLOCK", 50_000)
    for rows, columns in ((300, 130), (130, 300), (200, 200)):
        for source in (SINGLE, DOUBLE):
            stack = normal(2, rows, columns, dtype=source)
            found = spectrum(stack, dtype=dtype)
            assert_is_spectrum_of(found, stack, least=found.rank is not None)


@given(st.integers(1, 3), SIDES, SIDES, SEEDS, st.sampled_from([DOUBLE, COMPLEX]))
def test_the_way_of_other_devices_gives_the_same_numbers(count, rows, columns, seed, dtype):
    stack = normal(count, rows, columns, seed=seed, dtype=dtype)
    tall = stack if rows >= columns else stack.mT
    ones = torch.ones(count, 1, 1, dtype=DOUBLE)
    here = spectrum(stack).eigenvalues
    halves = iter(tall.split((rows + columns) // 2, dim=1))
    there = np.sort(gram_module.eigenvalues_by_torch(halves, ones).ravel()).clip(0)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-14 * here[-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_refused(value):
    stack = torch.ones(3, 4, 5)
    stack[1, 2, 3] = value
    with pytest.raises(NonFinite, match="finite entries"):
        spectrum(stack)
    with pytest.raises(NonFinite, match="finite entries"):
        spectral_norm(stack[1])
    with pytest.raises(NonFinite, match="finite entries"):
        frobenius_norm(stack[1])


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(UsageError, match=r"needs entries, but the shape is \(1, 0, 3\)"):
        spectrum(torch.zeros(1, 0, 3))
    with pytest.raises(UsageError, match=r"float64 or float32, not in torch\.float16"):
        spectrum(torch.zeros(1, 2, 3), dtype=torch.float16)
    with pytest.raises(NonFinite, match="exceed float64"):
        spectrum(torch.full((1, 2, 3), 1e200, dtype=DOUBLE))


@pytest.mark.parametrize("device", ["cuda:99", "nowhere", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UsageError, match=rf"^device '{device}' cannot be used \(.*\); use cpu$"):
        spectrum(torch.ones(1, 2, 3), device=device)


# ---- numpy's OpenBLAS ---------------------------------------------------------------------


@needs_openblas
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("side", [65, 100, 257])
@pytest.mark.parametrize("way", [openblas.by_one_stage, openblas.by_two_stages])
def test_eigenvalues_of_openblas_equal_scipy(way, side, dtype):
    matrix = np.random.default_rng(side).standard_normal((side, side)).astype(dtype)
    matrix += matrix.T
    upper = np.triu(matrix) + np.tril(np.full_like(matrix, np.nan), -1)  # never read
    expected = scipy.linalg.eigvalsh(matrix.astype(np.float64))
    allowed = side * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(way(upper), expected, rtol=0, atol=allowed)


@needs_openblas
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (5, 9), (9, 5)])
def test_add_square_adds_to_the_upper_triangle(shape, dtype):
    generator = np.random.default_rng(0)
    block = generator.standard_normal(shape).astype(dtype)
    wide = generator.standard_normal((shape[1], 2 * shape[0])).astype(dtype)
    for one in (block, np.asfortranarray(block), wide[:, : shape[0]].T):
        total = np.full((shape[1], shape[1]), 3, dtype)
        openblas.add_square(total, one)
        expected = np.triu(3 + one.T @ one)
        np.testing.assert_allclose(np.triu(total), expected, rtol=1e-5)
        assert (np.tril(total, -1) == np.tril(np.full_like(total, 3), -1)).all()


@needs_openblas
def test_openblas_is_not_used_where_it_is_missing_or_wrong(monkeypatch):
    check = openblas.available.__wrapped__
    assert check()
    with monkeypatch.context() as patch:
        patch.setattr(openblas, "_routine", lambda name: None)
        assert not check()
        with pytest.raises(np.linalg.LinAlgError, match="has no dsytrd"):
            openblas.eigenvalues(np.eye(70))
    for way in ("by_one_stage", "by_two_stages"):
        with monkeypatch.context() as patch:
            patch.setattr(openblas, way, lambda total: np.linalg.eigvalsh(total) * 1.001)
            assert not check()

    def fails(total):
        raise np.linalg.LinAlgError("sytrd failed")

    monkeypatch.setattr(openblas, "by_two_stages", fails)
    assert not check()


# ---- norms --------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), SEEDS, st.sampled_from([SINGLE, DOUBLE]))
def test_spectral_norm_equals_numpy_within_its_residual(rows, columns, seed, dtype):
    matrix = normal(rows, columns, seed=seed, dtype=dtype)
    found = spectral_norm(matrix, seed=seed)
    exact = np.linalg.svd(matrix.to(DOUBLE).numpy(), compute_uv=False)
    rounding = 20 * torch.finfo(dtype).eps * exact[0]
    assert found.residual <= 1e-4 * found.value + rounding
    assert np.abs(exact - found.value).min() <= found.residual + rounding
    assert found.value <= exact[0] + rounding
    assert found.value == pytest.approx(exact[0], rel=1e-4)


def test_the_residual_tells_that_steps_were_too_few():
    matrix = normal(300, 300)
    exact = np.linalg.norm(matrix.numpy(), 2)
    few, many = spectral_norm(matrix, steps=5), spectral_norm(matrix, steps=200)
    assert few.steps == 5
    assert few.residual > 1e-2 * exact
    assert few.value < exact * (1 - 1e-4)
    assert many.residual < 1e-4 * exact
    assert many.value == pytest.approx(exact, rel=1e-7)
    assert spectral_norm(matrix, tolerance=1e-2).steps < many.steps


@pytest.mark.parametrize("power", [-1000, -500, -60, 60, 500, 1000])
def test_norms_scale_with_the_matrix(power):
    matrix = normal(20, 10)
    scaled = matrix * 2.0**power
    plain, found = spectral_norm(matrix, tolerance=0.1), spectral_norm(scaled, tolerance=0.1)
    assert found.value == pytest.approx(np.ldexp(plain.value, power), rel=1e-14, abs=0)
    assert found.residual == pytest.approx(np.ldexp(plain.residual, power), rel=1e-10, abs=0)
    expected = np.ldexp(np.linalg.norm(matrix.numpy()), power)
    assert frobenius_norm(scaled) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_norms_of_low_precision(dtype):
    matrix = normal(30, 50).to(dtype)
    exact = matrix.to(DOUBLE).numpy()
    assert spectral_norm(matrix).value == pytest.approx(np.linalg.norm(exact, 2), rel=1e-5)
    assert frobenius_norm(matrix) == pytest.approx(np.linalg.norm(exact), rel=1e-14)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lanczos_ends_where_a_low_rank_is_exhausted(rank, dtype):
    matrix = (normal(60, rank) @ normal(rank, 50, seed=1)).to(dtype)
    found = spectral_norm(matrix, tolerance=0.0)
    exact = np.linalg.norm(matrix.to(DOUBLE).numpy(), 2)
    assert found.value == pytest.approx(exact, rel=50 * torch.finfo(dtype).eps)
    assert found.residual <= 50 * torch.finfo(dtype).eps * exact


def test_norms_of_zero_and_of_nothing():
    assert spectral_norm(torch.zeros(3, 4)) == SpectralNorm(value=0.0, residual=0.0, steps=1)
    assert frobenius_norm(torch.zeros(3, 4)) == 0
    with pytest.raises(UsageError, match=r"needs entries, but the shape is \(3, 0\)"):
        spectral_norm(torch.zeros(3, 0))
    with pytest.raises(UsageError, match=r"needs entries, but the shape is \(3, 0\)"):
        frobenius_norm(torch.zeros(3, 0))
    with pytest.raises(UsageError, match="at least 1 step, but steps is 0"):
        spectral_norm(torch.ones(3, 4), steps=0)


# ---- low rank -----------------------------------------------------------------------------


@given(SIDES, SIDES, SIDES, SEEDS, st.sampled_from([SINGLE, DOUBLE]))
def test_the_core_has_the_singular_values_of_the_product(rows, r, columns, seed, dtype):
    left, right = normal(rows, r, seed=seed, dtype=dtype), normal(r, columns, seed=seed + 1)
    right = right.to(dtype)
    core = product_core(left, right)
    assert core.shape == (min(rows, r), min(columns, r))
    found = np.linalg.svd(core.numpy(), compute_uv=False)
    product = left.to(DOUBLE) @ right.to(DOUBLE)
    expected = np.linalg.svd(product.numpy(), compute_uv=False)
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-13 * expected[0])
    np.testing.assert_allclose(expected[len(found) :], 0, atol=1e-13 * expected[0])


def test_the_core_takes_parameters_in_low_precision():
    left = torch.nn.Parameter(normal(9, 2).to(torch.bfloat16))
    core = product_core(left, normal(2, 7).to(torch.bfloat16))
    assert core.dtype == DOUBLE
    assert not core.requires_grad


# ---- measures -----------------------------------------------------------------------------

RISING = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40).map(np.sort)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([4.0], 1), ([1.0] * 7, 7), ([0.0, 9.0], 1), ([1.0, 4.0], 1.25), ([0.0, 0.0], 0), ([], 0)],
)
def test_stable_rank_of_known_spectra(values, expected):
    assert stable_rank(np.array(values, dtype=np.float64)) == pytest.approx(expected)


@given(RISING, st.floats(1e-200, 1e200))
def test_measures_are_scale_free_and_bounded(values, scale):
    rank = stable_rank(values)
    assert 1 <= rank <= len(values) * (1 + 1e-12)
    assert stable_rank(scale * values) == pytest.approx(rank, rel=1e-9)
    disorder = entropy(values, len(values))
    assert -1e-9 <= disorder <= 1 + 1e-6
    assert entropy(scale * values, len(values)) == pytest.approx(disorder, rel=1e-9)


@given(RISING, st.integers(2, 50))
def test_entropy_equals_the_formula_of_weightwatcher(values, rank):
    p = values / np.sum(values) + 1e-10
    expected = -np.sum(p * np.log(p)) / np.log(rank + 1e-10)
    assert entropy(values, rank) == pytest.approx(expected, rel=1e-12)


def test_entropy_where_it_means_nothing():
    assert entropy(np.array([0.0, 2.0]), 1) == 0
    assert entropy(np.zeros(3), 0) == 0
    assert entropy(np.ones(5), 5) == pytest.approx(1, abs=1e-7)


@given(RISING)
def test_determinant_count_equals_the_loop_of_weightwatcher(values):
    scaled = values * (len(values) / values.sum())
    expected = len(values)
    for start in range(len(values) - 1, 0, -1):
        product = np.prod(scaled[start:])
        if abs(product - 1) < 1e-9:
            return  # rounding decides
        if product < 1:
            expected = len(values) - start
            break
    if values[0] == values[-1]:
        expected = 0
    assert determinant_count(values) == expected


def test_determinant_count_of_known_spectra():
    assert determinant_count(np.array([0.1, 0.1, 1.0, 2.8])) == 3  # 2.8, 2.8, 0.28
    assert determinant_count(np.array([0.0, 0.0, 3.0])) == 2
    assert determinant_count(np.ones(4)) == 0
    assert determinant_count(np.array([2.0])) == 0
    # ln 2 for each of the large ones, ln 2e-6 for each of the small ones, product over 1e308
    many = np.sort(np.append(np.full(3000, 1e-3), np.full(3000, 1e3)))
    assert determinant_count(many) == 3000 + int(np.ceil(3000 * np.log(2) / -np.log(2e-6)))


@pytest.mark.parametrize(("dtype", "mode"), [(DOUBLE, "gram"), (SINGLE, "gram"), (DOUBLE, "svd")])
def test_the_floor_separates_a_low_rank_from_rounding(dtype, mode):
    matrix = normal(30, 5) @ normal(5, 12, seed=1)
    values = spectrum(matrix[None], dtype=dtype).eigenvalues
    if mode == "gram":  # as float64 would have it without singular values
        values = np.linalg.eigvalsh(matrix.T @ matrix) if dtype == DOUBLE else values
    floor = positive_floor(np.sort(values), rows=30, columns=12, dtype=dtype)
    assert np.count_nonzero(values > floor) == 5
    assert floor == pytest.approx(30 * torch.finfo(dtype).eps * values.max())
    assert positive_floor(np.zeros(0), rows=3, columns=4) == 0
