"""Bounded losses, subsamples, lengths of messages, transfer and the split of delta."""

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.bounds import (
    disagreement_upper,
    elias_delta_bits,
    held_out_upper,
    kl_upper,
    occam,
    occam_bounded,
    smoothing_range,
    split_delta,
    subsampled_upper,
    universal_bits,
)
from tests.numerics.bounds.exact import counts, few
from tests.numerics.bounds.exact import kl as entropy


@few
@given(counts, st.floats(0, 500), st.floats(1e-6, 0.5), st.floats(0.1, 30))
def test_a_bounded_loss_is_the_rescaled_one(count, bits, delta, width):
    errors, n = count
    unit = occam(errors, n, bits, delta)
    found = occam_bounded(errors / n * width, n, bits, delta, width)
    assert found.kl == pytest.approx(unit.kl * width, rel=1e-9)
    assert found.hoeffding == pytest.approx(unit.hoeffding * width, rel=1e-9)
    assert found.empirical <= found.kl <= found.hoeffding + 1e-9 <= width + 1e-9
    with mpmath.workdps(60):  # outward
        level = (mpmath.mpf(bits) * mpmath.log(2) - mpmath.log(mpmath.mpf(delta))) / n
        share = mpmath.mpf(found.kl) / mpmath.mpf(width)
        assert found.kl == width or entropy(found.empirical / width, share) >= level * (1 - 1e-14)


@given(st.integers(1, 10**6), st.floats(1e-6, 0.999))
def test_the_range_of_a_smoothed_prediction(vocabulary, alpha):
    found = smoothing_range(vocabulary, alpha)
    with mpmath.workdps(60):
        a = mpmath.mpf(alpha)
        worst, best = -mpmath.log(a / vocabulary, 2), -mpmath.log(1 - a + a / vocabulary, 2)
        assert 0 <= found - (worst - best) < 1e-12


def test_subsampled_risks():
    assert subsampled_upper(0.0, 100, 0.01, 2.0) == pytest.approx(2 * (1 - 0.01**0.01), rel=1e-9)
    assert subsampled_upper(3.0, 100, 0.01, 3.0) == 3.0
    found = subsampled_upper(0.5, 1000, 0.01, 4.0)
    assert found == pytest.approx(4 * kl_upper(0.125, math.log(100) / 1000), rel=1e-12)
    assert held_out_upper(125, 1000, 0.01) < found / 4  # counts have the tighter form


def test_universal_lengths_keep_kraft():
    """All messages of all lengths: 2^l of them at each length l, so sum 6 / (pi l)^2 = 1."""
    taken = math.fsum(2.0 ** (length - universal_bits(length)) for length in range(1, 1001))
    assert 1 - 1 / 1000 < taken <= 1
    plain = math.fsum(length**-2 for length in range(1, 1001))
    assert plain > 1.6  # l + 2 log2 l alone is no code
    assert universal_bits(4280) == pytest.approx(4280 + 24.1268 + 0.7180, abs=1e-3)


def test_elias_delta_lengths():
    # the code's own words: 1, 0100, 0101, 01100, 01101, 01110, 01111, 00100000, ...
    assert [elias_delta_bits(x) for x in (1, 2, 3, 4, 5, 6, 7, 8)] == [1, 4, 4, 5, 5, 5, 5, 8]
    assert elias_delta_bits(10**6) == 28
    assert math.fsum(2.0 ** -elias_delta_bits(x) for x in range(1, 1 << 14)) <= 1


@few
@given(st.floats(0, 1), counts, st.floats(1e-6, 0.5))
def test_a_risk_moves_by_the_disagreement(risk, count, delta):
    changed, m = count
    found = disagreement_upper(risk, changed, m, delta)
    assert found == pytest.approx(min(1.0, risk + held_out_upper(changed, m, delta)), rel=1e-12)
    assert risk <= found <= 1


@given(
    st.floats(1e-6, 0.5), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(1, 9)
)
def test_parts_of_delta_never_add_up_to_more(total, first, second, third, certificates):
    split = split_delta(
        total,
        monte_carlo=total * first,
        subsample=total * second,
        disagreement=total * third,
        certificates=certificates,
    )
    parts = (split.bound, split.monte_carlo, split.subsample, split.disagreement)
    assert min(parts) >= 0
    assert math.fsum(parts * certificates) <= total
    assert split.each * certificates == pytest.approx(total, rel=1e-12)


def test_the_usual_split():
    split = split_delta(0.05, monte_carlo=0.01)
    assert (split.bound, split.monte_carlo, split.each) == (pytest.approx(0.04), 0.01, 0.05)
    assert split_delta(0.05, certificates=4).bound == 0.0125


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: occam_bounded(3.0, 10, 1, 0.05, 2.0), "between 0 and 2.0, but is 3.0"),
        (lambda: occam_bounded(0.0, 10, 1, 0.05, math.inf), "loss_range must be a finite number"),
        (lambda: smoothing_range(0, 0.1), "at least one symbol, but has 0"),
        (lambda: smoothing_range(10, 1.0), "alpha must lie strictly between 0 and 1"),
        (lambda: subsampled_upper(0.1, 0, 0.05, 1.0), "at least one example"),
        (lambda: universal_bits(0), "a message must count at least 1, but is 0"),
        (lambda: elias_delta_bits(0), "a number must count at least 1, but is 0"),
        (lambda: disagreement_upper(1.5, 1, 10, 0.05), "a risk must lie between 0 and 1"),
        (lambda: split_delta(0.05, monte_carlo=0.05), "each part must lie between 0 and delta"),
        (lambda: split_delta(0.05, subsample=-0.1), "each part must lie between 0 and delta"),
        (lambda: split_delta(0.05, monte_carlo=0.03, subsample=0.03), "leave nothing of delta"),
        (lambda: split_delta(0.05, certificates=0), "1 or more certificates, but got 0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
