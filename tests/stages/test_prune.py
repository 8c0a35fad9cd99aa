"""Magnitude pruning: how many, which, and what does not matter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor.errors import UsageError
from tailor.stages.prune import Magnitude


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(6, 7, generator=generator),
        "b": 100 * torch.randn(3, 6, generator=generator),
    }


@given(st.floats(0, 0.999), st.integers(0, 50))
def test_keeps_the_asked_share(sparsity, seed):
    keep = Magnitude(sparsity=sparsity).keep(weights(seed))
    assert sum(int(k.sum()) for k in keep.values()) == 60 - round(60 * sparsity)


@given(st.floats(0, 0.99), st.integers(0, 50))
def test_keeps_the_largest_in_units_of_each_tensors_rms(sparsity, seed):
    given_weights = weights(seed)
    keep = Magnitude(sparsity=sparsity).keep(given_weights)
    sizes = {
        n: w.abs().double() / w.double().square().mean().sqrt() for n, w in given_weights.items()
    }
    kept = torch.cat([sizes[n][keep[n]] for n in keep])
    dropped = torch.cat([sizes[n][~keep[n]] for n in keep])
    if len(kept) and len(dropped):
        assert kept.min() > dropped.max()


def test_the_scale_of_a_layer_does_not_matter():
    one, other = weights(), weights()
    other["b"] = other["b"] * 1e-6
    first, second = Magnitude(sparsity=0.5).keep(one), Magnitude(sparsity=0.5).keep(other)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_zeros_are_never_kept_and_do_not_count_in_the_rms():
    sparse = {"a": torch.tensor([[0.0, 0.0, 1.0, -2.0]])}
    keep = Magnitude(sparsity=0.0).keep(sparse)
    assert keep["a"].tolist() == [[False, False, True, True]]


def test_ties_are_dropped_together():
    keep = Magnitude(sparsity=0.5).keep({"a": torch.tensor([[1.0, 1.0, 1.0, 2.0]])})
    assert keep["a"].tolist() == [[False, False, False, True]]


def test_all_zero_tensor():
    keep = Magnitude(sparsity=0.5).keep({"a": torch.zeros(2, 2)})
    assert not keep["a"].any()


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_refusals(sparsity):
    with pytest.raises(UsageError, match=r"sparsity must lie in \[0, 1\)"):
        Magnitude(sparsity=sparsity)
