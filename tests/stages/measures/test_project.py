"""Matrix-Project: unbiased, with the error that theory gives, and too few for what is printed."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tailor.errors import UsageError
from tailor.stages.measures import GaussianNoise, MatrixProjectNoise, matrix_project
from tailor.stages.measures.chain import chain_of, outputs
from tests.stages.measures.networks import mlp, vectors


def matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_projection_is_the_inner_product_times_the_signs():
    A = matrix(3, 4)
    corner = torch.zeros(3, 4)
    corner[0, 0] = 1
    signs = matrix_project(corner, 1, seed=5)  # of the first sign times all of them
    assert set(signs.flatten().tolist()) == {1.0, -1.0}
    assert torch.allclose(matrix_project(A, 1, seed=5), (A * signs).sum() * signs)


def test_several_projections_are_their_average():
    basis = torch.eye(12).reshape(12, 3, 4)
    G = torch.stack([matrix_project(e, 7, seed=5).flatten() for e in basis])
    assert torch.allclose(G, G.T)
    assert torch.allclose(G.diagonal(), torch.ones(12).double())
    values = torch.linalg.eigvalsh(G)
    assert int((values > 1e-9).sum()) == 7
    assert float(values.min()) > -1e-9
    A = matrix(3, 4)
    assert torch.allclose(matrix_project(A, 7, seed=5).flatten(), G @ A.flatten())


@pytest.mark.parametrize(("shape", "count"), [((4, 5), 10), ((4, 5), 80), ((30,), 15)])
def test_mean_squared_error_is_size_less_one_over_count(shape, count):
    """E ||B - A||^2 = (N - 1) / k ||A||^2, within four standard errors."""
    A = matrix(*shape)
    size, norm = A.numel(), float(A.square().sum())
    draws = [float((matrix_project(A, count, s) - A).square().sum()) / norm for s in range(1000)]
    expected = (size - 1) / count
    assert abs(np.mean(draws) - expected) < 4 * stats.sem(draws)
    assert stats.sem(draws) < 0.05 * expected


def test_it_is_unbiased():
    A = matrix(3, 3)
    draws = torch.stack([matrix_project(A, 4, seed) for seed in range(2000)])
    off = (draws.mean(dim=0) - A).abs() / (draws.std(dim=0) / math.sqrt(2000))
    assert float(off.max()) < 4.5


def test_the_printed_number_of_projections_fails_too_often_and_the_larger_one_does_not():
    """k = ln(1/eta) / eps^2 promises to miss u'Av by eps |A| |u| |v| with probability eta.

    For A = uv' the estimate has variance 2/k, the largest there is, so that it fails with
    probability 2 (1 - Phi(eps sqrt(k/2))), which is 0.28 where 0.1 was promised.
    """
    eps, eta = 0.3, 0.1
    u, v = matrix(6, seed=1), matrix(6, seed=2)
    u, v = u / u.norm(), v / v.norm()

    def failures(count):
        return sum(
            abs(float(u @ matrix_project(torch.outer(u, v), count, seed) @ v) - 1) > eps
            for seed in range(1000)
        )

    printed = failures(math.ceil(math.log(1 / eta) / eps**2))
    assert stats.binomtest(printed, 1000, eta, alternative="greater").pvalue < 1e-6
    enough = failures(math.ceil(4 * math.log(2 / eta) / eps**2))
    assert stats.binomtest(enough, 1000, eta, alternative="less").pvalue < 1e-6


def test_gaussian_noise_has_the_size_that_was_asked_for():
    chain = chain_of(mlp(4, 6, 3), who="test")
    x = vectors(5, 4).double()
    values = outputs(chain, x)
    added = GaussianNoise(relative=0.2).drawn(chain, 3)(x, values)
    for eta, value in zip(added, values, strict=True):
        assert torch.allclose(eta.norm(dim=1), 0.2 * value.norm(dim=1))
    again = GaussianNoise(relative=0.2).drawn(chain, 3)(x, values)
    assert all(torch.equal(a, b) for a, b in zip(added, again, strict=True))


def test_projected_noise_is_what_replacing_the_matrices_leaves():
    chain = chain_of(mlp(4, 6, 3), who="test")
    x = vectors(5, 4).double()
    values = outputs(chain, x)
    few, many = (
        MatrixProjectNoise(per_weight=r).drawn(chain, 3)(x, values) for r in (10.0, 4000.0)
    )
    for i, value in enumerate(values):
        assert 0 < float(many[i].norm()) < 0.15 * float(few[i].norm())
        assert float(few[i].norm()) < 2 * float(value.norm())


def test_refuses_settings():
    with pytest.raises(UsageError, match="at least one inner product"):
        matrix_project(matrix(2, 2), 0, 0)
    with pytest.raises(UsageError, match="more than 1e"):
        matrix_project(matrix(1000, 1000), 10**6, 0)
    with pytest.raises(UsageError, match="relative must be positive"):
        GaussianNoise(relative=0.0)
    with pytest.raises(UsageError, match="per_weight must be positive"):
        MatrixProjectNoise(per_weight=-1.0)
