"""Laws of node scales: samples against densities, sums over p, tails, and outside references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from tailor.errors import UsageError
from tailor.numerics.nodes import GBFRY, GGP, Equal, Horseshoe, InverseGamma

LAWS = [
    Horseshoe(),
    InverseGamma(shape=2.0),
    InverseGamma(shape=0.7, scale=2.0),
    GGP(alpha=0.5),
    GGP(alpha=0.8, beta=3.0, mean=2.0),
    GBFRY(alpha=0.8, tau=5.0),
    GBFRY(alpha=0.5, tau=2.0, mean=3.0),
    GBFRY(alpha=0.2, tau=5.0),
]
EVERY = pytest.mark.parametrize("law", LAWS, ids=repr)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pooled(law, p, layers, seed=0):
    """Scales of many layers together."""
    source = generator(seed)
    return np.concatenate([law.sample(p, source).numpy() for _ in range(layers)])


def log_density(law, scales, p):
    return law.log_density(torch.as_tensor(scales, dtype=torch.float64), p).numpy()


def distribution_of_log(law, p):
    """Positions t and P(log lambda <= t), by integrating the density."""
    t = np.linspace(-150, 90, 60_001)
    density = np.exp(log_density(law, np.exp(t), p) + t)
    return t, integrate.cumulative_simpson(density, x=t, initial=0)


@EVERY
@pytest.mark.parametrize("p", [1, 100, 10_000])
def test_the_density_integrates_to_one(law, p):
    _, below = distribution_of_log(law, p)
    assert below[-1] == pytest.approx(1, abs=1e-6)


@EVERY
@pytest.mark.parametrize("p", [3, 500])
def test_samples_follow_the_density(law, p):
    t, below = distribution_of_log(law, p)
    found = np.log(pooled(law, p, layers=6000 // p))
    verdict = stats.kstest(found, lambda x: np.interp(x, t, below))
    assert verdict.pvalue > 1e-3


@pytest.mark.parametrize(("shape", "scale"), [(2.0, 1.0), (2.0, 3.0), (0.5, 1.0), (0.7, 0.2)])
def test_inverse_gamma_is_that_of_scipy(shape, scale):
    p = 50
    reference = stats.invgamma(shape, scale=scale * p ** -max(1, 1 / shape))
    x = np.geomspace(1e-8, 1e4, 200)
    found = log_density(InverseGamma(shape=shape, scale=scale), x, p)
    np.testing.assert_allclose(found, reference.logpdf(x), rtol=1e-12, atol=1e-10)


def test_horseshoe_is_the_square_of_a_half_cauchy_value():
    p = 40
    x = np.geomspace(1e-12, 1e6, 100)
    root = 2 * p / math.pi * np.sqrt(x)  # C, and dC/dx = C / (2 x)
    expected = stats.halfcauchy.logpdf(root) + np.log(root / (2 * x))
    np.testing.assert_allclose(log_density(Horseshoe(), x, p), expected, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 30, 2000])
@pytest.mark.parametrize("x", [1e-6, 1e-3, 0.3, 1.0, 20.0])
def test_gbfry_is_the_mixture_over_its_pareto_factor(p, x):
    alpha, tau = 0.4, 3.0
    factor = (tau - 1) / (tau - alpha)
    t = (alpha * p * tau / (tau - alpha)) ** (1 / alpha)
    constant = alpha / special.gamma(1 - alpha) / ((1 + t) ** alpha - 1)

    def tilted(y):
        return constant * y ** (-1 - alpha) * math.exp(-y) * -math.expm1(-t * y)

    def integrand(share):  # z = share^(-1/tau) has the Pareto law of index tau
        z = share ** (-1 / tau)
        return tilted(x / factor / z) / z / factor

    expected, _ = integrate.quad(integrand, 0, 1, limit=500, epsabs=0, epsrel=1e-9)
    found = log_density(GBFRY(alpha=alpha, tau=tau), [x], p)[0]
    assert found == pytest.approx(math.log(expected), abs=1e-6)


@pytest.mark.parametrize(
    "law",
    [Horseshoe(), InverseGamma(shape=0.5), InverseGamma(shape=2.0), GGP(), GBFRY(), Equal()],
    ids=repr,
)
def test_the_sum_over_a_layer_keeps_its_size_as_the_layer_widens(law):
    source = generator(1)
    sums = {
        p: [float(law.sample(p, source).sum()) for _ in range(500)] for p in (100, 1000, 10_000)
    }
    medians = [float(np.median(sums[p])) for p in sums]
    assert max(medians) < 1.8 * min(medians)  # 4 standard errors for the widest of these laws
    assert min(medians) > 0.5
    assert max(medians) < 7


def test_equal_scales_sum_to_one():
    assert float(Equal().sample(700, generator()).sum()) == pytest.approx(1)
    assert Equal().sample(4, generator()).tolist() == [0.25] * 4
    assert Equal().log_density(torch.ones(3), 4).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("law", "limit"),
    [
        (Horseshoe(), stats.levy(scale=math.pi / 2)),
        (InverseGamma(shape=0.5, scale=2.0), stats.invgamma(0.5, scale=2.0)),  # for every p
    ],
    ids=["horseshoe", "inverse gamma"],
)
def test_sums_of_tail_index_one_half_follow_the_levy_law(law, limit):
    source = generator(2)
    sums = [float(law.sample(1000, source).sum()) for _ in range(2000)]
    assert stats.kstest(sums, limit.cdf).pvalue > 1e-3


def test_sums_of_ggp_scales_have_the_laplace_transform_of_the_process():
    law = GGP(alpha=0.5, beta=2.0, mean=1.5)
    source = generator(3)
    sums = np.array([float(law.sample(5000, source).sum()) for _ in range(1000)])
    for s in (0.5, 1.0, 3.0):
        rate = 1.5 * math.sqrt(2) / 0.5 * (math.sqrt(2 + s) - math.sqrt(2))
        seen = np.exp(-s * sums)
        assert seen.mean() == pytest.approx(math.exp(-rate), abs=4 * seen.std() / math.sqrt(1000))


@pytest.mark.parametrize("law", [GGP(alpha=0.3, mean=2.0), GBFRY(alpha=0.3, tau=6.0, mean=2.0)])
def test_the_mean_of_the_sum_is_as_asked(law):
    source = generator(4)
    sums = np.array([float(law.sample(1000, source).sum()) for _ in range(1000)])
    assert sums.mean() == pytest.approx(2, abs=4 * sums.std() / math.sqrt(1000))


def test_horseshoe_tail_is_x_to_the_minus_one_half():
    p = 1000
    found = pooled(Horseshoe(), p, layers=500, seed=5)
    for x in (0.1, 1.0, 10.0):
        count = int((found > x).sum())
        expected = 500 * x**-0.5  # p P(lambda > x) in each of 500 layers
        assert abs(count - expected) < 4 * math.sqrt(expected) + 0.01 * expected


@pytest.mark.parametrize(
    ("law", "index"),
    [
        (Horseshoe(), 0.5),
        (InverseGamma(shape=0.7), 0.7),
        (InverseGamma(shape=2.0), 2.0),
        (GBFRY(alpha=0.5, tau=1.5), 1.5),
    ],
    ids=repr,
)
def test_large_scales_have_the_tail_index_stated(law, index):
    found = np.sort(pooled(law, 50, layers=4000, seed=6))
    top = 300
    hill = 1 / np.mean(np.log(found[-top:] / found[-top - 1]))
    assert hill == pytest.approx(index, rel=4 / math.sqrt(top))


@pytest.mark.parametrize(
    ("law", "small", "large"),
    [
        (Horseshoe(), -0.5, -1.5),
        (GBFRY(alpha=0.3, tau=4.0), -0.3, -5.0),
        (InverseGamma(shape=0.7), None, -1.7),
        (GGP(alpha=0.6), -0.6, None),
    ],
    ids=repr,
)
def test_powers_of_the_density_at_both_ends(law, small, large):
    for log_x, expected in ((-230.0, small), (60.0, large)):
        if expected is not None:
            t = torch.tensor(log_x, dtype=torch.float64, requires_grad=True)
            law.log_density(t.exp(), 200).backward()
            assert float(t.grad) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("law", [GGP(alpha=0.6), GBFRY(alpha=0.6, tau=5.0)], ids=repr)
def test_between_the_ends_the_power_is_one_plus_alpha(law):
    t = torch.tensor([-10.0, -8.0], dtype=torch.float64)  # p = 1e6: t is about 1e9
    first, second = law.log_density(t.exp(), 10**6).tolist()
    assert (second - first) / 2 == pytest.approx(-1.6, abs=0.02)


@EVERY
@settings(max_examples=40)
@given(st.floats(-60, 8), st.integers(1, 5000))
def test_gradients_are_those_of_finite_differences(law, log_x, p):
    t = torch.tensor([log_x, log_x + 1e-4, log_x - 1e-4], dtype=torch.float64, requires_grad=True)
    values = law.log_density(t.exp(), p)
    values[0].backward()
    if float(values[0].detach()) < -1e6:  # an inverse gamma far below its scale: no digits left
        return
    slope = (values[1] - values[2]).item() / 2e-4
    assert float(t.grad[0]) == pytest.approx(slope, rel=1e-5, abs=1e-5)


@EVERY
def test_single_precision_is_kept_and_zero_counts_as_very_small(law):
    x = torch.tensor([0.0, 1e-30, 1e-3, 1.0])
    found = law.log_density(x, 100)
    assert found.dtype == torch.float32
    expected = log_density(law, x.double(), 100)
    np.testing.assert_allclose(found[1:].numpy(), expected[1:], rtol=1e-6)
    assert not torch.isnan(found).any()


@EVERY
def test_the_generator_decides(law):
    first, again, other = (law.sample(9, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float64
    assert first.shape == (9,)
    assert (first > 0).all()


@EVERY
def test_a_layer_needs_a_node(law):
    with pytest.raises(UsageError, match="at least one node, but p is 0"):
        law.sample(0, generator())


def test_settings_out_of_range_are_refused():
    for shape in (0.0, 1.0, math.nan):
        with pytest.raises(UsageError, match="InverseGamma needs shape > 0 other than 1"):
            InverseGamma(shape=shape)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(UsageError, match=r"GGP needs alpha in \(0, 1\)"):
            GGP(alpha=alpha)
        with pytest.raises(UsageError, match=r"GBFRY needs alpha in \(0, 1\)"):
            GBFRY(alpha=alpha)
    for tau in (1.0, math.inf):
        with pytest.raises(UsageError, match="tau > 1"):
            GBFRY(tau=tau)
    with pytest.raises(UsageError, match="mean > 0"):
        GGP(mean=-1.0)
