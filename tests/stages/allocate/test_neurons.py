"""A number of weights for each neuron, from what its output may change by."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.allocate import LqPerNeuron
from tests.stages.allocate.layers import SCORE, layers


def allocated(rule, w):
    return rule.allocate(layers({"w": w}), None, score=SCORE)


def norm(values, r):
    return float(torch.linalg.vector_norm(values, r)) if len(values) else 0.0


RULES = st.tuples(
    st.floats(0.05, 3), st.sampled_from([(0.5, 2.0), (1.0, 2.0), (0.25, 1.0), (0.5, math.inf)])
)


@settings(max_examples=30)
@given(st.integers(0, 999), RULES, st.floats(0.5, 4))
def test_the_exact_count_is_the_largest_and_the_bound_is_one(seed, rule, bound):
    tolerance, (q, r) = rule
    w = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    w[1] *= 100  # no row is within the tolerance as a whole, and one is far from it
    w[:, 0] += 20
    options = {"tolerance": tolerance, "bound": bound, "q": q, "r": r}
    exact = allocated(LqPerNeuron(**options), w)
    safe = allocated(LqPerNeuron(**options, exact=False), w)
    changes = []
    for row, drop, less in zip(
        w.abs().sort(dim=1).values, exact.drop["w"], safe.drop["w"], strict=True
    ):
        changes.append(bound * norm(row[:drop], r))
        assert changes[-1] <= tolerance * (1 + 1e-12)
        assert bound * norm(row[: drop + 1], r) > tolerance * (1 - 1e-12)
        assert less <= drop
        enough = math.ceil((bound * norm(row, q) / tolerance) ** (1 / (1 / q - 1 / r)))
        assert less == max(0, 12 - max(1, enough))
    assert exact.metric["w"] == pytest.approx(max(changes), rel=1e-9, abs=1e-12)


def test_outputs_stay_within_the_tolerance():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(20, 60, generator=generator, dtype=torch.float64)
    x = torch.randn(500, 60, generator=generator, dtype=torch.float64)
    longest = float(x.norm(dim=1).max())
    found = allocated(LqPerNeuron(tolerance=5.0, bound=longest), w)
    pruned = SCORE.prune(w, list(found.drop["w"])).matrix
    assert int((pruned == 0).sum()) == found.dropped("w") > 0
    assert float((x @ (w - pruned).mT).abs().max()) <= found.metric["w"] <= 5.0


def test_rows_of_zeros_go_and_a_matrix_does_not():
    w = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert allocated(LqPerNeuron(tolerance=0.1), w).drop["w"] == (2, 0)
    assert allocated(LqPerNeuron(tolerance=0.1, exact=False), w).drop["w"] == (2, 0)
    assert allocated(LqPerNeuron(tolerance=0.1), torch.zeros(0, 3)).drop["w"] == ()
    with pytest.raises(UsageError, match="would drop all 4 weights of w; ask for less"):
        allocated(LqPerNeuron(tolerance=6.0), w)


def test_refusals():
    with pytest.raises(
        UsageError, match=r"q and r need 0 < q < r and r >= 1, but are 2\.0 and 2\.0"
    ):
        LqPerNeuron(tolerance=1.0, q=2.0)
    with pytest.raises(
        UsageError, match="tolerance and bound must be above 0 and finite, but are nan"
    ):
        LqPerNeuron(tolerance=float("nan"))
    with pytest.raises(UsageError, match=r"finds its own sparsity, so give None, not 0\.5"):
        LqPerNeuron(tolerance=1.0).allocate(layers({"w": torch.ones(2, 2)}), 0.5, score=SCORE)
