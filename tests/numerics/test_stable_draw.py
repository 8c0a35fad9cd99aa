"""Alpha-stable samples against scipy, mpmath, closed forms, and the edges of the random bits."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.numerics.stable import sample_positive_stable, sample_stable
from tailor.numerics.stable.transform import Standard, normals

WIDTHS = [torch.int32, torch.int64]
SKEWS = [-1.0, -0.5, 0.0, 0.5, 1.0]
U = [0.1, 0.5, 1.0, 2.0]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bits(n, dtype, seed=0):
    info = np.iinfo(str(dtype).removeprefix("torch."))
    drawn = np.random.default_rng(seed).integers(info.min, info.max, (2, n), info.dtype)
    return torch.from_numpy(drawn)


def extremes(dtype):
    """Every pair of the least, the largest, and the integers around zero."""
    info = torch.iinfo(dtype)
    edge = [info.min, info.min + 1, -2, -1, 0, 1, info.max - 1, info.max]
    return torch.tensor(list(itertools.product(edge, edge)), dtype=dtype).T


# ---- the transform ----------------------------------------------------------------------


def exactly(law, angle, waiting, width):
    """Weron's (1996) form of the method, in 50 digits."""
    with mpmath.workdps(50):
        index, skew = mpmath.mpf(law.index), mpmath.mpf(law.skew)
        x = (angle + mpmath.mpf(1) / 2) / 2**width
        below_one = 1 - mpmath.mpf(2) ** (-24 if width == 32 else -53)
        wait = -mpmath.log1p(-abs(waiting + mpmath.mpf(1) / 2) / 2 ** (width - 1) * below_one)
        V = mpmath.sign(x) * mpmath.pi * (mpmath.mpf(1) / 2 - abs(x))
        if index == 1:
            opening = mpmath.pi / 2 + skew * V
            tilt = mpmath.log(mpmath.pi / 2 * wait * mpmath.cos(V) / opening)
            return 2 / mpmath.pi * (opening * mpmath.tan(V) - skew * tilt)
        b = skew * mpmath.tan(mpmath.pi * index / 2)
        turned = index * V + mpmath.atan(b)
        first = mpmath.sin(turned) / mpmath.cos(V) ** (1 / index)
        second = (mpmath.cos(V - turned) / wait) ** ((1 - index) / index)
        return (1 + b**2) ** (1 / (2 * index)) * first * second - (b if law.shifted else 0)


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("skew", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("index", [0.3, 0.6, 1 - 1e-7, 1.0, 1.01, 1.3, 1.7, 1.999])
def test_values_equal_the_formula_in_fifty_digits(index, skew, dtype):
    """Also where the angle is near the edge, from where the tails come."""
    info = torch.iinfo(dtype)
    angle, waiting = bits(12, dtype)
    angle = torch.cat([angle, torch.tensor([0, -1, 3, -70, 5000, info.max // 3]).to(dtype)])
    waiting = torch.cat([waiting, torch.tensor([0, 9, -700, 80000, 7, info.min // 3]).to(dtype)])
    limits = torch.finfo(torch.float32 if info.bits == 32 else torch.float64)
    for shifted in (False, True):
        law = Standard(index=index, skew=skew, shifted=shifted)
        found = law.values(angle, waiting).double().tolist()
        pairs = zip(angle.tolist(), waiting.tolist(), strict=True)
        exact = np.array([float(exactly(law, *pair, info.bits)) for pair in pairs])
        bounded = exact.clip(-limits.max, limits.max)
        # The logarithm of z is up to 90, so that is what a rounding error grows by.
        assert found == pytest.approx(bounded, rel=300 * limits.eps, abs=30 * limits.eps)


@given(st.floats(0.05, 2), st.sampled_from(SKEWS), st.sampled_from(WIDTHS), st.booleans())
@settings(max_examples=60)
def test_every_bit_pattern_gives_a_finite_value(index, skew, dtype, shifted):
    law = Standard(index=index, skew=skew, shifted=shifted)
    assert law.values(*extremes(dtype)).isfinite().all()
    assert law.values(*bits(500, dtype)).isfinite().all()


@pytest.mark.parametrize(
    "index", [1e-300, 1e-3, 0.5, 1 - 2.0**-53, 1.0, 1 + 2.0**-52, 1.5, 2 - 2.0**-52, 2.0]
)
@pytest.mark.parametrize("skew", SKEWS)
def test_special_indices_are_finite_too(index, skew):
    for dtype, shifted in itertools.product(WIDTHS, (False, True)):
        law = Standard(index=index, skew=skew, shifted=shifted)
        assert law.values(*extremes(dtype)).isfinite().all()


@given(st.floats(0.05, 0.999), st.sampled_from(WIDTHS))
def test_a_totally_skewed_law_below_index_one_has_one_sign(index, dtype):
    for angle, waiting in (extremes(dtype), bits(500, dtype)):
        assert (Standard(index=index, skew=1.0).values(angle, waiting) >= 0).all()
        assert (Standard(index=index, skew=-1.0).values(angle, waiting) <= 0).all()


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("skew", [-1.0, -0.3, 0.5, 1.0])
def test_s0_is_continuous_at_index_one(skew, dtype):
    """The same bits give nearly the same value; S1 jumps by skew tan(pi index / 2)."""
    drawn = bits(2000, dtype)
    at_one = Standard(index=1.0, skew=skew, shifted=True).values(*drawn)
    assert torch.equal(at_one, Standard(index=1.0, skew=skew).values(*drawn))
    for near in (1 - 1e-9, 1 + 1e-9, 1 - 1e-5, 1 + 1e-5):
        value = Standard(index=near, skew=skew, shifted=True).values(*drawn)
        size = 1 + at_one.abs()
        assert ((value - at_one).abs() / size).max() < 2e-6 + 300 * abs(1 - near)
        jumped = Standard(index=near, skew=skew).values(*drawn).double() - value
        lean = skew * math.tan(math.pi * near / 2)
        assert jumped.median().item() == pytest.approx(lean, rel=1e-3)


def test_mirrored_bits_and_skew_mirror_the_law():
    angle, waiting = bits(1000, torch.int64)
    for index in (0.4, 0.8, 1.0, 1.2, 1.9):
        one = Standard(index=index, skew=0.4).values(angle, waiting)
        other = Standard(index=index, skew=-0.4).values(~angle, waiting)
        torch.testing.assert_close(one, -other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", WIDTHS)
def test_normals_are_normal_and_independent(dtype):
    one, other = (x.double().numpy() for x in normals(*bits(20_000, dtype)))
    for x in (one, other, (one + other) / math.sqrt(2)):
        assert stats.kstest(x, "norm").pvalue > 0.01
    assert stats.kstest(one**2 + other**2, "chi2", args=(2,)).pvalue > 0.01


# ---- samples ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "beta", "dtype"),
    [
        (0.7, 0.5, torch.float32),
        (1.0, 0.0, torch.float32),
        (1.0, -0.6, torch.float64),
        (1.5, 1.0, torch.float32),
        (1.8, -0.5, torch.float64),
    ],
)
def test_a_sample_follows_scipys_law(alpha, beta, dtype):
    x = sample_stable(500, alpha, beta, scale=2.0, loc=1.0, generator=seeded(3), dtype=dtype)
    law = stats.levy_stable(alpha, beta, loc=1.0, scale=2.0)  # S1 is scipy's default
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 0.01


@pytest.mark.parametrize(("alpha", "law"), [(1.0, stats.cauchy()), (2.0, stats.norm(0, 2**0.5))])
def test_a_sample_follows_the_law_that_has_a_name(alpha, law):
    x = sample_stable(50_000, alpha, generator=seeded(5))
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 0.01


def test_a_one_sided_sample_of_index_half_follows_levys_law():
    x = sample_stable(50_000, 0.5, 1.0, generator=seeded(6))
    assert stats.kstest(x.numpy(), stats.levy.cdf).pvalue > 0.01


def exponent(alpha, beta, u, parametrization):
    """Minus the logarithm of the characteristic function (Nolan 2020, definitions 1.5, 1.7)."""
    if alpha == 1:
        return u * (1 + 2j / math.pi * beta * math.log(u))
    lean = 1j * beta * math.tan(math.pi * alpha / 2)
    if parametrization == "S1":
        return u**alpha * (1 - lean)
    return u**alpha * (1 + lean * (u ** (1 - alpha) - 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parametrization", ["S0", "S1"])
@pytest.mark.parametrize(
    ("alpha", "beta"),
    [(0.4, 0.3), (0.9, -1.0), (1.0, 0.7), (1.02, 0.5), (1.5, 0.0), (1.8, -0.8), (2.0, 0.0)],
)
def test_a_sample_has_the_characteristic_function(alpha, beta, parametrization, dtype):
    n, generator = 200_000, seeded(1)
    x = (
        sample_stable(
            n, alpha, beta, parametrization=parametrization, generator=generator, dtype=dtype
        )
        .double()
        .numpy()
    )
    for u in U:
        expected = np.exp(-exponent(alpha, beta, u, parametrization))
        assert abs(np.exp(1j * u * x).mean() - expected) < 4 / math.sqrt(n)


@pytest.mark.parametrize("parametrization", ["S0", "S1"])
def test_scale_and_location_at_index_one_are_those_of_scipy(parametrization, monkeypatch):
    monkeypatch.setattr(stats.levy_stable, "parameterization", parametrization)
    x = sample_stable(
        1000, 1.0, 0.8, scale=5.0, loc=-2.0, parametrization=parametrization, generator=seeded(2)
    )
    law = stats.levy_stable(1.0, 0.8, loc=-2.0, scale=5.0)
    assert stats.kstest(x.numpy(), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("index", [0.3, 0.75, 0.95])
def test_positive_stable_values_have_the_laplace_transform(index):
    n = 100_000
    x = sample_positive_stable(n, index, generator=seeded(4))
    assert (x > 0).all()
    for s in U:
        assert torch.exp(-s * x).mean().item() == pytest.approx(
            math.exp(-(s**index)), abs=2 / math.sqrt(n)
        )


def test_tails_have_the_right_weight_far_out():
    """P(|X| > x) x^alpha -> 2 C, Samorodnitsky & Taqqu (1994), property 1.2.15."""
    alpha, n = 1.5, 2_000_000
    x = sample_stable(n, alpha, generator=seeded(7)).abs()
    constant = 2 / math.pi * math.gamma(alpha) * math.sin(math.pi * alpha / 2)
    expected = n * constant * 1000**-alpha
    assert abs((x > 1000).sum().item() - expected) < 4 * math.sqrt(expected)


def test_a_sample_has_a_shape_a_type_and_a_seed():
    one = sample_stable((20, 30), 1.5, generator=seeded(5), dtype=torch.float64)
    assert one.shape == (20, 30)
    assert one.dtype == torch.float64
    again = sample_stable((20, 30), 1.5, generator=seeded(5), dtype=torch.float64)
    assert torch.equal(one, again)
    generator = seeded(5)
    first, second = (sample_stable((20, 30), 1.5, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert sample_stable(3, 1.5, generator=generator).shape == (3,)
    assert sample_stable((0, 3), 1.5, generator=generator).shape == (0, 3)


def test_more_values_than_a_block_holds():
    x = sample_stable(300_001, 1.9, generator=seeded(8))
    assert len(x.unique()) > 299_000


def test_a_sample_is_finite_whatever_the_scale():
    x = sample_stable(1000, 0.1, scale=1e30, loc=-1e38, generator=seeded(9))
    assert x.isfinite().all()
    assert x.abs().max() == torch.finfo(torch.float32).max


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (2.1, 0.0), (1.5, 1.1), (math.nan, 0.0)])
def test_a_sample_refuses_what_is_no_stable_law(alpha, beta):
    with pytest.raises(UsageError, match=r"index in \(0, 2\] and a skewness in \[-1, 1\]"):
        sample_stable(5, alpha, beta)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": 0.0}, "needs a positive finite scale and a finite location, but got 0.0"),
        ({"scale": 1e39}, "needs a positive finite scale"),
        ({"loc": math.inf}, "a finite location, but got 1.0 and inf"),
        ({"dtype": torch.float16}, r"torch.float32 or torch.float64, but dtype is torch.float16"),
    ],
)
def test_a_sample_refuses_bad_settings(given, message):
    with pytest.raises(UsageError, match=message):
        sample_stable(5, 1.5, **given)


@pytest.mark.parametrize("index", [0.0, 1.0, 1.5])
def test_positive_stable_values_need_an_index_below_one(index):
    with pytest.raises(UsageError, match=r"needs a tail index in \(0, 1\), but got"):
        sample_positive_stable(5, index)
