"""Divergences against torch.distributions and mpmath; draws against the law they come from."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.numerics.counter import stream
from tailor.numerics.posteriors import (
    categorical_kl,
    diagonal_kl,
    full_kl,
    isotropic_kl,
    normal_rows,
    uniform_rows,
)


def gaussian(dim, seed):
    """A mean and a Cholesky factor."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, generator=generator, dtype=torch.float64)
    square = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return mean, torch.linalg.cholesky(square @ square.T / dim + 0.1 * torch.eye(dim))


def by_torch(mean, factor, prior_mean, prior_factor):
    law = torch.distributions.MultivariateNormal
    return float(
        torch.distributions.kl_divergence(
            law(mean, scale_tril=factor), law(prior_mean, scale_tril=prior_factor)
        )
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000), st.floats(0.1, 10))
def test_isotropic_is_the_divergence_of_two_gaussians(dim, seed, scale):
    mean, factor = gaussian(dim, seed)
    eye = torch.eye(dim, dtype=torch.float64)
    expected = by_torch(mean, factor, torch.zeros_like(mean), scale * eye)
    assert isotropic_kl(mean, factor, scale) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_full_is_the_divergence_of_two_gaussians(dim, seed):
    mean, factor = gaussian(dim, seed)
    prior_mean, prior_factor = gaussian(dim, seed + 1)
    root = torch.linalg.inv(prior_factor).T.triu()
    expected = by_torch(mean, factor, prior_mean, prior_factor)
    found = full_kl(mean, factor, prior_mean, root.contiguous())
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_diagonal_is_the_divergence_of_independent_gaussians():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    deviations = 0.1 + torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(means[0], deviations[0]), normal(means[1], deviations[1])
    ).sum()
    found = diagonal_kl(means[0], deviations[0], means[1], deviations[1])
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_every_form_is_rounded_up():
    """Against 50 digits; a sum that is not rounded outward falls short in about half the cases."""
    for seed in range(40):
        mean, factor = gaussian(4, seed)
        deviation = factor.diagonal().abs()
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        with mpmath.workdps(50):
            square = sum(mpmath.mpf(v) ** 2 for v in mean.tolist())
            spread = sum(mpmath.mpf(v) ** 2 for v in factor.flatten().tolist())
            own = sum(mpmath.mpf(v) ** 2 for v in deviation.tolist())
            logs = sum(mpmath.log(mpmath.mpf(v)) for v in deviation.tolist())
            full = (spread + square - 4) / 2 - logs
            diagonal = (own + square - 4) / 2 - logs
            eye = torch.eye(4, dtype=torch.float64)
            assert full <= isotropic_kl(mean, factor, 1.0) <= full * (1 + 1e-12)
            assert full <= full_kl(mean, factor, zero, eye) <= full * (1 + 1e-11)
            assert diagonal <= diagonal_kl(mean, deviation, zero, one) <= diagonal * (1 + 1e-12)


def test_categorical_against_fifty_digits():
    posterior = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [2.0, 2.0, 4.0]]).double()
    prior = torch.tensor([0.1, 0.8, 0.1]).double()
    with mpmath.workdps(50):
        expected = mpmath.mpf(0)
        p = [mpmath.mpf(v) for v in prior.tolist()]
        for row in posterior.tolist():
            q = [mpmath.mpf(v) for v in row]
            terms = [
                a / sum(q) * mpmath.log(a / sum(q) * sum(p) / b)
                for a, b in zip(q, p, strict=True)
                if a
            ]
            expected += sum(terms)
        assert expected <= categorical_kl(posterior, prior) <= expected * (1 + 1e-12)


def test_equal_laws_have_no_divergence_and_never_a_negative_one():
    mean, _ = gaussian(6, 3)
    eye = torch.eye(6, dtype=torch.float64)
    assert 0 <= full_kl(mean, eye, mean, eye) < 1e-12
    law = torch.tensor([0.1, 0.3, 0.6]).double()
    assert 0 <= categorical_kl(law.expand(5, 3), law) < 1e-12


def test_what_has_no_divergence_is_refused():
    mean, factor = gaussian(3, 0)
    with pytest.raises(UsageError, match="above 0, but the smallest is 0"):
        isotropic_kl(mean, factor * torch.tensor([1.0, 1.0, 0.0]), 1.0)
    with pytest.raises(UsageError, match="zero on the other side"):
        isotropic_kl(mean, factor + torch.ones(3, 3), 1.0)
    with pytest.raises(UsageError, match="a finite scale above 0"):
        isotropic_kl(mean, factor, 0.0)
    with pytest.raises(UsageError, match="finite and above 0"):
        diagonal_kl(mean, -mean.abs(), mean, mean.abs())
    with pytest.raises(UsageError, match="finite numbers"):
        isotropic_kl(mean * float("nan"), factor, 1.0)
    certain = torch.tensor([[1.0, 0.0]]).double()
    with pytest.raises(UsageError, match="probability 0 to a level"):
        categorical_kl(certain, torch.tensor([0.0, 1.0]).double())
    with pytest.raises(UsageError, match="0 or more"):
        categorical_kl(-certain, torch.tensor([0.5, 0.5]).double())


def test_rows_are_functions_of_their_place():
    bits = stream(7, "rows")
    whole = normal_rows(bits, 0, 50, 5)
    assert torch.equal(whole[20:30], normal_rows(bits, 20, 10, 5))
    assert torch.equal(uniform_rows(bits, 0, 9, 4)[3:], uniform_rows(bits, 3, 6, 4))
    words = bits.words(6 * 3, 6).view(2, 3).numpy()  # row 3 of 5 columns: three radii, three angles
    step = 2.0**-63 * (1 - 2.0**-53)
    radius = np.sqrt(-2 * np.log(np.abs(words[0] * step + step / 2)))
    angle = np.pi * (words[1] * 2.0**-63)
    by_hand = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:5]
    np.testing.assert_allclose(whole[3].numpy(), by_hand, rtol=1e-12)


def test_rows_follow_their_laws():
    bits = stream(1, "law")
    assert stats.kstest(normal_rows(bits, 0, 4000, 5).flatten(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform_rows(bits, 0, 4000, 5).flatten(), "uniform").pvalue > 1e-3
    both = normal_rows(bits, 0, 4000, 5).T @ normal_rows(bits, 0, 4000, 5) / 4000
    assert float((both - torch.eye(5)).abs().max()) < 0.1
