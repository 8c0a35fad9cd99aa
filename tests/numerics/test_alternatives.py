"""Rivals of a power law against mpmath, scipy and powerlaw 1.5, and samples of known law."""

import contextlib
import io
import math
import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tailor.errors import UsageError
from tailor.numerics.alternatives import (
    Alternatives,
    TruncatedPowerLaw,
    compare,
    truncated_power_law,
)
from tailor.numerics.alternatives.rivals import excess, log_hazard
from tailor.numerics.alternatives.tail import falling_root
from tailor.numerics.alternatives.truncated import moments
from tailor.numerics.powerlaw import NoFit

NAMES = ("exponential", "lognormal", "stretched_exponential", "truncated_power_law")
XMIN = 37.0


def sample(law, seed, n):
    """Values of a known law above XMIN; t = ln(x / XMIN)."""
    generator = np.random.default_rng(seed)
    if law == "power_law":
        x = generator.pareto(1.6, n) + 1
    elif law == "exponential":
        x = 1 + generator.exponential(0.8, n)
    elif law == "lognormal":
        x = np.exp(np.abs(generator.normal(0, 0.9, n)))
    elif law == "stretched_exponential":
        x = (1 + generator.exponential(1.2, n)) ** 1.7
    else:
        x = generator.pareto(0.9, 3 * n + 30) + 1
        x = x[generator.random(len(x)) < np.exp(-0.2 * (x - 1))][:n]
    assert len(x) == n
    return XMIN * x


def rivals(values, xmin=XMIN):
    found = compare(values, xmin)
    assert isinstance(found, Alternatives)
    return {rival.name: rival for rival in found.rivals}


def log_density(name, parameters, x, xmin=XMIN):
    """The densities of Clauset et al. (2009), table 2.1, with scipy and mpmath."""
    p = parameters
    if name == "exponential":
        return stats.expon.logpdf(x, xmin, 1 / p["rate"])
    if name == "lognormal":
        law = stats.norm(p["mu"], p["sigma"])
        return law.logpdf(np.log(x)) - np.log(x) - law.logsf(math.log(xmin))
    if name == "stretched_exponential":
        rate, beta = mpmath.exp(p["log_rate"]), p["beta"]
        near, far = float((rate * xmin) ** beta), np.array([float((rate * v) ** beta) for v in x])
        constant = math.log(beta) + beta * p["log_rate"]
        return constant + (beta - 1) * np.log(x) - far + near
    alpha, rate = p["alpha"], p["rate"]
    if rate == 0:
        return math.log((alpha - 1) / xmin) - alpha * np.log(x / xmin)
    whole = mpmath.mpf(rate) ** (alpha - 1) * mpmath.gammainc(1 - alpha, rate * xmin)
    return -alpha * np.log(x) - rate * x - float(mpmath.log(whole))


# ---- special functions --------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0, 1.99, 2.01, 3.0, 12.0])
@pytest.mark.parametrize("m", [1e-11, 1e-6, 1e-3, 0.1, 1.0, 30.0, 1e3])
def test_moments_equal_incomplete_gamma_functions(a, m):
    """E_k is the exponential integral: e^-m I(a, m) = E_{a+1}(m) = m^a Gamma(-a, m)."""
    mpmath.mp.dps = 40
    one, two, three = (mpmath.expint(a + 1 - k, m) for k in range(3))
    log_integral, means, covariance = moments(a, m)
    assert log_integral == pytest.approx(float(mpmath.log(one) + m), abs=1e-12, rel=1e-12)
    assert means[1] == pytest.approx(float(two / one - 1), rel=1e-10)
    second = float((three - 2 * two + one) / one)
    assert covariance[1, 1] + means[1] ** 2 == pytest.approx(second, rel=1e-10)
    step = 1e-5 + 1e-5 * a
    slope = (moments(a + step, m)[0] - moments(max(a - step, 0.0), m)[0]) / (step + min(a, step))
    assert means[0] == pytest.approx(-slope, rel=1e-3)


@pytest.mark.parametrize("cut", [-1e4, -30.0, -3.0, 0.0, 2.0, 4.99, 5.0, 7.0, 40.0, 1e4])
def test_cut_normal_equals_mpmath(cut):
    mpmath.mp.dps = 60
    hazard = mpmath.npdf(cut) / mpmath.ncdf(-mpmath.mpf(cut))
    mean = hazard - cut
    assert log_hazard(cut) == pytest.approx(float(mpmath.log(hazard)), rel=1e-12)
    assert excess(cut) == pytest.approx((float(mean), float((1 - cut * mean) / mean**2)), rel=1e-11)


@given(st.floats(0.01, 50), st.floats(0.2, 5))
def test_falling_root(root, power):
    found = falling_root(lambda x: root**power - x**power, 0.0, 100.0)
    assert found == pytest.approx(root, rel=1e-10)


# ---- likelihoods --------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["power_law", *NAMES])
@pytest.mark.parametrize("n", [12, 300])
def test_likelihoods_are_those_of_the_published_densities(law, n):
    values = sample(law, 1, n)
    found = compare(values, XMIN)
    assert isinstance(found, Alternatives)
    power = stats.pareto.logpdf(values, found.alpha - 1, scale=XMIN)
    assert found.loglik == pytest.approx(power.sum(), rel=1e-12)
    assert found.alpha == pytest.approx(1 + n / np.log(values / XMIN).sum())
    for rival in found.rivals:
        if rival.limit:
            assert (rival.R, rival.normalized, rival.p) == (0, 0, 1)
            assert rival.loglik == pytest.approx(found.loglik)
            continue
        other = log_density(rival.name, rival.parameters, values)
        terms = power - other
        assert rival.loglik == pytest.approx(other.sum(), rel=1e-9)
        assert pytest.approx(terms.sum(), abs=1e-6) == rival.R
        vuong = terms.sum() / (math.sqrt(n) * terms.std())
        assert rival.normalized == pytest.approx(vuong, rel=1e-6)
        nested = rival.name == "truncated_power_law"
        assert rival.nested == nested
        p = stats.chi2.sf(2 * abs(rival.R), 1) if nested else 2 * stats.norm.sf(abs(vuong))
        assert rival.p == pytest.approx(p, rel=1e-6)


@settings(max_examples=30)
@given(st.sampled_from(["power_law", *NAMES]), st.integers(0, 10**6), st.integers(10, 200))
def test_no_parameters_near_by_are_more_likely(law, seed, n):
    values = sample(law, seed, n)
    for rival in rivals(values).values():
        for key, value in rival.parameters.items():
            for factor in (0.999, 1.001):
                near = rival.parameters | {key: value * factor}
                if near.get("alpha", 2.0) < 1 or value == 0:
                    continue
                assert log_density(rival.name, near, values).sum() <= rival.loglik + 1e-7


@pytest.mark.parametrize("law", ["power_law", *NAMES])
@pytest.mark.parametrize("seed", [1, 2])
def test_scipy_finds_no_higher_likelihood(law, seed):
    values = sample(law, seed, 80)
    logs = np.log(values)
    starts = {
        "lognormal": [("mu", "sigma"), (logs.mean(), logs.std())],
        "stretched_exponential": [("log_rate", "beta"), (-math.log(values.mean()), 1.0)],
        "truncated_power_law": [("alpha", "rate"), (1.5, 1 / values.mean())],
    }
    for name, (keys, start) in starts.items():

        def loss(point, name=name, keys=keys):
            parameters = dict(zip(keys, point.tolist(), strict=True))
            positive = [parameters[k] for k in ("rate", "beta", "sigma") if k in parameters]
            if min(positive) <= 0 or parameters.get("alpha", 1) < 1:
                return 1e9
            return min(-log_density(name, parameters, values).sum(), 1e9)

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            options = {"xatol": 1e-8, "fatol": 1e-8}
            best = optimize.minimize(loss, start, method="Nelder-Mead", options=options)
        found = rivals(values)[name]
        assert -best.fun <= found.loglik + 1e-6
        if best.success and not found.limit:  # where both arrive, they arrive at the same place
            assert -best.fun == pytest.approx(found.loglik, abs=1e-3)


@given(st.sampled_from(["power_law", "lognormal"]), st.integers(0, 10**6), st.integers(10, 200))
def test_limit_is_where_t_varies_as_in_a_power_law(law, seed, n):
    values = sample(law, seed, n)
    t = np.log(values / XMIN)
    found = rivals(values)
    spread = float(np.square(t).mean() / t.mean() ** 2)
    wide = spread >= 2
    for rival in (found["lognormal"], found["stretched_exponential"]):
        # On the very border, members far out cannot be told from the limit.
        assert rival.limit == wide or (abs(spread - 2) < 1e-3 and abs(rival.R) < 1e-4)
    if wide:  # even members far out stay below the power law, and come nearer
        gaps = []
        for sigma in (10.0, 30.0, 100.0):
            mu = math.log(XMIN) - sigma**2 / t.mean()
            density = log_density("lognormal", {"mu": mu, "sigma": sigma}, values)
            gaps.append(found["lognormal"].loglik - density.sum())
        assert gaps[0] > gaps[1] > gaps[2] > -1e-6


# ---- the powerlaw package -----------------------------------------------------------------


def packaged(values, name):
    """Parameters, log likelihood, normalised ratio and p of powerlaw 1.5, kept quiet.

    Its optimiser (scipy's fmin) stops at an absolute error of 1e-4 in a parameter, which is
    0.3 % of a rate of 0.03, or 1e-3 in the log likelihood of 250 values.
    """
    import powerlaw

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(values, xmin=XMIN, verbose=False)
        ratio, p = fit.distribution_compare("power_law", name, normalized_ratio=True)
        other = getattr(fit, name)
        return (other.parameter1, other.parameter2), other.loglikelihood, float(ratio), float(p)


@pytest.mark.parametrize("law", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_powerlaw_package(law, name):
    values = sample(law, 4, 250)
    parameters, loglik, ratio, p = packaged(values, name)
    rival = rivals(values)[name]
    assert not rival.limit
    assert rival.loglik >= loglik - 1e-9
    assert rival.loglik == pytest.approx(loglik, abs=2e-3)
    parameters = [value for value in parameters if value is not None]
    if name == "stretched_exponential":
        parameters[0] = math.log(parameters[0])
    assert tuple(rival.parameters.values()) == pytest.approx(parameters, rel=0.01)
    assert rival.normalized == pytest.approx(ratio, abs=5e-3)
    assert rival.p == pytest.approx(p, rel=0.05, abs=1e-12)


def test_is_at_least_as_likely_as_the_package_on_a_power_law():
    """There the lognormal has no maximum, and the package runs off to where it loses digits."""
    values = sample("power_law", 1, 250)
    rival = rivals(values)["lognormal"]
    parameters, loglik, _, _ = packaged(values, "lognormal")
    at_its_parameters = dict(zip(("mu", "sigma"), parameters, strict=True))
    true = log_density("lognormal", at_its_parameters, values).sum()
    assert rival.limit
    assert loglik > true + 0.5  # it divides by a number of 5e-317, which has few digits
    assert true <= rival.loglik <= true + 0.01


# ---- known truths -------------------------------------------------------------------------


@pytest.mark.parametrize("law", NAMES)
def test_a_large_sample_of_a_rival_rejects_the_power_law(law):
    found = rivals(sample(law, 5, 5000))
    assert found[law].R < 0
    assert found[law].p < 1e-6
    best = max(rival.loglik for rival in found.values())
    assert found[law].loglik == pytest.approx(best, abs=6)  # one parameter more gains little


def test_a_large_sample_of_a_power_law_is_not_rejected():
    worst = dict.fromkeys(NAMES, 0)
    for seed in range(40):
        for rival in rivals(sample("power_law", seed, 2000)).values():
            worst[rival.name] += rival.p < 0.05 and rival.R < 0
            if rival.name == "exponential":
                assert rival.R > 0
                assert rival.p < 0.05
            else:
                assert rival.R <= 0
    assert max(worst.values()) <= 5  # 2 expected at most, of 40


def test_parameters_of_a_large_sample_are_recovered():
    exponential = rivals(sample("exponential", 6, 20000))["exponential"]
    assert exponential.parameters["rate"] == pytest.approx(1 / 0.8 / XMIN, rel=0.03)
    lognormal = rivals(sample("lognormal", 6, 20000))["lognormal"]
    assert lognormal.parameters["mu"] == pytest.approx(math.log(XMIN), abs=0.1)
    assert lognormal.parameters["sigma"] == pytest.approx(0.9, rel=0.05)
    stretched = rivals(sample("stretched_exponential", 6, 20000))["stretched_exponential"]
    assert stretched.parameters["beta"] == pytest.approx(1 / 1.7, rel=0.05)
    cut = truncated_power_law(sample("truncated_power_law", 6, 20000), XMIN)
    assert isinstance(cut, TruncatedPowerLaw)
    assert (cut.alpha, cut.rate * XMIN) == pytest.approx((1.9, 0.2), rel=0.05)


# ---- the shape of the answer --------------------------------------------------------------


@settings(max_examples=40)
@given(st.sampled_from(["power_law", *NAMES]), st.integers(0, 10**6), st.integers(-6, 6))
def test_units_do_not_matter(law, seed, power):
    values, factor = sample(law, seed, 60), 10.0**power
    here, there = rivals(values), rivals(values * factor, XMIN * factor)
    for name in NAMES:
        a, b = here[name], there[name]
        assert (b.R, b.normalized, b.p) == pytest.approx((a.R, a.normalized, a.p), abs=1e-6)
        assert b.loglik == pytest.approx(a.loglik - 60 * math.log(factor), abs=1e-6)
        if "rate" in a.parameters:
            assert b.parameters["rate"] * factor == pytest.approx(a.parameters["rate"], rel=1e-4)
        if "mu" in a.parameters:
            shift = math.log(factor)
            assert b.parameters["mu"] - shift == pytest.approx(a.parameters["mu"], rel=1e-4)


def test_order_and_values_below_xmin_do_not_matter():
    values = sample("lognormal", 1, 50)
    more = np.concatenate([values[::-1], XMIN * np.linspace(0.1, 0.99, 20)])
    a, b = compare(values, XMIN), compare(more, XMIN)
    assert isinstance(a, Alternatives)
    assert isinstance(b, Alternatives)
    assert (a.n_tail, b.n_tail, tuple(r.name for r in b.rivals)) == (50, 50, NAMES)
    assert [r.loglik for r in a.rivals] == pytest.approx([r.loglik for r in b.rivals])


@pytest.mark.parametrize("gap", [1.001, 2.0, 1e6])
def test_a_tail_far_above_xmin(gap):
    """Nothing near xmin: every rival with a mode can do much better than the power law."""
    values = gap * sample("lognormal", 1, 40)
    found = rivals(values)
    assert all(math.isfinite(r.loglik) and r.R <= 1e-9 for r in found.values() if gap > 1.5)
    assert found["lognormal"].loglik == pytest.approx(
        log_density("lognormal", found["lognormal"].parameters, values).sum(), rel=1e-9
    )


def test_truncated_power_law_gives_the_member_that_is_compared():
    values = sample("truncated_power_law", 3, 200)
    cut = truncated_power_law(values, XMIN)
    rival = rivals(values)["truncated_power_law"]
    assert isinstance(cut, TruncatedPowerLaw)
    assert rival.parameters == {"alpha": cut.alpha, "rate": cut.rate}
    assert (cut.loglik, cut.n_tail, cut.xmin) == (pytest.approx(rival.loglik), 200, XMIN)
    pure = truncated_power_law(sample("power_law", 1, 200), XMIN)
    assert isinstance(pure, TruncatedPowerLaw)
    assert pure.rate == 0


def test_too_little_is_told():
    assert compare(np.arange(1.0, 30), 21.0) == NoFit(reason="9 values in the tail, needs 10", n=9)
    equal = NoFit(reason="the values of the tail are all equal", n=12)
    assert compare(np.full(12, 3.0), 3.0) == equal
    assert truncated_power_law(np.full(12, 3.0), 2.0) == equal


@pytest.mark.parametrize(
    ("values", "xmin", "message"),
    [
        (np.array([1.0, np.nan]), 1.0, "some are NaN or infinite"),
        (np.ones(20), 0.0, "xmin must be positive and finite, but is 0.0"),
        (np.ones(20), math.inf, "xmin must be positive and finite, but is inf"),
    ],
)
def test_what_is_no_tail_is_refused(values, xmin, message):
    for fit in (compare, truncated_power_law):
        with pytest.raises(UsageError, match=message):
            fit(values, xmin)
