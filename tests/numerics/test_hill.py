"""Hill's estimate against scipy, hand formulas and simulated errors."""

import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit
from tailor.numerics.powerlaw.hill import Hill, HillMid


def pareto(seed, n, alpha):
    return np.random.default_rng(seed).pareto(alpha - 1, n) + 1


def assert_error_is_honest(method, alpha, n, seeds=300):
    """The root mean square error of many fits is their mean sigma.

    With 300 fits it is known to 4 %, so 16 % are four standard errors.
    """
    fits = [method.fit(pareto(seed, n, alpha)) for seed in range(seeds)]
    errors = np.array([fit.alpha - alpha for fit in fits])
    sigma = np.mean([fit.sigma for fit in fits])
    assert 1 / 1.16 < np.sqrt((errors**2).mean()) / sigma < 1.16
    covered = np.mean([fit.low <= alpha <= fit.high for fit in fits])
    assert 0.91 < covered < 0.99  # 95 % and three standard errors of a share of 300


@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(1.3, 8))
def test_equals_the_likelihood_fit_of_scipy(seed, k, alpha):
    values = pareto(seed, 80, alpha)
    fit = Hill(k=k).fit(values)
    falling = np.sort(values)[::-1]
    index, _, _ = scipy.stats.pareto.fit(falling[:k], floc=0, fscale=falling[k])
    assert isinstance(fit, PowerLawFit)
    assert fit.alpha == pytest.approx(1 + index, rel=1e-9)
    assert fit.sigma == pytest.approx(index / np.sqrt(k), rel=1e-9)
    assert (fit.xmin, fit.xmax, fit.n_tail, fit.n) == (falling[k], falling[0], k, 80)
    assert fit.low == pytest.approx(max(1, 1 + index * (1 - 1.959964 / np.sqrt(k))), rel=1e-6)
    assert fit.high == pytest.approx(1 + index * (1 + 1.959964 / np.sqrt(k)), rel=1e-6)
    assert fit.interval == "asymptotic"


@pytest.mark.parametrize("method", [Hill(k=40), HillMid()])
def test_distance_is_the_one_sided_one_of_scipy(method):
    """Against the share strictly below: D-, or D+ less the step of the empirical distribution."""
    values = np.random.default_rng(3).lognormal(size=200)
    fit = method.fit(values)
    tail = np.sort(values)[-fit.n_tail :]
    model = scipy.stats.pareto(fit.alpha - 1, scale=fit.xmin).cdf
    above = scipy.stats.ks_1samp(tail, model, alternative="less").statistic
    below = scipy.stats.ks_1samp(tail, model, alternative="greater").statistic
    assert pytest.approx(max(above, below - 1 / fit.n_tail), rel=1e-12) == fit.D


def test_a_share_is_a_number_of_values():
    values = pareto(1, 290, 3.0)
    assert Hill(k=0.1).fit(values) == Hill(k=29).fit(values)
    assert Hill().fit(values) == Hill(k=29).fit(values)


def test_median_rule_by_hand():
    """Of N = 21 values, xmin is the one at index 10; it counts among the 11 of the tail."""
    values = np.exp(np.arange(21.0))
    fit = HillMid().fit(values)
    assert isinstance(fit, PowerLawFit)
    assert (fit.xmin, fit.n_tail) == (np.exp(10.0), 11)
    assert fit.alpha == pytest.approx(1 + 11 / sum(range(11)))
    assert fit.sigma == pytest.approx((fit.alpha - 1) / np.sqrt(11))


def test_position_moves_the_threshold_down():
    values = np.exp(np.arange(40.0))
    assert HillMid(position=4).fit(values).n_tail == 30


@pytest.mark.parametrize("method", [Hill(k=100), Hill(k=0.2), HillMid()])
def test_standard_error_is_that_of_pareto_samples(method):
    assert_error_is_honest(method, 3.0, 1000)


@pytest.mark.parametrize("alpha", [4.0, 6.0])
def test_median_rule_measures_the_body(alpha):
    """A uniform body up to 1 and a quarter in the tail: Hill finds alpha, the median does not.

    The median is 0.7. The mean of log(x / 0.7) is log(1 / 0.7) + 1 / (alpha - 1) over the tail
    and 0.18891 over the body from 0.7 to 1.
    """
    found = []
    for seed in range(60):
        body = np.random.default_rng(seed).uniform(0.1, 1, 576)
        values = np.concatenate([body, pareto(1000 + seed, 192, alpha)])
        found.append([Hill(k=0.2).fit(values).alpha, HillMid().fit(values).alpha])
    high, mid = np.mean(found, axis=0)
    assert high == pytest.approx(alpha, abs=4 * (alpha - 1) / np.sqrt(60 * 153))
    assert mid == pytest.approx(1 + 2 / (np.log(1 / 0.7) + 1 / (alpha - 1) + 0.18891), abs=0.05)
    assert mid < alpha - 0.6


@pytest.mark.parametrize("method", [Hill(k=20), Hill(k=0.25), HillMid()])
@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6])
def test_alpha_does_not_depend_on_the_scale(method, factor):
    values = pareto(5, 90, 2.5)
    one, other = method.fit(values), method.fit(factor * values)
    for name in ("alpha", "sigma", "low", "high", "D"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)
    assert other.xmin == pytest.approx(factor * one.xmin, rel=1e-12)


@pytest.mark.parametrize("method", [Hill(k=20), HillMid()])
def test_order_zeros_and_negative_values_do_not_matter(method):
    values = pareto(6, 100, 2.5)
    mixed = np.random.default_rng(0).permutation(np.concatenate([values, np.zeros(9), -values]))
    assert method.fit(mixed) == method.fit(values)


@pytest.mark.parametrize(
    ("method", "values", "reason"),
    [
        (Hill(k=5), np.arange(1.0, 6.0), "5 values, needs more than k = 5"),
        (Hill(k=0.1), np.arange(1.0, 91.0), r"the tail of 0\.1 x 90 values has 9, needs 10"),
        (Hill(k=4), np.array([1.0, 3, 3, 3, 3, 3]), "the 5 largest values are all equal"),
        (Hill(), np.empty(0), "0 values"),
        (HillMid(), np.arange(1.0, 19.0), "9 of 18 values"),
        (HillMid(), np.full(40, 2.0), "the 20 largest values are all equal"),
        (HillMid(), np.zeros(40), "0 of 0 values"),
    ],
)
def test_no_fit_says_why(method, values, reason):
    fit = method.fit(values)
    assert isinstance(fit, NoFit)
    assert fit.n == (values > 0).sum()
    assert re.search(reason, fit.reason)


@pytest.mark.parametrize("k", [0, 1, -3, 0.0, 1.0, 1.5, float("nan")])
def test_refuses_a_tail_without_size(k):
    with pytest.raises(UsageError, match="k must be a number of values from 2 on or a share"):
        Hill(k=k)


def test_refuses_bad_positions_and_values():
    with pytest.raises(UsageError, match="position must be at least 2"):
        HillMid(position=1)
    with pytest.raises(UsageError, match="finite values"):
        HillMid().fit(np.array([1.0, np.nan]))
