"""PAC-Bayes bounds against mpmath, each other, and a finite class summed exactly."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.bounds import (
    catoni,
    catoni_grid,
    gibbs_risk_upper,
    held_out_upper,
    kl_upper,
    majority_vote_upper,
    pac_bayes_kl,
)
from tests.numerics.bounds.exact import few
from tests.numerics.bounds.exact import kl as entropy

shares, sizes = st.floats(0, 1), st.integers(1, 10**6)
nats, deltas = st.floats(0, 1000), st.floats(1e-6, 0.5)


@few
@given(shares, sizes, nats, deltas)
def test_pac_bayes_kl_is_outward_and_tight(risk, n, kl, delta):
    found = pac_bayes_kl(risk, n, kl, delta)
    with mpmath.workdps(60):
        level = (kl + mpmath.log(2 * mpmath.sqrt(n) / mpmath.mpf(delta))) / n
    assert found == 1 or entropy(risk, found) >= level
    assert found - 1e-7 <= risk or entropy(risk, found - 1e-7) <= level


def test_pac_bayes_kl_reference_value():
    # kl(0.02, p) = (668 + ln(2 sqrt(60000) / 0.05)) / 60000 solved by hand with mpmath
    with mpmath.workdps(30):
        level = (668 + mpmath.log(2 * mpmath.sqrt(60_000) / mpmath.mpf("0.05"))) / 60_000
        q = mpmath.mpf("0.02")
        exact = mpmath.findroot(
            lambda p: q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p)) - level, 0.05
        )
    assert 0 <= pac_bayes_kl(0.02, 60_000, 668, 0.05) - float(exact) < 1e-12


@pytest.mark.parametrize("n", range(1, 12))
def test_the_constant_covers_small_samples_too(n):
    """E exp(n kl(k/n, p)) for k ~ Bin(n, p) is this sum, whatever p: at most 2 sqrt(n)."""
    total = sum(math.comb(n, k) * (k / n) ** k * (1 - k / n) ** (n - k) for k in range(n + 1))
    assert math.sqrt(n) <= total <= 2 * math.sqrt(n)


@few
@given(shares, sizes, nats, deltas, st.floats(1e-3, 20))
def test_catoni_is_outward_and_never_below_its_optimum(risk, n, kl, delta, beta):
    found = catoni(risk, n, kl, delta, beta)
    with mpmath.workdps(60):
        price = (kl - mpmath.log(mpmath.mpf(delta))) / n
        exact = (1 - mpmath.exp(-mpmath.mpf(beta) * mpmath.mpf(risk) - price)) / (
            1 - mpmath.exp(-mpmath.mpf(beta))
        )
        assert min(exact, 1) <= found <= min(exact, 1) + 1e-9
    assert found >= kl_upper(risk, float(price)) - 1e-9


@few
@given(st.floats(0.001, 0.5), st.integers(100, 10**5), st.floats(0, 100), deltas)
def test_catoni_at_its_optimum_is_the_inverse_relative_entropy(risk, n, kl, delta):
    level = (kl - math.log(delta)) / n
    p = kl_upper(risk, level)
    if p < 0.999:
        beta = math.log(p * (1 - risk) / (risk * (1 - p)))
        assert catoni(risk, n, kl, delta, beta) == pytest.approx(p, abs=1e-9)
        assert p <= pac_bayes_kl(risk, n, kl, delta)  # what ln(2 sqrt n) costs


def test_a_grid_costs_more_than_the_square_root():
    risk, n, kl, delta = 0.02, 1500, 230, 0.05
    fine = [1.0001**i for i in range(-40_000, 40_000, 200)]  # e^-4 to e^4
    best = min(catoni(risk, n, kl, delta, beta) for beta in fine)
    assert catoni_grid(risk, n, kl, delta, fine) > best + 0.001
    assert pac_bayes_kl(risk, n, kl, delta) < catoni_grid(risk, n, kl, delta, fine)
    assert catoni_grid(risk, n, kl, delta, [2.0]) == catoni(risk, n, kl, delta, 2.0)


@few
@given(st.floats(0, 0.99), sizes, nats, deltas)
def test_bounds_grow_with_risk_kl_and_confidence(risk, n, kl, delta):
    for bound in (pac_bayes_kl, lambda *case: catoni(*case, 1.5)):
        found = bound(risk, n, kl, delta)
        assert bound(risk + 0.01, n, kl, delta) >= found
        assert bound(risk, n, kl + 1, delta) >= found
        assert bound(risk, n, kl, delta / 2) >= found
        assert bound(risk, 2 * n, kl, delta) <= found


def test_pooled_draws_are_binomial():
    assert gibbs_risk_upper(6000, 300_000, 0.01) == held_out_upper(6000, 300_000, 0.01)
    assert gibbs_risk_upper(6000, 300_000, 0.01) == pytest.approx(0.0206, abs=5e-5)


def test_a_majority_vote_errs_at_most_twice_as_often():
    generator = np.random.default_rng(0)
    wrong = generator.random((50, 400)) < 0.8 * generator.random(400)
    weights = generator.dirichlet(np.ones(50))
    gibbs = float((weights @ wrong).mean())
    vote = float((weights @ wrong >= 0.5).mean())
    assert 0 < vote <= majority_vote_upper(gibbs) == 2 * gibbs
    assert majority_vote_upper(0.7) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pac_bayes_kl(1.1, 10, 1, 0.05), "must lie between 0 and 1, but is 1.1"),
        (lambda: pac_bayes_kl(0.1, 10, -1, 0.05), "0 nats or more, but is -1"),
        (lambda: pac_bayes_kl(0.1, 10, math.nan, 0.05), "0 nats or more, but is nan"),
        (lambda: pac_bayes_kl(0.1, 0, 1, 0.05), "at least one example"),
        (lambda: catoni(0.1, 10, 1, 0.05, 0.0), "beta must be a finite number above 0"),
        (lambda: catoni(0.1, 10, 1, 1.0, 1.0), "strictly between 0 and 1"),
        (lambda: catoni_grid(0.1, 10, 1, 0.05, []), "at least one beta"),
        (lambda: gibbs_risk_upper(11, 10, 0.01), "between 0 and n = 10, but is 11"),
        (lambda: majority_vote_upper(-0.1), "must lie between 0 and 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
