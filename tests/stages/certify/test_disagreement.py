"""The dense network through the compressed one: R(f) <= R(g) + P(f != g)."""

import pytest
import torch
from scipy import stats
from torch import nn

from tailor.errors import TaskError, UsageError
from tailor.stages.certify.disagreement import disagreement
from tailor.tasks import Data, zero_one


class Table(nn.Module):
    """Scores that were written down, by number of the input."""

    def __init__(self, scores):
        super().__init__()
        self.register_buffer("scores", torch.tensor(scores, dtype=torch.float64))

    def forward(self, x):
        return self.scores[x[:, 0].long()]


def random_network(seed, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(5, 3, bias=False)
    weight = torch.randn(3, 5, generator=generator)
    shift = torch.randn(3, 5, generator=torch.Generator().manual_seed(99))
    layer.weight = nn.Parameter(weight + noise * shift)
    return layer


def inputs(n, seed):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_counts_and_bound_are_those_of_scipy():
    f, g, x = random_network(0), random_network(0, 0.3), inputs(400, 1)
    found = disagreement(f, g, x, 0.01)
    apart = int((f(x).argmax(1) != g(x).argmax(1)).sum())
    assert 0 < apart < 400
    assert (found.n, found.disagreements) == (400, apart)
    exact = stats.beta.ppf(0.99, apart + 1, 400 - apart)
    assert exact <= found.upper <= exact + 1e-9


def test_the_inequality_holds_on_any_sample_for_the_counts_themselves():
    """R(f) <= R(g) + P(f != g) is true for the empirical distribution of every sample."""
    for seed in range(20):
        f, g, x = random_network(seed), random_network(seed, 0.5), inputs(50, seed)
        y = torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(seed))
        errors = [int(zero_one(one, Data(x=x, y=y)).sum()) for one in (f, g)]
        assert errors[0] <= errors[1] + disagreement(f, g, x, 0.1).disagreements


def test_the_bound_covers_the_true_rate_as_often_as_it_says():
    f, g = random_network(3), random_network(3, 0.2)
    many = disagreement(f, g, inputs(100_000, 7), 0.5)
    rate = many.disagreements / many.n
    missed = sum(disagreement(f, g, inputs(60, seed), 0.2).upper < rate for seed in range(200))
    assert missed <= stats.binom.ppf(0.9999, 200, 0.2)
    assert missed > 0


def test_ties_and_nan_are_disagreements():
    nan = float("nan")
    f = Table([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [nan, 1.0], [0.0, 1.0]])
    g = Table([[2.0, 0.0], [2.0, 0.0], [1.0, 1.0 + 1e-12], [0.0, 1.0], [0.0, 3.0]])
    x = torch.arange(5)[:, None]
    assert disagreement(f, g, x, 0.05).disagreements == 3
    assert disagreement(g, f, x, 0.05).disagreements == 3


def test_same_network_gives_the_rule_of_three():
    f = random_network(0)
    found = disagreement(f, f, inputs(1000, 0), 0.05)
    assert found.disagreements == 0
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert found.carried(0.1) == pytest.approx(0.1 + found.upper, rel=1e-12)
    assert found.carried(0.1) >= 0.1 + found.upper
    assert found.carried(1.0) == 1.0


def test_networks_are_left_as_they_were():
    f = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)).train()
    found = disagreement(f, f, inputs(100, 0), 0.05)
    assert found.disagreements == 0
    assert f.training
    assert f[0].weight.dtype == torch.float32


def test_hash_tells_inputs_apart():
    f = random_network(0)
    assert (
        disagreement(f, f, inputs(10, 0), 0.05).inputs_sha256
        != disagreement(f, f, inputs(10, 1), 0.05).inputs_sha256
    )


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_delta(delta):
    with pytest.raises(UsageError, match="strictly between 0 and 1"):
        disagreement(random_network(0), random_network(1), inputs(4, 0), delta)


def test_refuses_no_inputs_and_other_classes():
    f = random_network(0)
    with pytest.raises(UsageError, match="no unlabelled inputs"):
        disagreement(f, f, inputs(0, 0), 0.05)
    with pytest.raises(TaskError, match="3 and 4 classes"):
        disagreement(f, nn.Linear(5, 4), inputs(4, 0), 0.05)
    with pytest.raises(TaskError, match="cannot be run"):
        disagreement(f, nn.Linear(6, 3), inputs(4, 0), 0.05)
    with pytest.raises(TaskError, match="two class scores or more"):
        disagreement(nn.Linear(5, 1), nn.Linear(5, 1), inputs(4, 0), 0.05)
    with pytest.raises(UsageError, match="risk"):
        disagreement(f, f, inputs(4, 0), 0.05).carried(1.2)
