"""WeightWatcherCompat against numbers that WeightWatcher 0.7.7 itself gave."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.powerlaw.fit import NoFit, PowerLawFit
from tailor.numerics.powerlaw.weightwatcher import WeightWatcherCompat

SMALL_TIES = [1.0, 1.5, 1.5, 1.5, 2.0, 2.2, 3.0, 3.0, 4.5, 9.0]
TIES = [0.5, 0.6, 0.6, 0.7, 0.8, *[1.0] * 4, 1.2, 1.2, *[1.5] * 5, *[2.0] * 3, 3.0, 3.0, 4, 4, 7]
# Two thresholds have the same distance to the last bit, the share 1/8 below a repeated xmin.
EQUAL_DISTANCES = [1.0, 1, 1, 1.1, 1.2, 1.2, 1.2, 1.4, 1.4, 1.4, 1.5, 1.6, 1.7, 2.2, 2.3, 4.4]
LARGE_TIES = [
    *[1.0, 1.1, 1.1, 1.2, 1.3, 1.3, 1.3, 1.5, 1.6, 1.7, 1.7, 2.0, 2.2, 2.2],
    *[2.5, 3.0, 3.0, 3.5, 4.2, 4.2, 5.0, 6.5, 8.0, 8.0, 13.0],
]


def wave(rows, columns, decay):
    """A matrix that needs no random numbers, with columns of falling size."""
    i, j = np.arange(1, rows + 1)[:, None], np.arange(1, columns + 1)[None, :]
    return np.sin(1.7 * i * j + 0.3 * i * i) * (j**-decay + 0.2)


def spectrum(matrix, factor=1.0):
    """Eigenvalues of the matrix as float32 holds it, then times a factor."""
    return np.linalg.svd(factor * np.float32(matrix).astype(float), compute_uv=False) ** 2


# WeightWatcher(model).analyze(min_evals=2) of version 0.7.7, on one Linear layer that holds
# scale * wave(rows, columns, decay): alpha, xmin, D, sigma, num_pl_spikes. It reads weights in
# float32. The last two have fewer than 20 values; 4e-3 leaves 37 of 40 above the 1e-5.
DENSE = [
    (60, 40, 0.7, 1, 2.5222720724972167, 3.584203730053706, 0.06146639791253328, 0.34923316466, 19),
    (90, 90, 0.4, 1, 3.35026999406956, 13.304927896023264, 0.061939687098263585, 0.4364341814, 29),
    (
        200,
        120,
        1.0,
        1,
        3.205804365564922,
        6.602533869124681,
        0.07138409753346583,
        0.33638201218,
        43,
    ),
    (60, 40, 0.7, 4e-3, 2.522272075704179, 5.734725976463e-05, 0.06146638754894, 0.3492331654, 19),
    (30, 12, 0.5, 1, 2.2938752518277647, 3.0647885885240527, 0.08799196205853543, 0.390118067, 11),
    (25, 19, 0.5, 1, 2.9968222595461844, 4.602562882147123, 0.09483894793722358, 0.6656074198, 9),
]

# weightwatcher.WW_powerlaw.WWFit of the same version on values with ties: alpha, xmin, D, sigma
# and the number of values from xmin on.
TIED = [
    (LARGE_TIES, 2.0960902076506875, 1.0, 0.1000616038604415, 0.21921804153013752, 25),
    (TIES, 2.6685498382007076, 1.0, 0.17583696286720762, 0.38279158563042237, 19),
    (SMALL_TIES, 2.414901618278565, 1.5, 0.125, 0.5002432644982967, 9),
    (EQUAL_DISTANCES, 3.43476471091238, 1.0, 0.125, 0.608691177728095, 16),
]


@pytest.mark.parametrize("row", DENSE)
def test_equals_weightwatcher_on_matrices(row):
    rows, columns, decay, scale, *told, spikes = row
    fit = WeightWatcherCompat().fit(spectrum(scale * wave(rows, columns, decay)))
    assert isinstance(fit, PowerLawFit)
    assert [fit.alpha, fit.xmin, fit.D, fit.sigma] == pytest.approx(told, rel=1e-9)
    assert fit.n_tail == spikes


def test_equals_weightwatcher_on_a_convolution():
    """Eigenvalues of the nine 16 x 8 kernel positions pooled, each times sqrt(1/2).

    WeightWatcher 0.7.7 on a Conv2d(8, 16, 3) with these weights.
    """
    taps = [spectrum(wave(16, 8, 0.1 * k + 0.2), np.sqrt(0.5)) for k in range(9)]
    fit = WeightWatcherCompat().fit(np.concatenate(taps))
    given = (fit.alpha, fit.xmin, fit.D, fit.sigma)
    told = (32.444223883666865, 7.742616592337425, 0.0993354921453169, 10.481407961222288)
    assert given == pytest.approx(told, rel=1e-9)
    assert (fit.n_tail, fit.n) == (9, 72)


@pytest.mark.parametrize(("values", "alpha", "xmin", "distance", "sigma", "spikes"), TIED)
def test_equals_weightwatcher_with_ties(values, alpha, xmin, distance, sigma, spikes):
    fit = WeightWatcherCompat().fit(np.array(values, dtype=float))
    given = (fit.alpha, fit.xmin, fit.D, fit.sigma)
    assert given == pytest.approx((alpha, xmin, distance, sigma), rel=1e-12)
    assert fit.n_tail == spikes


def test_few_values_are_one_tail():
    """Below 8 values all are the tail; sigma is ours, WeightWatcher gives -0.447 for it."""
    matrix = 1e-3 * wave(60, 40, 0.7)
    told = (2.4889878233712537, 1.0080670422649775e-05, 0.09214464395546373)
    fit = WeightWatcherCompat().fit(spectrum(matrix))
    assert (fit.alpha, fit.xmin, fit.D) == pytest.approx(told, rel=1e-9)
    assert (fit.n_tail, fit.n) == (5, 5)
    assert fit.sigma == pytest.approx((told[0] - 1) / np.sqrt(5))
    five = WeightWatcherCompat().fit(np.array([1.0, 2, 2, 4, 9]))
    assert (five.alpha, five.xmin, five.D) == pytest.approx((1.804859208763689, 1, 0.2275820607))


def by_loops(values):
    """(D, start, alpha) by the rule for 20 values or more, as the program's loop states it."""
    x = np.sort(values)
    best = (np.inf, None, None)
    for start in range(len(x) - 1):
        tail = x[start:]
        if tail[0] == tail[-1]:
            continue
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        distance = np.abs(model - np.arange(len(tail)) / len(tail)).max()
        best = min(best, (distance, start, alpha), key=lambda found: found[0])
    return best


@given(st.integers(0, 10**6), st.integers(20, 120), st.floats(1.5, 6), st.sampled_from([1, 2, 9]))
def test_equals_the_rule_written_out(seed, n, alpha, digits):
    """With few digits many values are equal, and a tail may begin between equals."""
    values = np.round(np.random.default_rng(seed).pareto(alpha - 1, n) + 1, digits)
    fit = WeightWatcherCompat().fit(values)
    distance, start, exponent = by_loops(values)
    assert isinstance(fit, PowerLawFit)
    assert pytest.approx(distance, abs=1e-12) == fit.D
    assert fit.alpha == pytest.approx(exponent, rel=1e-9)
    assert fit.sigma == pytest.approx((exponent - 1) / np.sqrt(n - start), rel=1e-9)
    assert fit.n_tail == (values >= np.sort(values)[start]).sum()


def test_alpha_depends_on_the_scale_of_the_values():
    """The defect that comes with the program: 1, 1e-3 and 1e-4 times the same matrix."""
    values = spectrum(wave(60, 40, 0.7))
    fits = [WeightWatcherCompat().fit(scale**2 * values) for scale in (1, 4e-3, 1e-3, 1e-4)]
    assert fits[0].alpha == pytest.approx(fits[1].alpha, rel=1e-6)
    assert abs(fits[2].alpha - fits[0].alpha) > 0.02
    assert isinstance(fits[3], NoFit)


@pytest.mark.parametrize(
    ("values", "reason", "n"),
    [
        (np.array([3.0]), "1 values above 1e-05, needs 2", 1),
        (np.full(50, 1e-5), "0 values above 1e-05, needs 2", 0),
        (np.full(30, 2.0), "the values above 1e-05 are all equal", 30),
        (np.full(12, 2.0), "the values above 1e-05 are all equal", 12),
        (np.full(5, 2.0), "the values above 1e-05 are all equal", 5),
    ],
)
def test_no_fit_says_why(values, reason, n):
    fit = WeightWatcherCompat().fit(values)
    assert isinstance(fit, NoFit)
    assert fit.n == n
    assert re.search(reason, fit.reason)


def test_refuses_values_that_are_not_finite():
    with pytest.raises(UsageError, match="finite values"):
        WeightWatcherCompat().fit(np.array([1.0, np.inf]))
