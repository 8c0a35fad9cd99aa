"""Distances of many tails against the powerlaw package, and what happens when tails tie."""

import contextlib
import io
import warnings

import numpy as np
import pytest

from tailor.errors import UsageError
from tailor.numerics.powerlaw.search import (
    Tails,
    any_closer,
    closest,
    different,
    distance_curve,
    tails,
)


def reference(values):
    """(xmin, alpha, D) of every tail, by the powerlaw package, version 1.5, kept quiet."""
    import powerlaw

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(values, verbose=False)
        return fit.xmins, fit.alphas, fit.Ds


def heavy(seed, n):
    return np.random.default_rng(seed).pareto(1.5, n) + 1


@pytest.mark.parametrize(("n", "digits"), [(40, 12), (200, 1), (180, 12), (900, 12)])
def test_distance_curve_equals_the_powerlaw_package(n, digits):
    values = np.round(heavy(n, n), digits)
    curve = distance_curve(np.concatenate([values, [0.0, -1.0]]))
    xmin, alpha, distance = reference(values)
    places = np.searchsorted(xmin, curve.xmin)
    assert len(places) == len(xmin) if len(xmin) <= 200 else 100 < len(places) <= 200
    assert curve.xmin.tolist() == xmin[places].tolist()
    assert (places[0], places[-1]) == (0, len(xmin) - 1)
    np.testing.assert_allclose(curve.alpha, alpha[places], rtol=1e-9)
    np.testing.assert_allclose(curve.D, distance[places], rtol=1e-9)


def test_distance_curve_is_even_in_the_logarithm_of_the_size():
    values = heavy(0, 10_000)
    curve = distance_curve(values, points=20)
    sizes = [np.count_nonzero(values >= xmin) for xmin in curve.xmin]
    assert sizes == pytest.approx(np.geomspace(10_000, 2, 20).tolist(), abs=1)


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, -2.0]), np.ones(5)])
def test_distance_curve_without_a_tail_is_empty(values):
    assert [len(part) for part in distance_curve(values)] == [0, 0, 0]


@pytest.mark.parametrize("n", [20, 600, 5000])
def test_any_closer_agrees_with_the_closest(n):
    every = tails(*log_and_times(heavy(1, n)), 2)
    _, distance = closest(every)
    assert not any_closer(every, distance)
    assert any_closer(every, np.nextafter(distance, 1))


@pytest.mark.parametrize("m", [20, 200])
def test_ties_go_to_the_longest_tail(m):
    """Models that vanish above xmin leave the share above, one half: every distance is equal."""
    halving = Tails(
        log=np.linspace(-1, 0, m), count=2.0 ** np.arange(m, 0, -1), rate=np.full(m - 1, 1e9)
    )
    assert closest(halving) == (0, 0.5)
    assert not any_closer(halving, 0.5)
    assert any_closer(halving, 0.6)


@pytest.mark.parametrize("least", [2, 50, 300, 301])
def test_tails_are_as_long_as_they_have_to_be(least):
    log, times = log_and_times(np.round(heavy(2, 300), 1))
    found = tails(log, times, least)
    long = np.cumsum(times[::-1])[::-1] >= least
    assert len(found.rate) == min(np.count_nonzero(long), len(log) - 1)


def test_different_values_and_how_often_each_comes():
    x = np.sort(np.round(heavy(3, 100), 1))
    value, times = different(x)
    expected = np.unique(x, return_counts=True)
    assert (value.tolist(), times.tolist()) == tuple(part.tolist() for part in expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distance_curve(np.array([1.0, np.inf])), "finite values"),
        (lambda: distance_curve(np.ones(9), points=1), "at least 2 points, but points is 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def log_and_times(values):
    value, times = different(np.sort(values))
    return np.log(value), times
