"""Stable laws against scipy, mpmath, closed forms, plain loops, and samples of known index."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.numerics.powerlaw import NoFit
from tailor.numerics.stable import (
    Koutrouvelis,
    LogMoment,
    McCulloch,
    StableFit,
    StableMLE,
    TwoPoint,
    likelihood,
    log_moment_rows,
    sample_positive_stable,
    tabulate,
)
from tailor.numerics.stable.quantiles import LEVELS, SKEWS, TABLE

METHODS = [LogMoment(), TwoPoint(), Koutrouvelis(), McCulloch(), StableMLE()]
QUICK = METHODS[:-1]  # without maximum likelihood
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
quick_by_name = pytest.mark.parametrize("method", QUICK, ids=lambda m: type(m).__name__)


def draw(index, n, seed=0, skew=0.0):
    """Scipy's sampler; S1 is its default."""
    source = np.random.default_rng(seed)
    return stats.levy_stable.rvs(index, skew, size=n, random_state=source)


# ---- density, distribution function, quantiles ------------------------------------------


def inverted(index, x, *, of_density):
    """Density or P(X > x) by mpmath, along a ray on which the integrand falls without waves."""
    turn = mpmath.pi / (4 * max(index, 1))
    ray = mpmath.expj(-turn)

    def integrand(s):
        wave = mpmath.exp(-1j * x * s * ray - (s * ray) ** index)
        return mpmath.re(wave * ray) if of_density else mpmath.im(wave / s)

    ends = [0, 1e-10, 1e-6, 1e-3, 0.1, 0.5, 1, 2, 4, 8, 16, 64, 1e3, 1e5, 1e7]
    integral = mpmath.quad(integrand, ends) / mpmath.pi
    return float(integral if of_density else mpmath.mpf(1) / 2 + integral - turn / mpmath.pi)


@pytest.mark.parametrize("index", [0.5, 0.8, 1.0, 1.3, 1.75, 1.99])
def test_law_equals_the_inversion_integral(index):
    law = tabulate(index)
    for x in [0.03 * law.reach, 0.4 * law.reach, 0.99 * law.reach, 1.01 * law.reach, 40.0]:
        density = inverted(index, x, of_density=True)
        above = inverted(index, x, of_density=False)
        assert np.exp(law.log_pdf(np.array([-x])))[0] == pytest.approx(density, rel=1e-7)
        assert law.cdf(np.array([-x]))[0] == pytest.approx(above, rel=1e-8, abs=1e-9)
        assert law.cdf(np.array([x]))[0] == pytest.approx(1 - above, rel=1e-8)


def test_density_equals_scipy():
    x = np.array([0.0, 0.7, 2.5, 8.0, 15.0, 300.0])
    for index in [0.6, 1.2, 1.5, 1.9]:
        ours = np.exp(tabulate(index).log_pdf(x))
        assert ours == pytest.approx(stats.levy_stable.pdf(x, index, 0), rel=1e-6)


def test_cauchy_and_normal_laws():
    x = np.concatenate([np.linspace(-30, 30, 301), [1e3, -1e6]])
    cauchy, normal = tabulate(1.0), tabulate(2.0)
    assert cauchy.log_pdf(x) == pytest.approx(stats.cauchy.logpdf(x), abs=1e-8)
    assert cauchy.cdf(x) == pytest.approx(stats.cauchy.cdf(x), abs=1e-9)
    assert normal.log_pdf(x) == pytest.approx(stats.norm.logpdf(x, scale=math.sqrt(2)), rel=1e-12)
    assert normal.cdf(x) == pytest.approx(stats.norm.cdf(x, scale=math.sqrt(2)), abs=1e-9)


@settings(max_examples=25)
@given(st.floats(0.5, 2), st.floats(1e-3, 0.999))
def test_quantile_inverts_the_distribution_function(index, level):
    law = tabulate(index)
    assert law.cdf(np.array([law.quantile(level)]))[0] == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("distance", [4e-16, 1e-13, 1e-9, 1e-6, 1e-3])
def test_law_is_continuous_at_the_normal_one(distance):
    near = tabulate(2 - distance)
    x = np.linspace(0, 5, 50)
    assert near.log_pdf(x) == pytest.approx(tabulate(2.0).log_pdf(x), abs=max(1e-8, 100 * distance))
    assert np.isfinite(near.log_pdf(np.array([11.9, 12.1, 1e3]))).all()


@pytest.mark.parametrize("index", [0.49, 2.01, 0.0, float("nan")])
def test_law_refuses_other_indices(index):
    with pytest.raises(UsageError, match=r"must lie in \[0.5, 2\]"):
        tabulate(index)


def test_table_of_quantiles_equals_scipy():
    """P(X <= entry) is the level; S0 is S1, scipy's default, shifted by skew tan(pi index / 2)."""
    for index, block in TABLE.items():
        if index == 1:
            continue
        for skew, row in zip(SKEWS, block, strict=True):
            shift = skew * math.tan(math.pi * index / 2)
            below = stats.levy_stable.cdf(np.array(row) + shift, index, skew)
            assert below == pytest.approx(np.array(LEVELS), abs=2e-6)


# ---- all methods ------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize("index", [1.2, 1.5, 1.75, 1.9])
def test_index_of_symmetric_stable_values(method, index):
    fit = method.fit(draw(index, 100_000, seed=7))
    assert isinstance(fit, StableFit)
    assert abs(fit.index - index) < 3.5 * fit.sigma
    assert fit.sigma < 0.015
    assert fit.low <= fit.index <= fit.high <= 2
    assert math.sqrt(fit.n) * fit.D < 1
    if fit.scale is not None:
        assert fit.scale == pytest.approx(1, abs=0.02)
        assert fit.location == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(
    ("law", "expected"),
    [  # log-moment, two-point, Koutrouvelis, McCulloch, maximum likelihood
        ("normal", [1.99, 2.0, 2.0, 2.0, 2.0]),
        ("uniform", [2.0, 2.0, 2.0, 2.0, 2.0]),
        ("Laplace", [1.75, 1.70, 1.69, 1.44, 1.61]),
        ("Student", [1.735, 1.646, 1.647, 1.53, 1.61]),
    ],
)
def test_finite_variance_is_mistaken_for_a_low_index(law, expected):
    """The warning of the module in numbers; D, next to them, is not fooled."""
    generator = np.random.default_rng(11)
    n = 100_000
    values = {
        "normal": generator.standard_normal(n),
        "uniform": generator.uniform(-1, 1, n),
        "Laplace": generator.laplace(size=n),
        "Student": generator.standard_t(3, n),
    }[law]
    for method, index in zip(METHODS, expected, strict=True):
        fit = method.fit(values)
        assert fit.index == pytest.approx(index, abs=0.025)
        assert (math.sqrt(n) * fit.D < 1) == (law == "normal")


@quick_by_name
@pytest.mark.parametrize(("index", "n"), [(1.6, 2000)])
def test_standard_error_is_the_spread_over_samples(method, index, n):
    """Over 40 samples the spread is known to 11 %, the median standard error better."""
    fits = [method.fit(draw(index, n, seed=seed)) for seed in range(40)]
    spread = np.std([fit.index for fit in fits])
    assert 0.7 < np.median([fit.sigma for fit in fits]) / spread < 1.55
    assert np.mean([fit.low <= index <= fit.high for fit in fits]) > 0.84


def test_likelihood_intervals():
    fits = [StableMLE().fit(draw(1.6, 300, seed=seed)) for seed in range(8)]
    scores = np.array([(fit.index - 1.6) / fit.sigma for fit in fits])
    assert 0.5 < math.sqrt((scores**2).mean()) < 1.5
    normal = StableMLE().fit(draw(2.0, 500, seed=1))
    assert normal.high == 2
    assert 1.8 < normal.low < 2
    assert normal.index > 1.95


@by_name
@pytest.mark.parametrize(("seed", "factor", "shift"), [(1, 1e-6, 3.0), (2, 0.3, 0.0), (3, 1e5, -2)])
def test_shift_and_scale_change_only_location_and_scale(method, seed, factor, shift):
    x = draw(1.6, 2000, seed=seed)
    one, other = method.fit(x), method.fit(factor * (x + shift))
    assert other.index == pytest.approx(one.index, rel=1e-6)
    assert other.sigma == pytest.approx(one.sigma, rel=1e-5)
    assert pytest.approx(one.D, abs=1e-7) == other.D
    if one.scale is not None:
        assert other.scale == pytest.approx(factor * one.scale, rel=1e-6)
        assert other.location == pytest.approx(factor * (one.location + shift), abs=1e-5 * factor)


@by_name
def test_the_same_values_give_the_same_fit(method):
    x = draw(1.5, 3000)
    before = x.copy()
    assert method.fit(x) == method.fit(x)
    assert np.array_equal(x, before)


@by_name
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.arange(99.0), "99 values, needs 100"),
        (np.array([]), "0 values, needs 100"),
        (np.zeros(500), "half of the values are equal"),
        (np.concatenate([np.zeros(300), np.arange(90.0)]), "half of the values are equal"),
    ],
)
def test_too_little_to_fit_is_an_outcome(method, values, reason):
    assert method.fit(values) == NoFit(reason=reason, n=len(values))


@by_name
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_must_be_finite(method, bad):
    with pytest.raises(UsageError, match="needs finite values, but some are NaN or infinite"):
        method.fit(np.append(draw(1.5, 200), bad))


@pytest.mark.parametrize("method", [McCulloch(), StableMLE()])
def test_an_index_below_the_range_is_an_outcome(method):
    assert method.fit(draw(0.3, 5000)) == NoFit(reason="the index is below 0.5", n=5000)


def test_distance_is_the_kolmogorov_smirnov_statistic():
    x = np.random.default_rng(4).laplace(2.0, 3.0, size=2001)
    fit = TwoPoint().fit(x)
    law = tabulate(fit.index)
    quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75])
    z = (x - median) * 2 * law.quantile(0.75) / (three_quarters - quarter)
    assert pytest.approx(stats.kstest(z, law.cdf).statistic, rel=1e-12) == fit.D


# ---- single methods ---------------------------------------------------------------------


def log_moment_by_loops(values, block):
    """Corollary 2.4 of Mohammadi et al. (2015) for one block size."""
    sums = [
        np.linalg.norm(sum(values[i : i + block])) for i in range(0, len(values) - block + 1, block)
    ]
    growth = np.mean(np.log(sums)) - np.mean([np.log(np.linalg.norm(v)) for v in values])
    return math.log(block) / growth


def test_log_moment_in_the_order_given_with_one_block():
    x = draw(1.5, 360)  # 18 is the largest divisor up to its square root, 18.97
    fit = LogMoment(blocks=(), orders=0, center=False).fit(x)
    assert fit.index == pytest.approx(log_moment_by_loops(x[:, None], 18), rel=1e-12)


def test_log_moment_is_the_median_over_block_sizes_lowered_to_divisors():
    x = draw(1.5, 360, seed=1)
    fit = LogMoment(blocks=(2, 7, 50, 200), orders=0, center=False).fit(x)
    by_loops = [log_moment_by_loops(x[:, None], block) for block in (2, 6, 45, 18)]
    assert 1 / fit.index == pytest.approx(np.median([1 / index for index in by_loops]), rel=1e-12)


def test_log_moment_centres_by_the_median():
    x = draw(1.5, 360)
    plain = LogMoment(center=False, orders=0)
    assert LogMoment(orders=0).fit(x + 5).index == pytest.approx(
        plain.fit(x - np.median(x)).index, rel=1e-9
    )
    assert abs(plain.fit(x + 5).index - plain.fit(x).index) > 0.1


def test_sums_smaller_than_single_values_count_as_light_tails():
    """Of two values near +1 and -1 the sums nearly cancel, so 1 / index is below 0."""
    generator = np.random.default_rng(2)
    x = generator.choice([-1, 1], 5000) * generator.uniform(1, 1.001, 5000)
    for seed in range(5):
        assert LogMoment(blocks=(2,), center=False, seed=seed).fit(x).index == 2


def test_log_moment_of_a_prime_number_of_values():
    x = draw(1.5, 1009)
    method = LogMoment(blocks=(2, 5), orders=0, center=False)
    assert method.fit(x).index == pytest.approx(1.5, abs=0.4)
    used = [log_moment_by_loops(x[:1008, None], block) for block in (2, 4, 28)]
    logs = np.log(np.abs(x))  # all values enter the mean of single ones
    shift = logs.mean() - logs[:1008].mean()
    inverse = [1 / i - shift / math.log(m) for i, m in zip(used, (2, 4, 28), strict=True)]
    assert 1 / method.fit(x).index == pytest.approx(np.median(inverse), rel=1e-9)


def test_log_moment_of_vectors():
    rows = draw(1.3, (360, 4), seed=2)
    settings = LogMoment(blocks=(), orders=0, center=False)
    fit = log_moment_rows(rows, settings)
    assert fit.index == pytest.approx(log_moment_by_loops(rows, 18), rel=1e-12)
    assert fit.D is None


def test_vectors_of_random_length_are_seen_only_as_vectors():
    """Elliptical stable vectors: the entries of one vector share its random length."""
    generator = np.random.default_rng(6)
    half = sample_positive_stable(20_000, 0.75, generator=torch.Generator().manual_seed(6))
    length = np.sqrt(2 * half.numpy())
    rows = length[:, None] * generator.standard_normal((20_000, 10))
    fit = log_moment_rows(rows)
    assert abs(fit.index - 1.5) < 3 * fit.sigma < 0.1


def test_vectors_that_cannot_be_fitted():
    assert log_moment_rows(np.ones((50, 3))) == NoFit(reason="50 vectors, needs 100", n=50)
    assert log_moment_rows(np.ones((200, 3))) == NoFit(reason="all vectors are equal", n=200)
    with pytest.raises(UsageError, match="needs finite values"):
        log_moment_rows(np.full((200, 3), np.nan))


def test_zeros_do_not_break_the_log_moment():
    x = draw(1.5, 20_000)
    x[:1000] = 0.0
    fit = LogMoment().fit(x)
    assert 1.3 < fit.index < 1.7


def test_two_point_is_its_formula():
    x = draw(1.4, 500, seed=9)
    z = (x - np.median(x)) / (stats.iqr(x) / 2)
    near, far = (math.log(abs(np.exp(1j * u * z).mean())) for u in (0.2, 0.8))
    assert TwoPoint().fit(x).index == pytest.approx(math.log(far / near) / math.log(4), rel=1e-12)


def test_koutrouvelis_is_a_straight_line():
    x = draw(1.4, 500, seed=9)
    scale = (np.quantile(x, 0.72) - np.quantile(x, 0.28)) / 1.654
    z = (x - np.median(x)) / scale
    u = math.pi * np.arange(1, 11) / 25
    y = [math.log(-2 * math.log(abs(np.exp(1j * v * z).mean()))) for v in u]
    line = stats.linregress(np.log(u), y)
    fit = Koutrouvelis(rounds=1).fit(x)
    assert fit.index == pytest.approx(line.slope, rel=1e-10)
    expected = scale * (math.exp(line.intercept) / 2) ** (1 / line.slope)
    assert fit.scale == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("method", [Koutrouvelis(), McCulloch()])
@pytest.mark.parametrize(("index", "skew"), [(1.5, 0.6), (1.2, -0.8), (0.8, 0.4), (1.0, -0.5)])
def test_skew_and_location(method, index, skew):
    """A standard sample in S1 lies at skew tan(pi index / 2) in S0, and at 0 for index 1."""
    location = skew * math.tan(math.pi * index / 2) if index != 1 else 0.0
    fit = method.fit(3 * draw(index, 200_000, skew=skew))
    assert fit.index == pytest.approx(index, abs=0.02)
    assert fit.skew == pytest.approx(skew, abs=0.04)
    assert fit.scale == pytest.approx(3, rel=0.02)
    if index != 1:  # the location of S1 depends on the scale there
        assert fit.location == pytest.approx(3 * location, abs=0.1)


def test_maximum_likelihood_is_a_maximum_by_scipys_density():
    x = 2 * draw(1.5, 120, seed=3) + 1
    fit = StableMLE().fit(x)

    def of(index, scale, location):
        return stats.levy_stable.logpdf(x, index, 0, location, scale).sum()

    best = of(fit.index, fit.scale, fit.location)
    for sign in (-1, 1):
        assert best > of(fit.index + 0.02 * sign, fit.scale, fit.location)
        assert best > of(fit.index, fit.scale * (1 + 0.01 * sign), fit.location)
        assert best > of(fit.index, fit.scale, fit.location + 0.02 * sign)


def test_bins_do_not_change_the_likelihood(monkeypatch):
    x = draw(1.5, 20_000, seed=8)
    binned = StableMLE().fit(x)
    monkeypatch.setattr(likelihood, "_BINS", len(x))  # one by one
    exact = StableMLE().fit(x)
    assert binned.index == pytest.approx(exact.index, abs=2e-4)
    assert binned.scale == pytest.approx(exact.scale, abs=2e-4)
    assert binned != exact


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogMoment(blocks=(1,)), "blocks must be at least 2"),
        (lambda: LogMoment(orders=-1), "orders must not be negative"),
        (lambda: TwoPoint(u=(0.8, 0.2)), "two rising positive numbers"),
        (lambda: Koutrouvelis(points=1), "points of at least 2"),
        (lambda: Koutrouvelis(rounds=0), "rounds of at least 1"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(UsageError, match=message):
        make()
