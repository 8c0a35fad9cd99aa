"""Power-law fits against the powerlaw package, brute force, and samples of known exponent."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit

FREE = {"min_tail": 2, "min_fraction": 0.0}  # no least tail, as in the powerlaw package


def sample(seed, n, alpha, body=0.6):
    """A body of uniform values below 1 and a Pareto tail of density exponent alpha."""
    generator = np.random.default_rng(seed)
    below = int(body * n)
    tail = generator.pareto(alpha - 1, n - below) + 1
    return np.concatenate([generator.uniform(0.1, 1, below), tail])


def reference(values):
    """The powerlaw package, version 1.5, kept quiet."""
    import powerlaw

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(values, verbose=False)
        return fit.power_law.alpha, fit.xmin, fit.power_law.D, fit.power_law.sigma


def brute_force(x, least):
    """Every candidate's exact distance, with plain loops over the formulas of the paper."""
    x = np.sort(x)
    best = (np.inf, None, None)
    for start in range(len(x)):
        tail = x[start:]
        if len(tail) < least or (start and x[start - 1] == x[start]) or tail[-1] == tail[0]:
            continue
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        below = np.array([(tail < value).mean() for value in tail])
        best = min(best, (np.abs(model - below).max(), start, alpha), key=lambda b: b[0])
    return best


@pytest.mark.parametrize(("seed", "n", "alpha"), [(0, 60, 2.5), (1, 400, 3.5), (2, 1200, 6.0)])
def test_equals_the_powerlaw_package(seed, n, alpha):
    values = sample(seed, n, alpha)
    fit = Clauset(**FREE).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert (fit.alpha, fit.xmin, fit.D, fit.sigma) == pytest.approx(reference(values), rel=1e-12)


def test_equals_the_powerlaw_package_with_ties():
    values = np.round(sample(3, 500, 2.2), 1) + 0.1
    fit = Clauset(**FREE).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert (fit.alpha, fit.xmin, fit.D, fit.sigma) == pytest.approx(reference(values), rel=1e-12)


@given(st.integers(0, 10**6), st.integers(20, 90), st.floats(1.3, 8), st.floats(0, 0.9))
def test_search_for_xmin_is_exact(seed, n, alpha, body):
    values = sample(seed, n, alpha, body)
    fit = Clauset(min_tail=10, min_fraction=0.0).fit(values)
    distance, start, exponent = brute_force(values, 10)
    assert isinstance(fit, PowerLawFit)
    assert pytest.approx(distance, abs=1e-12) == fit.D
    assert (fit.n_tail, fit.alpha) == (n - start, pytest.approx(exponent, rel=1e-9))


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_recovers_the_exponent_of_a_pareto_sample(alpha):
    fits = [Clauset().fit(np.random.default_rng(s).pareto(alpha - 1, 800) + 1) for s in range(40)]
    found = np.array([fit.alpha for fit in fits])
    error = (alpha - 1) / np.sqrt(800)
    assert abs(found.mean() - alpha) < error  # the bias is within one fit's standard error
    assert found.std() < 4 * error


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
def test_alpha_does_not_depend_on_the_scale(factor):
    values = sample(5, 300, 3.0)
    one, other = Clauset().fit(values), Clauset().fit(factor * values)
    assert isinstance(one, PowerLawFit)
    assert isinstance(other, PowerLawFit)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-9)
    assert other.xmin == pytest.approx(factor * one.xmin, rel=1e-9)
    assert (other.n_tail, other.D) == (one.n_tail, pytest.approx(one.D, rel=1e-6))


def test_order_zeros_and_negative_values_do_not_matter():
    values = sample(6, 200, 2.5)
    shuffled = np.random.default_rng(0).permutation(np.concatenate([values, np.zeros(50), -values]))
    assert Clauset().fit(shuffled) == Clauset().fit(values)


def test_largest_keeps_the_largest():
    values = sample(8, 5000, 2.5)
    kept = np.sort(values)[-1000:]
    assert Clauset(largest=1000).fit(values) == Clauset().fit(kept)


def test_bootstrap_interval_is_seeded_and_covers():
    """95 % intervals of 60 samples; with fewer than 51 hits the coverage is below 95 %."""
    hits = 0
    for seed in range(60):
        values = np.random.default_rng(seed).pareto(1.5, 200) + 1  # density exponent 2.5
        fit = Clauset(bootstrap=60, seed=1).fit(values)
        assert isinstance(fit, PowerLawFit)
        hits += fit.low <= 2.5 <= fit.high
    assert hits >= 51
    assert Clauset(bootstrap=60, seed=1).fit(values) == fit
    assert Clauset(bootstrap=60, seed=2).fit(values) != fit
    assert fit.interval == "bootstrap"


def test_asymptotic_interval():
    fit = Clauset().fit(sample(9, 300, 3.0))
    assert isinstance(fit, PowerLawFit)
    assert fit.sigma == pytest.approx((fit.alpha - 1) / np.sqrt(fit.n_tail))
    assert fit.high - fit.alpha == pytest.approx(1.959964 * fit.sigma, rel=1e-6)
    assert fit.low == pytest.approx(max(1, fit.alpha - 1.959964 * fit.sigma), rel=1e-6)
    assert fit.interval == "asymptotic"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([]), "0 values, needs 20"),
        (np.arange(1.0, 20.0), "19 values, needs 20"),
        (np.zeros(100), "0 values, needs 20"),
        (np.ones(100), "1 different values, needs 20"),
        (np.repeat(np.arange(1.0, 5.0), 50), "4 different values, needs 20"),
    ],
)
def test_too_little_to_fit_is_an_outcome(values, reason):
    fit = Clauset().fit(values)
    assert fit == NoFit(reason=reason, n=int(np.count_nonzero(values)))


def test_a_tail_without_spread_is_never_chosen():
    values = np.concatenate([np.linspace(0.1, 0.2, 30), np.full(40, 5.0)])
    fit = Clauset(min_tail=10, min_fraction=0.0).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert fit.n_tail > 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Clauset(min_tail=1), "at least 2, but is 1"),
        (lambda: Clauset(min_fraction=1.0), r"in \[0, 1\), but is 1"),
        (lambda: Clauset(bootstrap=-1), "must not be negative"),
        (lambda: Clauset(largest=10), r"below 2 \* min_tail"),
        (lambda: Clauset().fit(np.array([1.0, np.nan])), "finite values"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
