"""Goodness-of-fit p-values against plain loops, on true power laws and on others."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from tailor.errors import UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit, TailFit
from tailor.numerics.powerlaw.clauset import RobustClauset
from tailor.numerics.powerlaw.goodness import GoodnessOfFit, p_value


def sample(seed, n, alpha, body=0.6):
    """A body of uniform values below 1 and a Pareto tail of density exponent alpha."""
    generator = np.random.default_rng(seed)
    below = int(body * n)
    tail = generator.pareto(alpha - 1, n - below) + 1
    return np.concatenate([generator.uniform(0.1, 1, below), tail])


def least_distance(x, least):
    """The least KS distance, from every tail's own, by the formulas of the paper."""
    x = np.sort(x)
    distances = []
    for start in range(len(x) - least + 1):
        if start and x[start - 1] == x[start]:
            continue  # the tail of all values at or above xmin began before
        tail = x[start:]
        rate = len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** -rate
        distances.append(np.abs(model - np.searchsorted(tail, tail) / len(tail)).max())
    return min(distances)


def brute_force(values, fit, least, replicates, seed):
    """The p-value of a fit by plain loops over the recipe, with the same random draws."""
    generator = np.random.default_rng(seed)
    below = np.sort(values[values < fit.xmin])
    hits = 0
    for _ in range(replicates):
        in_tail = generator.binomial(len(values), fit.n_tail / len(values))
        body = below[generator.integers(0, len(below), len(values) - in_tail)]
        tail = fit.xmin * np.exp(generator.standard_exponential(in_tail) / (fit.alpha - 1))
        hits += least_distance(np.concatenate([body, tail]), least) >= fit.D
    return hits / replicates


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped(TailFit):
    """Another method as far as p_value can see; counts its fits and can give up after some."""

    method: TailFit
    calls: list = field(default_factory=list)
    until: int = 10**9

    def fit(self, values):
        self.calls.append(len(values))
        if len(self.calls) > self.until:
            return NoFit(reason="tired", n=len(values))
        return self.method.fit(values)


@pytest.mark.parametrize(
    ("method", "least"),
    [(Clauset(), 10), (Clauset(min_tail=2, min_fraction=0.3), 60), (RobustClauset(), 50)],
)
def test_equals_plain_loops_with_the_same_draws(method, least):
    seen = set()
    for seed in range(3):
        values = sample(seed, 200, 2.5)
        fit = method.fit(values)
        assert isinstance(fit, PowerLawFit)
        result = p_value(values, method, replicates=20, seed=seed)
        assert isinstance(result, GoodnessOfFit)
        assert result.p == brute_force(values, fit, least, 20, seed)
        assert (result.D, result.replicates) == (fit.D, 20)
        seen.add(result.p)
    assert len(seen) > 1  # not always 0 or 1


@pytest.mark.parametrize("n", [40, 150, 400])
def test_any_method_gets_the_same_p_value(n):
    values = sample(3, n, 2.2)
    other = Wrapped(method=Clauset())
    assert p_value(values, other, replicates=30, seed=5) == p_value(
        values, Clauset(), replicates=30, seed=5
    )
    assert other.calls == [n] * 31


def test_standard_error_is_binomial():
    result = p_value(sample(0, 200, 2.5), Clauset(), replicates=64)
    assert isinstance(result, GoodnessOfFit)
    assert 0 < result.p < 1
    assert result.error == pytest.approx(np.sqrt(result.p * (1 - result.p) / 64))


def test_power_laws_are_not_rejected_too_often():
    """P-values of 100 Pareto samples are spread evenly; 17 of 100 below 0.1 come once in 100."""
    samples = [np.random.default_rng(seed).pareto(1.5, 120) + 1 for seed in range(100)]
    p = np.array([p_value(values, Clauset(), replicates=40).p for values in samples])
    assert np.count_nonzero(p <= 0.1) < 17
    assert np.quantile(p, [0.25, 0.75]) == pytest.approx([0.25, 0.75], abs=0.15)


@pytest.mark.parametrize("kind", ["exponential", "lognormal"])
def test_other_distributions_are_rejected_more_often(kind):
    generator = np.random.default_rng(1)
    samples = [getattr(generator, kind)(size=2000) for _ in range(20)]
    p = np.array([p_value(values, Clauset(), replicates=40).p for values in samples])
    assert np.count_nonzero(p <= 0.1) >= 8


def test_a_lattice_far_from_any_power_law_is_rejected():
    values = np.repeat(np.arange(1.0, 31.0), 20)
    result = p_value(values, Clauset())
    assert isinstance(result, GoodnessOfFit)
    assert (result.p, result.error, result.replicates) == (0, 0, 100)


def test_seed_decides():
    values = sample(1, 100, 2.5)
    results = [p_value(values, Clauset(), seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert results[0] == results[1]
    assert len({result.p for result in results}) > 1


def test_scale_order_and_other_values_do_not_matter():
    values = sample(2, 150, 2.5)
    expected = p_value(values, Clauset())
    assert isinstance(expected, GoodnessOfFit)
    for same in (values[::-1], np.concatenate([values, np.zeros(30), -values]), 1e-5 * values):
        result = p_value(same, Clauset())
        assert isinstance(result, GoodnessOfFit)
        assert (result.p, result.D) == (expected.p, pytest.approx(expected.D, rel=1e-9))


def test_only_the_largest_are_replicated():
    values = sample(4, 600, 2.5)
    kept = np.sort(values)[-300:]
    assert p_value(values, Clauset(largest=300)) == p_value(kept, Clauset())


def test_intervals_are_not_computed_along_the_way():
    values = sample(5, 120, 2.5)
    quick = Clauset(bootstrap=10**9)  # would never end
    assert p_value(values, quick) == p_value(values, Clauset())


def test_no_fit_is_no_p_value():
    assert p_value(np.ones(50), Clauset()) == NoFit(reason="1 different values, needs 20", n=50)


def test_replicates_without_a_fit_do_not_count():
    values = sample(6, 100, 2.5)
    half = p_value(values, Wrapped(method=Clauset(), until=11), replicates=20)
    assert isinstance(half, GoodnessOfFit)
    assert half.replicates == 10
    fewer = p_value(values, Wrapped(method=Clauset(), until=10), replicates=20)
    assert fewer == NoFit(reason="only 9 of 20 replicates have a fit", n=100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p_value(np.ones(50), Clauset(), replicates=0), "at least 1 replicate"),
        (lambda: p_value(np.array([1.0, np.nan]), Clauset()), "finite values"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call()
