"""Rates: scipy's laws cell by cell, published limits, and draws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tailor.errors import UsageError
from tailor.numerics.codebooks import nearest_levels, step_within
from tailor.numerics.powerlaw import NoFit
from tailor.numerics.rate import (
    Gaussian,
    Laplace,
    Predicted,
    Student,
    gaussian_limit,
    kept,
    predicted_bits,
    rate,
    sampled_rate,
    shannon_lower_bound,
)
from tailor.numerics.rate.quantised import rate_at

LAWS = [
    (Gaussian(), stats.norm()),
    (Gaussian(scale=3.0), stats.norm(scale=3.0)),
    (Laplace(scale=0.5), stats.laplace(scale=0.5)),
    (Student(index=5.0), stats.t(5)),
    (Student(index=2.5, scale=0.1), stats.t(2.5, scale=0.1)),
]
errors = st.floats(1e-4, 0.5)


def brute(law, step):
    """Entropy and mean squared error on the multiples of a step, by scipy, where it converges."""
    edges = (np.arange(0, 20_000) + 0.5) * step
    above = law.sf(edges)
    share = np.concatenate([[1 - 2 * above[0]], np.repeat(above[:-1] - above[1:], 2)])
    share = share[share > 0]
    cells = [(0.0, edges[0], 0.0)]
    cells += [(edges[k], edges[k + 1], (k + 1) * step) for k in range(60)]
    lost = sum(
        integrate.quad(lambda x, m=m: (x - m) ** 2 * law.pdf(x), a, b)[0] for a, b, m in cells
    )
    return -float((share * np.log2(share)).sum()), 2 * lost + step**2 / 6 * law.sf(edges[60])


@pytest.mark.parametrize(("ours", "theirs"), LAWS)
@pytest.mark.parametrize("units", [0.3, 2.0])
def test_rates_are_entropies_of_cells(ours, theirs, units):
    bits, lost = brute(theirs, units * theirs.std())
    assert rate_at(ours, lost) == pytest.approx(bits, abs=1e-3)
    assert rate(ours, lost / theirs.var()) == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize(("ours", "theirs"), LAWS)
def test_densities_and_variances(ours, theirs):
    x = np.array([0.0, 1e-200, 0.3, 2.0, 50.0])
    np.testing.assert_allclose(ours.log_density(x), theirs.logpdf(x), rtol=1e-10, atol=1e-12)
    assert ours.variance() == pytest.approx(theirs.var())
    drawn = ours.draw(20_000, 3)
    assert stats.kstest(drawn, theirs.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(drawn, ours.draw(20_000, 3))


@pytest.mark.parametrize(
    ("law", "error", "bits"),
    [
        (Gaussian(), 0.001, 5.24),
        (Gaussian(), 0.01, 3.58),
        (Laplace(), 0.01, 3.48),
        (Student(index=5.0), 0.01, 3.52),
        (Student(index=3.0), 0.01, 3.31),
    ],
)
def test_bits_at_one_per_cent(law, error, bits):
    assert rate(law, error) == pytest.approx(bits, abs=0.01)


def test_a_sample_has_less_variance_than_a_law_whose_variance_hardly_exists():
    """So the bits of 400,000 weights lie above those of the law, and depend on their number."""
    law = Student(index=2.5)
    sampled = sampled_rate(law, 0.01, n=400_000, samples=3)
    assert sampled.bits == pytest.approx(3.12, abs=0.05)
    assert sampled.low <= sampled.bits <= sampled.high
    assert rate(law, 0.01) < sampled.bits


def test_infinite_variance_depends_on_the_number_of_weights():
    few, many = (
        sampled_rate(Student(index=1.5), 0.01, n=n, seed=1, samples=9) for n in (1000, 100_000)
    )
    assert many.bits < few.bits - 0.5
    assert many.kept < few.kept
    two = sampled_rate(Student(index=2.0), 0.01, n=400_000, samples=3)
    assert two.low < 2.42 < two.high


def test_samples_of_a_law_with_all_moments_give_its_rate():
    found = sampled_rate(Gaussian(scale=0.02), 0.01, n=100_000, samples=3)
    assert found.bits == pytest.approx(rate(Gaussian(), 0.01), abs=0.01)
    assert found.kept == pytest.approx(kept(Gaussian(), 0.01), abs=0.003)


# Limits


@given(errors)
def test_the_gaussian_limit_is_shannons(error):
    assert gaussian_limit(error) == pytest.approx(0.5 * math.log2(1 / error))
    assert shannon_lower_bound(Gaussian(scale=7.0), error) == pytest.approx(gaussian_limit(error))


@pytest.mark.parametrize(("ours", "theirs"), LAWS)
def test_the_lower_bound_is_that_of_the_entropy(ours, theirs):
    bits = theirs.entropy() / math.log(2)
    expected = bits - 0.5 * math.log2(2 * math.pi * math.e * 0.01 * theirs.var())
    assert shannon_lower_bound(ours, 0.01) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("law", [law for law, _ in LAWS] + [Student(index=2.05)])
def test_fine_steps_are_a_quarter_of_a_bit_above_the_bound(law):
    """Gish & Pierce (1968): (1/2) log2(pi e / 6)."""
    above = rate(law, 1e-6) - shannon_lower_bound(law, 1e-6)
    assert above == pytest.approx(0.5 * math.log2(math.pi * math.e / 6), abs=2e-3)


@settings(max_examples=8)
@given(st.floats(2.2, 50), errors, errors)
def test_less_error_takes_more_bits_and_more_weights(index, one, other):
    law = Student(index=index)
    low, high = sorted((one, other))
    assert rate(law, low) >= rate(law, high) >= shannon_lower_bound(law, high)
    assert kept(law, low) >= kept(law, high)


@pytest.mark.parametrize(
    ("law", "shares"),
    [
        (Gaussian(), (0.734, 0.552, 0.444)),
        (Laplace(), (0.646, 0.440, 0.331)),
        (Student(index=5.0), (0.697, 0.495, 0.379)),
        (Student(index=3.0), (0.643, 0.415, 0.292)),
    ],
)
def test_shares_kept_by_pruning_alone(law, shares):
    found = [kept(law, error) for error in (0.01, 0.05, 0.1)]
    assert found == pytest.approx(shares, abs=0.002)


@pytest.mark.parametrize(("ours", "theirs"), LAWS)
def test_what_is_not_kept_is_the_error(ours, theirs):
    size = theirs.isf(kept(ours, 0.05) / 2)
    lost = 2 * integrate.quad(lambda x: x * x * theirs.pdf(x), 0, size)[0]
    assert lost == pytest.approx(0.05 * theirs.var(), rel=1e-5)


# Predictions


@pytest.mark.parametrize(
    "law", [Gaussian(), Laplace(), *(Student(index=i) for i in (1.2, 1.5, 2.0, 2.5, 3.0, 8.0))]
)
@pytest.mark.parametrize("error", [0.002, 0.05])
def test_predicted_bits_are_those_of_the_sample(law, error):
    x = law.draw(30_000, 5).astype(np.float32)
    found = predicted_bits(x, error)
    levels = nearest_levels(x, step_within(x, error))
    bits = stats.entropy(np.unique(levels, return_counts=True)[1], base=2)
    assert found.bits == pytest.approx(bits, abs=0.05)


@pytest.mark.parametrize("index", [1.0, 2.0, 4.0])
def test_the_tail_index_is_that_of_the_likeliest_law(index):
    x = 0.02 * stats.t.rvs(index, size=8_000, random_state=2)
    found = predicted_bits(x, 0.01)
    best, _, scale = stats.t.fit(x - np.median(x), floc=0)
    assert found.tail_index == pytest.approx(best, rel=0.01)
    assert found.scale == pytest.approx(scale, rel=0.01)
    assert abs(found.tail_index - index) < 0.15 * index


def test_light_tails_have_no_index():
    x = np.random.default_rng(0).uniform(-1, 1, 5000)
    found = predicted_bits(x, 0.01)
    assert found.tail_index is None
    assert found.bits == pytest.approx(rate(Gaussian(), 0.01), abs=1e-3)
    assert found.n == 5000


@settings(max_examples=6)
@given(st.integers(-20, 20), st.integers(0, 99))
def test_the_prediction_has_no_unit(power, seed):
    x = Student(index=3.0).draw(500, seed)
    one, other = (predicted_bits(x * unit, 0.01) for unit in (1.0, 10.0**power))
    assert other.bits == pytest.approx(one.bits, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones(99), "99 weights, needs 100"),
        (np.zeros(1000), "100 % of the weights are zero"),
        (np.repeat([0.0, 1.5], [30, 170]) + np.linspace(0, 0, 200), "15 % of the weights are zero"),
        (np.tile([1.0, 2.0, 3.0], 100), "only 3 different weights"),
    ],
)
def test_samples_that_no_law_fits(values, reason):
    found = predicted_bits(values, 0.01)
    assert isinstance(found, NoFit)
    assert reason in found.reason


def test_a_prediction_is_not_changed_by_the_order_of_rows():
    """A regular choice of some weights could take the same columns of every row."""
    x = np.tile([0.5, 1.0], 100_000)
    x = x * np.random.default_rng(0).standard_normal(len(x))
    one = predicted_bits(x, 0.01)
    other = predicted_bits(np.random.default_rng(1).permutation(x), 0.01)
    assert isinstance(one, Predicted)
    assert one.bits == pytest.approx(other.bits, abs=0.05)


@pytest.mark.parametrize("error", [0.0, 1.0, -1.0, 2.0])
def test_errors_out_of_range_are_refused(error):
    for function in (rate, kept, shannon_lower_bound):
        with pytest.raises(UsageError, match="must lie between 0 and 1"):
            function(Gaussian(), error)
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        predicted_bits(np.linspace(1, 2, 200), error)


def test_infinite_variance_is_refused():
    with pytest.raises(UsageError, match=r"Student\(index=2.0.*no variance.*use sampled_rate"):
        rate(Student(index=2.0), 0.01)
    with pytest.raises(UsageError, match="tail index must be a positive number, but is -1"):
        Student(index=-1.0)
