"""Penalties against scipy's densities and finite differences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailor.errors import UsageError
from tailor.stages.regularize import StudentPrior


@given(st.floats(0.1, 30), st.floats(0.01, 10), st.floats(0, 5), st.integers(0, 100))
def test_student_prior_is_minus_the_log_density_up_to_a_constant(index, scale, weight, seed):
    prior = StudentPrior(coefficient=weight, tail_index=index, scale=scale)
    generator = torch.Generator().manual_seed(seed)
    matrices = [torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2)]
    flat = torch.cat([m.flatten() for m in matrices]).numpy()
    density = stats.t(df=index, scale=scale)
    expected = weight * float((density.logpdf(0) - density.logpdf(flat)).sum())
    assert float(prior(matrices)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_student_prior_gradient():
    matrix = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: StudentPrior(coefficient=0.7)([w]), [matrix])


def test_large_weights_are_pulled_back_less_and_less():
    weights = torch.tensor([[0.3, 3.0, 30.0]], dtype=torch.float64, requires_grad=True)
    StudentPrior(coefficient=1.0)([weights]).backward()
    pull = weights.grad[0]
    assert pull[0] > pull[1] > pull[2] > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"coefficient": -1.0},
        {"coefficient": float("nan")},
        {"coefficient": 1.0, "tail_index": 0.0},
        {"coefficient": 1.0, "scale": 0.0},
    ],
)
def test_refusals(fields):
    with pytest.raises(UsageError, match="StudentPrior needs coefficient >= 0"):
        StudentPrior(**fields)
