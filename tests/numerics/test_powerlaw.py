"""Power-law fits against the powerlaw package, brute force, and samples of known exponent."""

import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit
from tailor.numerics.powerlaw.clauset import RobustClauset

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
    """xmin -> (distance, alpha) of every candidate, by the formulas of the paper."""
    x = np.sort(x)
    found = {}
    for start in range(len(x) - least + 1):
        tail = x[start:]
        if (start and x[start - 1] == x[start]) or tail[-1] == tail[0]:
            continue
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        below = np.searchsorted(tail, tail, side="left") / len(tail)
        found[tail[0].item()] = (np.abs(model - below).max().item(), alpha.item())
    return found


def assert_best(fit, values, least):
    """The fit is the best of all candidates, and its numbers are right."""
    every = brute_force(values, least)
    distance, alpha = every[fit.xmin]
    assert pytest.approx(distance, abs=1e-12) == fit.D
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert pytest.approx(min(every.values())[0], abs=1e-12) == fit.D
    assert fit.n_tail == np.count_nonzero(values >= fit.xmin)


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


@pytest.mark.parametrize("n", [8, 20, 27, 99, 101, 150])
def test_equals_the_powerlaw_package_on_small_samples(n):
    for seed in range(4):
        values = sample(seed, n, 2.5, body=0.3)
        fit = Clauset(**FREE).fit(values)
        assert isinstance(fit, PowerLawFit)
        found = (fit.alpha, fit.xmin, fit.D, fit.sigma)
        assert found == pytest.approx(reference(values), rel=1e-10)


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_equals_the_powerlaw_package_on_repeated_and_quantised_values(digits):
    rounded = np.round(sample(7, 300, 2.0) * 3, digits) + 1
    for values in (rounded, np.concatenate([rounded, rounded[:100]])):
        fit = Clauset(**FREE).fit(values)
        assert isinstance(fit, PowerLawFit)
        found = (fit.alpha, fit.xmin, fit.D, fit.sigma)
        assert found == pytest.approx(reference(values), rel=1e-10)


@given(
    st.integers(0, 10**6),
    st.integers(20, 300),
    st.floats(1.3, 8),
    st.floats(0, 0.9),
    st.sampled_from([1, 2, 12]),
)
def test_search_for_xmin_is_exact(seed, n, alpha, body, digits):
    values = np.round(sample(seed, n, alpha, body), digits)
    fit = Clauset(min_tail=4, min_fraction=0.0).fit(values)
    different = len(np.unique(values[values > 0]))
    if different < 8:
        assert fit == NoFit(reason=f"{different} different values, needs 8", n=n)
    else:
        assert isinstance(fit, PowerLawFit)
        assert_best(fit, values[values > 0], 4)


SHARES = (np.arange(600) + 0.5) / 600


@pytest.mark.parametrize(
    "values",
    [
        (1 - SHARES) ** -0.5,  # every tail is nearly a perfect power law
        -np.log(1 - SHARES),
        1 + SHARES,
        np.exp(300 * SHARES),
        1.1 - np.cos(np.pi * SHARES),
        sample(4, 3000, 2.5),  # so many that losing candidates are dropped
        np.random.default_rng(4).pareto(2, 3000) + 1,
        np.random.default_rng(4).lognormal(size=3000),
    ],
    ids=["pareto", "exponential", "uniform", "wide", "arcsine", "tail", "many", "lognormal"],
)
def test_search_is_exact_where_many_tails_are_alike(values):
    fit = Clauset(min_tail=2, min_fraction=0.0).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert_best(fit, values, 2)


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_recovers_the_exponent_of_a_pareto_sample(alpha):
    fits = [Clauset().fit(np.random.default_rng(s).pareto(alpha - 1, 800) + 1) for s in range(40)]
    found = np.array([fit.alpha for fit in fits])
    error = (alpha - 1) / np.sqrt(800)
    assert abs(found.mean() - alpha) < error  # the bias is within one fit's standard error
    assert found.std() < 4 * error


@given(st.integers(0, 10**6), st.floats(-6, 6), st.sampled_from([60, 300]))
def test_alpha_does_not_depend_on_the_scale(seed, exponent, n):
    values, factor = sample(seed, n, 3.0), 10**exponent
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


@pytest.mark.parametrize("digits", [1, 12])
def test_bootstrap_interval_is_that_of_refitted_resamples(digits):
    values = np.sort(np.round(sample(2, 200, 2.5), digits) + 0.1)
    generator = np.random.default_rng(3)
    fits = [Clauset().fit(generator.choice(values, 200)) for _ in range(40)]
    fit = Clauset(bootstrap=40, seed=3).fit(values)
    assert isinstance(fit, PowerLawFit)
    expected = np.quantile([each.alpha for each in fits], [0.025, 0.975])
    assert (fit.low, fit.high) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize("method", [Clauset(), RobustClauset()])
def test_asymptotic_interval(method):
    fit = method.fit(sample(9, 300, 3.0))
    assert isinstance(fit, PowerLawFit)
    assert fit.sigma == pytest.approx((fit.alpha - 1) / np.sqrt(fit.n_tail))
    assert fit.high - fit.alpha == pytest.approx(1.959964 * fit.sigma, rel=1e-6)
    assert fit.low == pytest.approx(max(1, fit.alpha - 1.959964 * fit.sigma), rel=1e-6)
    assert fit.interval == "asymptotic"


@pytest.mark.parametrize("n", [120, 400, 2000])
def test_robust_fit_is_the_best_of_the_long_tails_corrected(n):
    values = sample(11, n, 5.0, body=0.8)
    fit = RobustClauset().fit(values)
    longer = Clauset(min_tail=50, min_fraction=0.05).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert isinstance(longer, PowerLawFit)
    k = fit.n_tail
    assert k >= max(50, 0.05 * n)
    assert (fit.xmin, fit.D, k) == (longer.xmin, longer.D, longer.n_tail)
    assert fit.alpha == pytest.approx(longer.alpha * (k - 1) / k + 1 / k, rel=1e-12)


def test_robust_fit_errs_less_where_the_tail_is_short():
    """Root mean square error over 100 samples of which a quarter follow a tail of exponent 6."""
    samples = [sample(seed, 256, 6.0, body=0.75) for seed in range(100)]
    errors = [
        np.sqrt(np.mean([(method.fit(values).alpha - 6) ** 2 for values in samples]))
        for method in (Clauset(), RobustClauset())
    ]
    assert errors[1] < 0.8 * errors[0]


def test_robust_bootstrap_interval_is_seeded_and_covers():
    """95 % intervals of 60 samples; with fewer than 51 hits the coverage is below 95 %."""
    samples = [np.random.default_rng(seed).pareto(2, 200) + 1 for seed in range(60)]
    fits = [RobustClauset(bootstrap=60, seed=1).fit(values) for values in samples]
    assert sum(fit.low <= 3 <= fit.high for fit in fits) >= 51
    assert RobustClauset(bootstrap=60, seed=1).fit(samples[0]) == fits[0]
    assert RobustClauset(bootstrap=60, seed=2).fit(samples[0]) != fits[0]
    assert fits[0].interval == "bootstrap"


def test_robust_fit_needs_twice_its_least_tail():
    values = sample(1, 99, 2.5)
    assert RobustClauset().fit(values) == NoFit(reason="99 values, needs 100", n=99)
    assert isinstance(RobustClauset(min_tail=49).fit(values), PowerLawFit)


@pytest.mark.parametrize(
    ("method", "heavy", "least"), [(Clauset(), 30, 40), (RobustClauset(), 80, 100)]
)
def test_least_share_of_the_values(method, heavy, least):
    """Of 2000 values so few follow a power law that only the share asks for more."""
    values = sample(11, 2000, 2.5, body=1 - heavy / 2000)
    fit, free = method.fit(values), replace(method, min_fraction=0.0).fit(values)
    assert isinstance(fit, PowerLawFit)
    assert isinstance(free, PowerLawFit)
    assert method.min_tail <= free.n_tail < least <= fit.n_tail


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
        (lambda: RobustClauset(min_tail=0), "at least 2, but is 0"),
        (lambda: RobustClauset(largest=99), r"below 2 \* min_tail"),
        (lambda: Clauset().fit(np.array([1.0, np.nan])), "finite values"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
