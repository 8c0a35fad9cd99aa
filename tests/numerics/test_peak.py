"""XminPeak against a plain-loop version of the published rule."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit
from tailor.numerics.powerlaw.peak import XminPeak


def lognormal(seed, n, center=0.0):
    return np.random.default_rng(seed).lognormal(center, 1.2, n)


def by_loops(values, *, compat, least):
    """(D, start, alpha) of the best candidate, by the rule as AlphaPruning states it."""
    x = np.sort(values)
    logs = np.log10(x)
    width = (logs[-1] - logs[0]) / 100
    bins = np.minimum(((logs - logs[0]) / width).astype(int), 99)
    fullest = max(range(100), key=lambda b: (np.sum(bins == b), -b))
    peak = 10 ** (logs[0] + fullest * width)
    lowest = np.log10(0.95 * peak) if compat else 0.95 * peak
    best = (np.inf, None, None)
    for start in range(len(x) - 1):
        if not lowest <= x[start] <= 1.5 * peak or len(x) - start < least:
            continue
        tail = x[start:]
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        distance = np.abs(model - np.arange(len(tail)) / len(tail)).max()
        best = min(best, (distance, start, alpha))
    return best


@pytest.mark.parametrize("compat", [False, True])
@given(seed=st.integers(0, 10**6), n=st.integers(30, 200), center=st.floats(-4, 4))
def test_equals_the_rule_written_out(compat, seed, n, center):
    values = lognormal(seed, n, center)
    fit = XminPeak(compat=compat).fit(values)
    distance, start, alpha = by_loops(values, compat=compat, least=2 if compat else 10)
    if start is None:
        assert isinstance(fit, NoFit)
        return
    assert isinstance(fit, PowerLawFit)
    assert pytest.approx(distance, abs=1e-12) == fit.D
    assert (fit.n_tail, fit.xmin) == (n - start, np.sort(values)[start])
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.sigma == pytest.approx((alpha - 1) / np.sqrt(n - start), rel=1e-9)
    assert (fit.low, fit.high) == pytest.approx(
        (max(1, alpha - 1.959964 * fit.sigma), alpha + 1.959964 * fit.sigma), rel=1e-6
    )


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6])
def test_the_mended_rule_does_not_depend_on_the_scale(factor):
    values = lognormal(2, 300)
    one, other = XminPeak().fit(values), XminPeak().fit(factor * values)
    for name in ("alpha", "sigma", "low", "high", "D"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)
    assert (other.xmin, other.n_tail) == (pytest.approx(factor * one.xmin), one.n_tail)


def test_the_published_bound_depends_on_the_scale():
    """Where the peak lies below 1 its logarithm is negative and bounds nothing.

    The values follow a Pareto law up to 20, where a dense cluster ends the sample. Mended, the
    fit begins at the cluster. As published, and in small units, it takes in nearly everything;
    with the peak at 2.9, where the published bound is highest (at 0.15 of it), less.
    """
    law = 1000.0 / np.arange(1000.0, 50.0, -1.0)
    values = np.concatenate([law, np.linspace(20, 20.5, 100)])
    factors = (1e-3, 2.9 / 20)
    small, middle = (XminPeak(compat=True).fit(factor * values).n_tail for factor in factors)
    assert small > 900
    assert middle < 450
    assert [XminPeak().fit(factor * values).n_tail < 150 for factor in factors] == [True, True]


def test_finds_the_exponent_of_pareto_samples():
    """The density of log x is highest at xmin, so the rule begins there or soon after."""
    found = [XminPeak().fit(np.random.default_rng(s).pareto(2.0, 800) + 1) for s in range(100)]
    alphas = np.array([fit.alpha for fit in found])
    sigma = np.mean([fit.sigma for fit in found])
    assert abs(alphas.mean() - 3) < 4 * sigma / np.sqrt(100)
    assert sigma < alphas.std() < 1.5 * sigma  # sigma takes xmin as given, so it is too short


def test_order_zeros_and_negative_values_do_not_matter():
    values = lognormal(4, 150)
    mixed = np.random.default_rng(0).permutation(np.concatenate([values, np.zeros(9), -values]))
    assert XminPeak().fit(mixed) == XminPeak().fit(values)


@pytest.mark.parametrize(
    ("method", "values", "reason"),
    [
        (XminPeak(), np.arange(1.0, 10.0), "9 values, needs 10"),
        (XminPeak(), np.full(30, 3.0), "no tail of 10 values begins near the peak"),
        (XminPeak(compat=True), np.full(30, 3.0), "no tail of 2 values"),
        (XminPeak(compat=True), np.zeros(30), "0 values, needs 2"),
        (XminPeak(), np.append(np.arange(1.0, 9.0), np.full(30, 100.0)), "no tail of 10 values"),
    ],
)
def test_no_fit_says_why(method, values, reason):
    fit = method.fit(values)
    assert isinstance(fit, NoFit)
    assert fit.n == (values > 0).sum()
    assert re.search(reason, fit.reason)


def test_refuses_values_that_are_not_finite():
    with pytest.raises(UsageError, match="finite values"):
        XminPeak().fit(np.array([1.0, np.inf]))
