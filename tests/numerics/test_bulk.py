"""The fitted bulk against WeightWatcher 0.7.7, against scipy's optimiser, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from tailor.errors import UsageError
from tailor.numerics.bulk import Bulk, marchenko_pastur
from tailor.numerics.powerlaw import NoFit


def spectrum(seed, rows, columns, count=1, spikes=0, heavy=False):
    """Pooled eigenvalues of Gaussian matrices, with heavy columns or rank-one spikes added."""
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(count):
        A = generator.standard_normal((rows, columns))
        A = A * (1 + generator.pareto(2.0, columns)) ** 0.5 if heavy else A
        for _ in range(spikes):
            u, v = generator.standard_normal(rows), generator.standard_normal(columns)
            A = A + np.outer(u, v) * 3 / np.sqrt(min(rows, columns))
        values.append(np.linalg.svd(0.05 * A, compute_uv=False) ** 2)
    return np.sort(np.concatenate(values))


# Arguments of `spectrum`, and what WeightWatcher 0.7.7 gave for it:
# WeightWatcher.mp_fit(None, evals, N, M, count, "", 0, 0, False, False, "", "", 0.5, True, evals)
# returns num_spikes, sigma_mp, mp_softrank, bulk_min, bulk_max, W_scale.
WEIGHTWATCHER = [
    (
        (0, 200, 100, 1, 0, False),
        (
            0,
            0.9844874075063101,
            1.0323962132571276,
            0.04124496693104585,
            1.4011147371899573,
            1.4198223308773827,
        ),
    ),
    (
        (1, 128, 128, 1, 0, False),
        (0, 1.0077299541051656, 1.0422296318092352, 0.0, 1.286766920299495, 1.7767413905410994),
    ),
    (
        (2, 300, 60, 1, 3, False),
        (
            3,
            0.8389757697773437,
            0.17368870224380495,
            0.22953566874037346,
            1.57326087843783,
            0.9680140934835372,
        ),
    ),
    (
        (3, 96, 96, 1, 2, False),
        (2, 0.9946954532288409, 0.36731885623550425, 0.0, 1.152027448968044, 1.8534834603852917),
    ),
    (
        (4, 256, 128, 1, 0, True),
        (
            8,
            0.8607377718773896,
            0.09017586708068853,
            0.09204236401657843,
            3.12673090234335,
            0.8309718198922214,
        ),
    ),
    (
        (5, 16, 16, 9, 1, False),
        (6, 0.9944256826965778, 0.35992969093322774, 0.0, 0.24843017282019636, 3.9902504668572067),
    ),
    (
        (6, 32, 16, 9, 0, True),
        (
            9,
            0.9086531707052774,
            0.43339077699279765,
            0.010556678979535637,
            0.35861632568984475,
            2.5902626635777892,
        ),
    ),
    (
        (7, 40, 10, 1, 0, False),
        (
            0,
            0.9611201657723609,
            1.0491815874114638,
            0.019929660107337474,
            0.17936694096603725,
            3.4040642440940068,
        ),
    ),
]


@pytest.mark.parametrize(("matrices", "expected"), WEIGHTWATCHER)
def test_equals_weightwatcher(matrices, expected):
    _, rows, columns, count, _, _ = matrices
    bulk = marchenko_pastur(spectrum(*matrices), rows=rows, columns=columns, count=count)
    assert isinstance(bulk, Bulk)
    assert bulk.spikes == expected[0]
    found = (bulk.sigma, bulk.softrank, bulk.low, bulk.high, bulk.scale)
    assert found == pytest.approx(expected[1:], rel=1e-9)


def plain_sigma(eigenvalues, Q):
    """The definition, written plainly: a loop over the kernels, scipy's brute and fmin."""
    x = eigenvalues / eigenvalues.mean()
    reach = np.sqrt(x.max()) / (1 + Q**-0.5)
    if Q == 1:
        x = np.sqrt(x)
    grid = np.linspace(0, x.max() + 0.5, 1000)
    density = sum(np.maximum(1 - abs(grid - value) / 0.1, 0) for value in x) / (len(x) * 0.1)
    grid, density = grid[density > 0.01], density[density > 0.01]
    peak = grid[np.argmax(density)]

    def misfit(sigma):
        sigma = float(sigma[0])
        if Q == 1:
            law = np.sqrt(np.clip(4 - grid**2, 0, None)) / (np.pi * sigma**2)
            return np.sum((law - density) ** 2)
        low, high = (sigma * (1 - Q**-0.5)) ** 2, (sigma * (1 + Q**-0.5)) ** 2
        if high < peak or high > grid.max() or low > peak:
            return 1e6 * len(grid)
        inside = np.clip((high - grid) * (grid - low), 0, None)
        law = np.where(grid > 0, Q * np.sqrt(inside) / (2 * np.pi * sigma**2 * (grid + 1e-300)), 0)
        return np.sum((law - density) ** 2)

    trials = slice(0.05 * reach, 2 * reach, 0.01 * reach)
    return optimize.brute(misfit, (trials,), full_output=True)[0][0]


@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(12, 12, 1), (60, 20, 1), (16, 8, 4), (40, 39, 1)]),
    spikes=st.integers(0, 2),
    heavy=st.booleans(),
)
def test_sigma_equals_the_plain_definition(seed, shape, spikes, heavy):
    rows, columns, count = shape
    values = spectrum(seed, rows, columns, count, spikes, heavy)
    bulk = marchenko_pastur(values, rows=rows, columns=columns, count=count)
    if isinstance(bulk, Bulk):
        assert bulk.sigma == pytest.approx(plain_sigma(values, rows / columns), rel=1e-9)


def test_no_fit_is_where_the_plain_definition_finds_nothing():
    """Noise so far below three large values that the grid does not resolve it."""
    generator = np.random.default_rng(0)
    A = generator.standard_normal((300, 3)) @ generator.standard_normal((3, 100))
    A += 0.1 * generator.standard_normal((300, 100))
    values = np.linalg.svd(A, compute_uv=False) ** 2
    bulk = marchenko_pastur(values, rows=300, columns=100)
    assert isinstance(bulk, NoFit)
    assert "no Marchenko-Pastur law" in bulk.reason
    least = 0.05 * np.sqrt(values.max() / values.mean()) / (1 + 3**-0.5)
    assert plain_sigma(values, 3.0) == pytest.approx(least)  # its first trial


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(-6, 6))
def test_scale_of_the_weights_changes_units_only(seed, power):
    values = spectrum(seed, 60, 30, spikes=1)
    factor = 10.0**power
    a = marchenko_pastur(values, rows=60, columns=30)
    b = marchenko_pastur(values * factor**2, rows=60, columns=30)
    assert isinstance(a, Bulk)
    assert isinstance(b, Bulk)
    assert b.sigma == pytest.approx(a.sigma, rel=1e-9)
    assert (b.spikes, b.n) == (a.spikes, a.n)
    assert b.scale == pytest.approx(a.scale / factor)
    assert (b.low, b.high, b.threshold) == pytest.approx(
        (a.low * factor**2, a.high * factor**2, a.threshold * factor**2)
    )


def test_order_orientation_and_zeros_left_out_do_not_matter():
    values = np.concatenate([np.zeros(5), spectrum(1, 40, 25)])
    a = marchenko_pastur(values, rows=40, columns=30)
    assert a == marchenko_pastur(values[::-1].copy(), rows=30, columns=40)
    assert a == marchenko_pastur(values[5:], rows=40, columns=30)


def test_edges_have_the_units_of_the_eigenvalues():
    """A spectrum spread as the law itself is given back: support and noise of the entries."""
    bulk = marchenko_pastur(spectrum(3, 2000, 400), rows=2000, columns=400)
    assert isinstance(bulk, Bulk)
    root, spread = np.sqrt(2000), np.sqrt(400)
    assert bulk.sigma / (bulk.scale * root) == pytest.approx(0.05, rel=0.01)
    assert bulk.low == pytest.approx((0.05 * (root - spread)) ** 2, rel=0.02)
    assert bulk.high == pytest.approx((0.05 * (root + spread)) ** 2, rel=0.02)
    assert bulk.softrank == pytest.approx(1, rel=0.03)


def test_too_little_to_fit_is_told():
    few = marchenko_pastur(np.ones(7), rows=20, columns=7)
    assert few == NoFit(reason="7 eigenvalues, needs 8", n=7)
    nothing = marchenko_pastur(np.zeros(10), rows=20, columns=10)
    assert nothing == NoFit(reason="all eigenvalues are zero", n=10)


@pytest.mark.parametrize(
    ("values", "sizes", "message"),
    [
        (np.ones(9), {"rows": 20, "columns": 8}, "9 eigenvalues came, but .* have 8"),
        (np.ones(8), {"rows": 20, "columns": 0}, "sizes must be positive, but are 20 x 0"),
        (np.ones(8), {"rows": 8, "columns": 8, "count": 0}, "count 0"),
        (np.array([1.0, np.nan]), {"rows": 20, "columns": 9}, "some are NaN or infinite"),
        (np.array([1.0, -0.1]), {"rows": 20, "columns": 9}, "the least is -0.1"),
    ],
)
def test_what_is_no_spectrum_is_refused(values, sizes, message):
    with pytest.raises(UsageError, match=message):
        marchenko_pastur(values, **sizes)


def test_rounding_of_a_gram_matrix_is_no_negative_eigenvalue():
    values = spectrum(1, 40, 25)
    rounded = np.concatenate([[-1e-15, 1e-16], values])
    a = marchenko_pastur(rounded, rows=40, columns=27)
    b = marchenko_pastur(values, rows=40, columns=27)
    assert isinstance(a, Bulk)
    assert isinstance(b, Bulk)
    assert a.sigma == pytest.approx(b.sigma, rel=1e-9)
