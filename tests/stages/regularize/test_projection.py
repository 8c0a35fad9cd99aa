"""The nearest matrix of a given stable rank, against a search over all scalings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tailor.errors import UsageError
from tailor.stages.regularize import StableRankProjection, project_stable_rank


def stable_rank(W):
    return float(W.square().sum() / torch.linalg.matrix_norm(W, 2) ** 2)


def random(p, q, seed):
    return torch.randn(p, q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 20), st.integers(2, 20), st.floats(1, 8), st.integers(0, 99), st.booleans())
def test_the_limit_holds_and_nothing_changes_within_it(p, q, rank, seed, keep_top):
    W = random(p, q, seed)
    found = project_stable_rank(W, rank, keep_top=keep_top)
    assert stable_rank(found) <= rank * (1 + 1e-9)
    if stable_rank(W) <= rank:
        assert torch.equal(found, W)
    else:
        assert stable_rank(found) == pytest.approx(rank)
    if keep_top:
        tops = [float(torch.linalg.matrix_norm(one, 2)) for one in (found, W)]
        assert tops[0] == pytest.approx(tops[1])


@pytest.mark.parametrize("rank", [1.5, 2, 4, 6])
def test_no_other_singular_values_of_that_stable_rank_are_nearer(rank):
    """Brute force: the top takes any size, the rest is then best scaled alike, to the limit."""
    W = random(12, 20, 1)
    S = torch.linalg.svdvals(W)
    rest = float(S[1:].norm())
    sizes = torch.linspace(0.2, 6, 200_001, dtype=torch.float64) * S[0]
    allowed = (rank - 1) ** 0.5 * sizes
    distances = (sizes - S[0]) ** 2 + (allowed.clamp(max=rest) - rest) ** 2
    found = project_stable_rank(W, rank)
    assert float((found - W).norm()) == pytest.approx(
        float(distances.min()) ** 0.5, rel=1e-6, abs=1e-3
    )
    kept = project_stable_rank(W, rank, keep_top=True)
    assert float((kept - W).norm()) >= float((found - W).norm())


def test_a_model_is_projected_in_place_and_after_each_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 12), nn.Conv2d(3, 8, 3))
    projection = StableRankProjection(rank=3.0, skip="1.*")
    expected = project_stable_rank(model[0].weight.detach(), 3.0)
    untouched = model[1].weight.detach().clone()
    projection(model)
    torch.testing.assert_close(model[0].weight.detach(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(model[1].weight, untouched)
    assert stable_rank(model[2].weight.detach().flatten(1)) <= 3.01
    optimizer = torch.optim.SGD(model[:2].parameters(), lr=0.5)
    handle = StableRankProjection(rank=2.0, layers="?.weight").attach(model, optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        model[:2](torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
    assert stable_rank(model[0].weight.detach()) <= 2.02
    handle.remove()
    for _ in range(200):
        optimizer.zero_grad()
        (model[0](torch.randn(8, 20)) - torch.randn(8, 30)).square().mean().backward()
        optimizer.step()
    assert stable_rank(model[0].weight.detach()) > 2.1  # it was the projection


def test_refusals():
    with pytest.raises(UsageError, match="at least 1, but rank is"):
        project_stable_rank(torch.eye(3), 0.5)
    with pytest.raises(UsageError, match="at least 1"):
        StableRankProjection(rank=float("nan"))
