"""The edge of noise against numerical integration, a Fredholm determinant, and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import airy

from tailor.errors import UsageError
from tailor.numerics.edge import (
    NoiseEdge,
    marchenko_pastur_median,
    noise_edge,
    tracy_widom_edge,
    tracy_widom_quantile,
)
from tailor.numerics.powerlaw import NoFit


def noise(generator, rows, columns, count=1, spikes=()):
    """Pooled eigenvalues of noise, each matrix with orthogonal spikes of these sizes."""
    values = []
    for _ in range(count):
        A = generator.standard_normal((rows, columns))
        k = len(spikes)
        left = np.linalg.qr(generator.standard_normal((rows, k)))[0]
        right = np.linalg.qr(generator.standard_normal((columns, k)))[0]
        A = A + (left * np.array(spikes)) @ right.T
        values.append(np.linalg.svd(A, compute_uv=False) ** 2)
    return np.concatenate(values)


@given(st.floats(0.001, 1))
def test_median_halves_the_law(ratio):
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x)

    median = marchenko_pastur_median(ratio)
    assert quad(density, median, high)[0] == pytest.approx(0.5, abs=1e-6)


def test_median_of_a_square_matrix_is_that_of_the_quarter_circle():
    """Half of the quarter circle lies below 0.807946 of its standard deviation."""
    root = np.sqrt(marchenko_pastur_median(1.0))
    below = (root * np.sqrt(4 - root**2) / 2 + 2 * np.arcsin(root / 2)) / np.pi
    assert below == pytest.approx(0.5, abs=1e-12)


def tracy_widom_tail(s):
    """1 - det(1 - Ai((x + y) / 2) / 2) on (s, inf): Ferrari & Spohn (2005), Bornemann (2010)."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, root = s + 8 * (nodes + 1), np.sqrt(8 * weights)
    kernel = airy((x[:, None] + x) / 2)[0] / 2
    return -np.expm1(np.log1p(-np.linalg.eigvalsh(root[:, None] * kernel * root)).sum())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999])
def test_quantiles_of_tracy_and_widom(level):
    assert tracy_widom_tail(tracy_widom_quantile(level)) == pytest.approx(1 - level, rel=1e-3)


def test_quantiles_between_the_points_of_the_table():
    levels = 1 - np.geomspace(0.5, 2e-6, 40)
    tails = [tracy_widom_tail(tracy_widom_quantile(float(level))) for level in levels]
    assert tails == pytest.approx(1 - levels, rel=0.02)
    published = [tracy_widom_quantile(level) for level in (0.9, 0.95, 0.99)]
    assert published == pytest.approx([0.4501, 0.9793, 2.0234])


@pytest.mark.parametrize(("rows", "columns"), [(10, 8), (40, 40), (100, 20)])
def test_noise_of_known_variance_stays_below_its_edge(rows, columns):
    generator = np.random.default_rng(5)
    tops = [noise(generator, rows, columns).max() for _ in range(1000)]
    share = np.mean(np.array(tops) > tracy_widom_edge(rows, columns, 0.9))
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 1000)  # four standard errors


@pytest.mark.parametrize(
    ("rows", "columns", "count", "repeats"), [(60, 60, 1, 300), (90, 30, 1, 300), (12, 12, 9, 200)]
)
def test_noise_of_unknown_variance_seldom_has_spikes(rows, columns, count, repeats):
    generator = np.random.default_rng(7)
    wrong = 0
    for _ in range(repeats):
        found = noise_edge(
            noise(generator, rows, columns, count), rows=rows, columns=columns, count=count
        )
        assert isinstance(found, NoiseEdge)
        wrong += found.spikes > 0
    assert wrong / repeats < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.parametrize(("rows", "columns", "count"), [(100, 100, 1), (200, 50, 1), (20, 16, 9)])
def test_spikes_are_counted_and_the_noise_is_found_beside_them(rows, columns, count):
    generator = np.random.default_rng(11)
    root = (rows * columns) ** 0.25  # a spike below this size hides in the bulk
    wrong, deviations = 0, []
    for _ in range(30):
        values = 0.2**2 * noise(generator, rows, columns, count, (8 * root, 4 * root))
        found = noise_edge(values, rows=rows, columns=columns, count=count, level=0.99)
        assert isinstance(found, NoiseEdge)
        wrong += found.spikes != 2 * count
        deviations.append(found.deviation)
    assert wrong <= 2
    assert np.mean(deviations) == pytest.approx(0.2, rel=0.01)


def test_sigma_is_one_for_noise_and_falls_with_the_share_of_spikes():
    generator = np.random.default_rng(13)
    pure = noise_edge(noise(generator, 300, 200), rows=300, columns=200)
    mixed = noise_edge(noise(generator, 300, 200, 1, (245.0,)), rows=300, columns=200)
    assert isinstance(pure, NoiseEdge)
    assert isinstance(mixed, NoiseEdge)
    assert (pure.sigma, pure.sigma_median) == pytest.approx((1, 1), abs=0.02)
    assert (mixed.sigma, mixed.sigma_median) == pytest.approx((0.5**0.5,) * 2, abs=0.02)
    assert (mixed.spikes, mixed.n) == (1, 200)


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(-6, 6))
def test_scale_of_the_weights_changes_units_only(seed, power):
    values = noise(np.random.default_rng(seed), 30, 20, 1, (40.0,))
    a = noise_edge(values, rows=30, columns=20)
    b = noise_edge(values * 10.0 ** (2 * power), rows=20, columns=30)
    assert isinstance(a, NoiseEdge)
    assert isinstance(b, NoiseEdge)
    assert (b.sigma, b.sigma_median, b.spikes) == (
        pytest.approx(a.sigma),
        pytest.approx(a.sigma_median),
        a.spikes,
    )
    assert b.deviation == pytest.approx(a.deviation * 10.0**power)
    assert b.edge == pytest.approx(a.edge * 10.0 ** (2 * power))


def test_a_higher_level_or_more_matrices_move_the_edge_up():
    values = noise(np.random.default_rng(1), 30, 20, 2)
    levels = (0.9, 0.95, 0.99)
    edges = [noise_edge(values, rows=30, columns=20, count=2, level=level).edge for level in levels]
    assert edges[0] < edges[1] < edges[2]
    assert tracy_widom_edge(30, 20, 0.95) < tracy_widom_edge(30, 20, 0.95 ** (1 / 9))


def test_a_matrix_of_low_rank_has_no_noise():
    values = np.concatenate([np.zeros(17), [1.0, 2.0, 3.0]])
    found = noise_edge(values, rows=30, columns=20)
    assert isinstance(found, NoiseEdge)
    assert (found.sigma, found.edge, found.spikes) == (0, 0, 3)


def test_too_little_and_wrong_input_is_told():
    assert noise_edge(np.ones(3), rows=9, columns=3) == NoFit(reason="3 eigenvalues, needs 8", n=3)
    with pytest.raises(UsageError, match=r"level must lie in \[0.5, 1\), but is 1.0"):
        noise_edge(np.ones(9), rows=9, columns=9, level=1.0)
    with pytest.raises(UsageError, match="some are NaN or infinite"):
        noise_edge(np.array([np.inf]), rows=9, columns=9)
