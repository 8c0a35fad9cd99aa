"""Sparsity-informed adaptive pruning, written out weight by weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.numerics.compressibility import pq_index
from tailor.stages.allocate import PQIndex
from tests.stages.allocate.layers import SCORE, layers, random


def dropped(values, p=0.5, q=1.0, gamma=1.0, beta=0.9, eta=0.0):
    """How many of these weights are zero after one round, by the published formulas."""
    alive = [abs(float(v)) for v in values if float(v) != 0]
    d = len(alive)
    if d == 0:
        return len(values)
    norms = [math.fsum(a**r for a in alive) ** (1 / r) for r in (p, q)]
    index = 1 - d ** (1 / q - 1 / p) * norms[0] / norms[1]
    stay = d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (q * p / (q - p))
    ratio = min(max(gamma * (1 - stay / d), 0), beta)
    return len(values) - d + math.floor(d * ratio)


def with_zeros(seed):
    tensors = random(seed)
    tensors["blocks.0.w"][:, 2] = 0.0
    tensors["blocks.1.w"][3] = 0.0
    return tensors


OPTIONS = st.sampled_from(
    [
        {},
        {"p": 1.0, "q": 2.0},
        {"gamma": 5.0},
        {"beta": 0.05},
        {"eta": 0.1},
        {"p": 0.2, "gamma": 2.0},
    ]
)


@settings(max_examples=25)
@given(st.integers(0, 99), OPTIONS)
def test_the_published_rule_in_each_scope(seed, options):
    tensors = with_zeros(seed)
    by_layer = PQIndex(**options).allocate(layers(tensors), None, score=SCORE)
    by_row = PQIndex(**options, scope="row").allocate(layers(tensors), None, score=SCORE)
    for name, w in tensors.items():
        assert by_layer.drop[name] == dropped(w.flatten(), **options)
        assert by_row.drop[name] == tuple(dropped(row, **options) for row in w)
    of_all = PQIndex(**options, scope="model").allocate(layers(tensors), None, score=SCORE)
    every = torch.cat([w.flatten() for w in tensors.values()])
    total = dropped(every, **options)
    assert sum(of_all.drop.values()) == total
    threshold = every.abs().sort().values[total - 1]
    for name, w in tensors.items():
        assert of_all.drop[name] == int((w.abs() <= threshold).sum())


def test_the_metric_is_the_index_of_what_is_left():
    w = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    w[:10] = 0.0
    found = PQIndex(p=1.0, q=2.0).allocate(layers({"w": w}), None, score=SCORE)
    assert found.metric["w"] == pytest.approx(pq_index(w[10:].double().flatten().numpy(), 1.0, 2.0))


def test_the_bound_is_one():
    """No fewer weights than the bound says hold 1 / (1 + eta) of the power sum."""
    w = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    powers = w.abs().flatten().sort().values.sqrt()
    for eta in (0.0, 0.1, 0.5):
        rule = PQIndex(eta=eta, beta=0.99)
        drop = rule.allocate(layers({"w": w}), None, score=SCORE).drop["w"]
        least = w.numel() - drop
        enough = (powers.flip(0).cumsum(0) * (1 + eta) >= powers.sum() * (1 - 1e-12)).tolist()
        assert enough.index(True) + 1 >= least > 160  # not the cap


def test_equal_and_zero_weights_lose_nothing_more():
    for w in (torch.full((3, 4), 0.1), torch.zeros(3, 4), torch.tensor([[5.0]]), torch.zeros(0, 4)):
        zeros = int((w == 0).sum())
        for scope in ("layer", "row", "model"):
            found = PQIndex(scope=scope).allocate(layers({"w": w}), None, score=SCORE)
            assert found.dropped("w") == zeros
            assert found.metric["w"] == 0.0


def test_refusals():
    with pytest.raises(UsageError, match=r"p and q need 0 < p < q, but are 1\.0 and 1\.0"):
        PQIndex(p=1.0)
    with pytest.raises(UsageError, match=r"gamma and eta must be at least 0 and beta in \[0, 1\)"):
        PQIndex(beta=1.0)
    with pytest.raises(
        UsageError, match="scope must be 'layer', 'row' or 'model', but is 'neuron'"
    ):
        PQIndex(scope="neuron")
    with pytest.raises(UsageError, match=r"finds its own sparsity, so give None, not 0\.5"):
        PQIndex().allocate(layers({"w": torch.ones(2, 2)}), 0.5, score=SCORE)
