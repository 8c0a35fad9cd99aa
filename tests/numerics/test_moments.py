"""Extreme-value index: formulas by hand, exact quantiles, and simulated errors."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit
from tailor.numerics.powerlaw.moments import DekkersEinmahlDeHaan, Pickands

BOTH = pytest.mark.parametrize("method", [DekkersEinmahlDeHaan(k=400), Pickands(k=400)])


def pareto(seed, n, alpha):
    return np.random.default_rng(seed).pareto(alpha - 1, n) + 1


def said(fit):
    """(gamma, half of its interval) from the reason of a refusal."""
    found = re.search(r"gamma = (\S+) \+- (\S+)", fit.reason)
    return float(found[1]), float(found[2])


def moment_gamma(values, k):
    """Dekkers, Einmahl & de Haan (1989), equations 1.5 to 1.7, with plain loops."""
    falling = sorted(values, reverse=True)
    logs = [np.log(falling[i] / falling[k]) for i in range(k)]
    first, second = sum(logs) / k, sum(value**2 for value in logs) / k
    return first + 1 - 0.5 / (1 - first**2 / second)


@given(st.integers(0, 10**6), st.integers(150, 400), st.floats(1.4, 2.5))
def test_moment_estimate_by_hand(seed, k, alpha):
    values = pareto(seed, 500, alpha)
    gamma = moment_gamma(values, k)
    error = np.sqrt((1 + gamma**2) / k)
    fit = DekkersEinmahlDeHaan(k=k).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert fit.alpha == pytest.approx(1 + 1 / gamma, rel=1e-9)
    assert fit.sigma == pytest.approx(error / gamma**2, rel=1e-9)
    ends = (1 + 1 / (gamma + 1.959964 * error), 1 + 1 / (gamma - 1.959964 * error))
    assert (fit.low, fit.high) == pytest.approx(ends, rel=1e-5)
    assert (fit.xmin, fit.n_tail, fit.n) == (np.sort(values)[-k - 1], k, 500)


@pytest.mark.parametrize("gamma", [0.4, 1.0, 2.5])
def test_pickands_is_exact_on_exact_quantiles(gamma):
    """With X_(i) = i^-gamma the ratio of the differences is 2^gamma, whatever m."""
    values = np.arange(1.0, 4001.0) ** -gamma
    fit = Pickands(k=3001).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert fit.alpha == pytest.approx(1 + 1 / gamma, rel=1e-9)
    assert (fit.n_tail, fit.xmin) == (3000, values[2999])
    variance = gamma**2 * (2 ** (2 * gamma + 1) + 1) / (2 * (2**gamma - 1) * np.log(2)) ** 2
    assert fit.sigma == pytest.approx(np.sqrt(variance / 750) / gamma**2, rel=1e-9)


def test_pickands_does_not_depend_on_the_location():
    values = pareto(0, 2000, 2.0)
    one, other = Pickands(k=1000).fit(values), Pickands(k=1000).fit(values + 50)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-9)
    assert other.high == pytest.approx(one.high, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "alpha"),
    [
        (DekkersEinmahlDeHaan(k=1000), 2.0),
        (DekkersEinmahlDeHaan(k=1000), 3.0),
        (Pickands(k=1500), 2.0),
        (Pickands(k=4000), 3.0),
    ],
)
def test_standard_error_is_that_of_pareto_samples(method, alpha):
    """Root mean square error over mean sigma, known to 4 % from 300 fits, is within 18 %."""
    fits = [method.fit(pareto(seed, 5000, alpha)) for seed in range(300)]
    errors = np.array([fit.alpha - alpha for fit in fits])
    assert 1 / 1.18 < np.sqrt((errors**2).mean()) / np.mean([fit.sigma for fit in fits]) < 1.18
    assert 0.91 < np.mean([fit.low <= alpha <= fit.high for fit in fits]) < 0.99


@pytest.mark.parametrize("method", [DekkersEinmahlDeHaan(k=200), Pickands(k=400)])
@pytest.mark.parametrize(("name", "gamma"), [("exponential", 0.0), ("uniform", -1.0)])
def test_refuses_samples_without_a_power_tail(method, name, gamma):
    """The gamma that it names is right, and so is the error beside it.

    Both estimators are biased at finite k (the moments by about 0.04 on the exponential law),
    and a standard deviation from 100 fits is known to 7 %, with two printed digits.
    """
    fits = [method.fit(getattr(np.random.default_rng(s), name)(size=4000)) for s in range(100)]
    refused = [fit for fit in fits if isinstance(fit, NoFit)]
    assert len(refused) >= 93
    gammas, margins = np.transpose([said(fit) for fit in refused])
    assert gammas.mean() == pytest.approx(gamma, abs=0.08)
    assert gammas.std() == pytest.approx(margins.mean() / 1.96, rel=0.3)
    assert all(fit.reason.startswith("no power tail") for fit in refused if said(fit)[0] < 0)


def test_refuses_when_the_interval_reaches_zero():
    """Gamma = 0.2 from 50 values has the error 0.14, so 0 cannot be excluded."""
    values = np.arange(1.0, 2001.0) ** -0.2
    fit = DekkersEinmahlDeHaan(k=50).fit(values)
    assert isinstance(fit, NoFit)
    assert fit.reason.startswith("a power tail is not certain: gamma = 0.")
    gamma, margin = said(fit)
    assert 0 < gamma < margin
    assert isinstance(DekkersEinmahlDeHaan(k=500).fit(values), PowerLawFit)


@BOTH
@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6])
def test_alpha_does_not_depend_on_the_scale(method, factor):
    values = pareto(5, 900, 1.5)
    one, other = method.fit(values), method.fit(factor * values)
    for name in ("alpha", "sigma", "low", "high", "D"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)
    assert other.xmin == pytest.approx(factor * one.xmin, rel=1e-12)


@BOTH
def test_order_zeros_and_negative_values_do_not_matter(method):
    values = pareto(6, 900, 1.5)
    mixed = np.random.default_rng(0).permutation(np.concatenate([values, np.zeros(9), -values]))
    assert method.fit(mixed) == method.fit(values)
    assert isinstance(method.fit(values), PowerLawFit)


def test_a_share_is_a_number_of_values():
    values = pareto(1, 4000, 1.8)
    assert DekkersEinmahlDeHaan().fit(values) == DekkersEinmahlDeHaan(k=400).fit(values)
    assert Pickands(k=0.2).fit(values) == Pickands(k=800).fit(values)


@pytest.mark.parametrize(
    ("method", "values", "reason"),
    [
        (DekkersEinmahlDeHaan(k=9), np.arange(1.0, 10.0), "9 values, needs more than k = 9"),
        (DekkersEinmahlDeHaan(), np.arange(1.0, 91.0), r"has 9, needs 10"),
        (DekkersEinmahlDeHaan(k=3), np.array([1.0, 3, 3, 3]), "the 3 largest values are all equal"),
        (Pickands(k=9), np.arange(1.0, 10.0), "9 values, needs more than k = 9"),
        (Pickands(), np.arange(1.0, 91.0), r"has 9, needs 10"),
        (Pickands(k=4), np.array([1.0, 2, 2, 2, 3]), "largest values are equal"),
        (Pickands(k=4), np.array([1.0, 1, 2, 3, 3]), "largest values are equal"),
        (Pickands(k=4), np.zeros(7), "0 values"),
    ],
)
def test_no_fit_says_why(method, values, reason):
    fit = method.fit(values)
    assert isinstance(fit, NoFit)
    assert fit.n == (values > 0).sum()
    assert re.search(reason, fit.reason)


def test_refuses_a_tail_without_size():
    with pytest.raises(UsageError, match="from 2 on or a share between 0 and 1, but is 1"):
        DekkersEinmahlDeHaan(k=1)
    with pytest.raises(UsageError, match="from 4 on or a share between 0 and 1, but is 3"):
        Pickands(k=3)
    with pytest.raises(UsageError, match="finite values"):
        Pickands().fit(np.array([1.0, np.nan]))
