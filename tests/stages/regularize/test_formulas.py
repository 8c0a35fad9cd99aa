"""Values and gradients of penalties against scipy, brute force, autograd and differences."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from tailor.errors import UsageError
from tailor.stages.regularize import (
    L1,
    L2,
    FrechetPrior,
    GroupLasso,
    HorseshoeNodes,
    LiveMatrix,
    LogSpectralNorm,
    PowerLawPrior,
    SpectralNorm,
    StableRank,
    StudentPrior,
    TailExponent,
    WeightedAlpha,
)

SHAPES = [(10, 100), (100, 30), (64, 64)]


def hill(W):
    logs = 2 * torch.linalg.svdvals(W).log()
    k = len(logs) // 2
    return 1 + k / (logs[:k] - logs[k]).sum()


def power_law(W, xmin, exponent):
    excess = 2 * torch.linalg.svdvals(W).log() - math.log(xmin)
    return exponent * excess[excess > 0].sum()


# Every penalty with its definition, written with full decompositions and without thought of speed.
DEFINITIONS = {
    "L1": (L1(1.0), lambda W: W.abs().sum()),
    "L2": (L2(1.0), lambda W: W.square().sum() / 2),
    "student": (
        StudentPrior(1.0, tail_index=2.0, scale=0.5),
        lambda W: (
            -torch.distributions.StudentT(2.0, scale=0.5).log_prob(W).sum()
            + W.numel()
            * torch.distributions.StudentT(2.0, scale=0.5).log_prob(torch.zeros((), dtype=W.dtype))
        ),
    ),
    "rows": (GroupLasso(1.0), lambda W: W.norm(dim=1).sum()),
    "columns": (GroupLasso(1.0, nodes="columns"), lambda W: W.norm(dim=0).sum()),
    "norm": (SpectralNorm(1.0), lambda W: torch.linalg.svdvals(W)[0] ** 2 / 2),
    "log norm": (LogSpectralNorm(1.0), lambda W: 2 * torch.linalg.svdvals(W)[0].log()),
    "stable rank": (StableRank(1.0), lambda W: W.square().sum() / torch.linalg.svdvals(W)[0] ** 2),
    "frechet": (
        FrechetPrior(1.0, shape=1.5, scale=3.0),
        lambda W: (
            2.5 * (torch.linalg.svdvals(W)[0] ** 2 / 3).log()
            + (torch.linalg.svdvals(W)[0] ** 2 / 3) ** -1.5
            - math.log(1.5 / 3)
        ),
    ),
    "alpha": (TailExponent(1.0), hill),
    "alpha from a target": (TailExponent(1.0, target=9.0), lambda W: 9.0 - hill(W)),
    "weighted alpha": (
        WeightedAlpha(1.0),
        lambda W: hill(W) * 2 * torch.linalg.svdvals(W)[0].log(),
    ),
    "power law": (
        PowerLawPrior(1.0, floor=0.2),
        lambda W: power_law(
            W, 0.2 * float(torch.linalg.svdvals(W.detach())[0] ** 2), float(hill(W.detach()))
        ),
    ),
}


def matrix(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) / 3


def exactly(W, penalty):
    """The pull with the block iterated to the end."""
    live = LiveMatrix("W", W, {})
    for _ in range(60):
        live.__dict__.pop("top", None)
        assert live.top is not None
    return penalty.pull(live)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_value_and_gradient_are_those_of_the_definition_under_autograd(name, shape):
    penalty, definition = DEFINITIONS[name]
    leaf = matrix(shape).requires_grad_()
    expected = definition(leaf)
    (gradient,) = torch.autograd.grad(expected, leaf)
    pull = exactly(leaf.detach(), penalty)
    found = pull.gradient(leaf.detach())
    torch.testing.assert_close(pull.value, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-8)
    if pull.norm is not None:
        torch.testing.assert_close(pull.norm, gradient.norm(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_gradient_agrees_with_central_differences(name, shape):
    penalty, definition = DEFINITIONS[name]
    if name == "power law":  # its cut-off is held from the first step
        penalty = replace(penalty, floor=1e-9)

        def definition(W):
            return power_law(W, 1e-9 * largest, exponent)

    W, along = matrix(shape, 1), matrix(shape, 2)
    largest, exponent = float(torch.linalg.svdvals(W)[0] ** 2), float(hill(W))
    h = 1e-6
    slope = (definition(W + h * along) - definition(W - h * along)) / (2 * h)
    found = (exactly(W, penalty).gradient(W) * along).sum()
    torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("penalty", [StableRank(1.0), TailExponent(1.0)])
def test_what_does_not_depend_on_scale_has_a_gradient_across_the_matrix(penalty):
    W = matrix((40, 60))
    pull = exactly(W, penalty)
    assert float((pull.gradient(W) * W).sum()) == pytest.approx(0, abs=1e-8)
    assert float(exactly(7 * W, penalty).value) == pytest.approx(float(pull.value), rel=1e-9)


@given(st.floats(0.1, 30), st.floats(0.01, 10), st.integers(0, 100))
def test_student_prior_is_minus_the_log_density_up_to_a_constant(index, scale, seed):
    W = matrix((3, 4), seed)
    density = stats.t(df=index, scale=scale)
    expected = float((density.logpdf(0) - density.logpdf(W.numpy())).sum())
    found = StudentPrior(1.0, tail_index=index, scale=scale).pull(LiveMatrix("W", W, {})).value
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.floats(0.3, 5), st.floats(0.01, 100), st.floats(0.05, 20))
def test_frechet_prior_is_minus_scipys_log_density(shape, scale, largest):
    W = torch.diag(torch.tensor([largest, largest / 2, largest / 3], dtype=torch.float64))
    expected = -stats.invweibull(shape, scale=scale).logpdf(largest**2)
    exponent = -shape * math.log(largest**2 / scale)
    found = float(exactly(W, FrechetPrior(1.0, shape=shape, scale=scale)).value)
    if exponent < 20 and np.isfinite(expected):
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)
    else:
        assert np.isfinite(found)


@given(st.lists(st.floats(0.01, 20), min_size=2, max_size=6), st.floats(0.1, 10))
def test_horseshoe_has_the_best_scale_of_each_node_put_in(norms, scale):
    """Brute force over log lambda, node by node."""
    W = torch.tensor(norms, dtype=torch.float64)[:, None]
    flatness = (2 * len(norms) / (math.pi * scale)) ** 2

    def at(t, r):
        return r**2 / (2 * math.exp(t)) + t / 2 + math.log1p(flatness * math.exp(t))

    expected = sum(
        optimize.minimize_scalar(lambda t, r=r: at(t, r), bounds=(-30, 30), method="bounded").fun
        for r in norms
    )
    pull = HorseshoeNodes(1.0, scale=scale, floor=1e-12).pull(LiveMatrix("W", W, {}))
    assert float(pull.value) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_horseshoe_gradient_by_differences():
    W, along, h = matrix((5, 7), 3), matrix((5, 7), 4), 1e-6
    penalty = HorseshoeNodes(1.0, floor=0.1, nodes="columns")

    def value(X):
        return penalty.pull(LiveMatrix("W", X, {})).value

    slope = (value(W + h * along) - value(W - h * along)) / (2 * h)
    found = (penalty.pull(LiveMatrix("W", W, {})).gradient(W) * along).sum()
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-7)


AWKWARD = {
    "zero": torch.zeros(12, 20),
    "all singular values equal": torch.eye(12, 20),
    "rank one": torch.outer(torch.arange(1.0, 13), torch.ones(20)),
    "one row": torch.arange(1.0, 21)[None],
    "one entry": torch.full((1, 1), 3.0),
    "two tops": torch.diag(torch.tensor([2.0, 2.0] + [1.0] * 10)),
    "tiny": torch.full((12, 20), 1e-30),
    "huge": torch.eye(12) * 1e12,
    "rank four of twelve": torch.outer(torch.ones(12), torch.ones(20))
    + torch.cat([torch.eye(3, 20), torch.zeros(9, 20)]),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("penalty", [p for p, _ in DEFINITIONS.values()] + [HorseshoeNodes(1.0)])
def test_awkward_matrices_give_finite_values_and_gradients(penalty, name):
    W = AWKWARD[name]
    if penalty.why_not(tuple(W.shape)):
        assert min(W.shape) < 10
        return
    pull = penalty.pull(LiveMatrix("W", W, {}))
    assert torch.isfinite(pull.value)
    assert torch.isfinite(pull.gradient(W)).all()
    spectral = (SpectralNorm, LogSpectralNorm, StableRank, FrechetPrior)
    if name == "zero" and isinstance(penalty, (*spectral, TailExponent, WeightedAlpha)):
        assert not pull.gradient(W).any()


@pytest.mark.parametrize("name", ["all singular values equal", "two tops"])
def test_a_tied_top_gives_one_of_its_subgradients(name):
    W = AWKWARD[name].double()
    G = exactly(W, SpectralNorm(1.0)).gradient(W)
    top = torch.linalg.svdvals(W)[0]
    assert torch.linalg.matrix_rank(G) == 1
    assert float((G * W).sum()) == pytest.approx(float(top**2))  # G = s u v' with u'Wv = s
    assert float(G.norm()) == pytest.approx(float(top))


def test_an_orthogonal_matrix_has_no_exponent_and_no_pull():
    pull = TailExponent(1.0).pull(LiveMatrix("W", torch.eye(20), {}))
    assert float(pull.value) == 50
    assert not pull.gradient(torch.eye(20)).any()


def test_a_hinge_sleeps_below_its_threshold_and_leaves_the_gradient_above():
    W = torch.diag(torch.tensor([1.5, 1.0, 0.5]))
    awake, asleep = LogSpectralNorm(1.0, threshold=0.5), LogSpectralNorm(1.0, threshold=1.0)
    free = LogSpectralNorm(1.0, threshold=None)
    assert float(exactly(W, awake).value) == pytest.approx(2 * math.log(1.5) - 0.5)
    torch.testing.assert_close(exactly(W, awake).gradient(W), exactly(W, free).gradient(W))
    assert float(exactly(W, asleep).value) == 0
    assert not exactly(W, asleep).gradient(W).any()


def test_a_threshold_can_be_a_share_of_the_start():
    penalty, W = StableRank(1.0, fraction_of_start=0.5), torch.eye(4)
    live = LiveMatrix("W", W, {})
    assert float(penalty.pull(live).value) == pytest.approx(4 - 2)
    flat = LiveMatrix("W", torch.diag(torch.tensor([1.0, 0.1, 0.1, 0.1])), {})
    flat.memory = live.memory
    assert float(penalty.pull(flat).value) == 0


def test_the_power_law_prior_remembers_its_exponent_and_its_cut_off():
    penalty, W = PowerLawPrior(1.0, memory=0.75), matrix((20, 30))
    live = LiveMatrix("W", W, {})
    penalty.pull(live)
    assert float(live.memory["exponent"]) == pytest.approx(float(hill(W)))
    spiked = W.clone()
    spiked[0, 0] = 50.0
    later = LiveMatrix("W", spiked, {})
    later.memory = live.memory
    penalty.pull(later)
    expected = 0.75 * float(hill(W)) + 0.25 * float(hill(spiked))
    assert float(later.memory["exponent"]) == pytest.approx(expected)
    assert float(later.memory["xmin"]) == pytest.approx(
        1e-3 * float(torch.linalg.svdvals(W)[0] ** 2)
    )


def spoilt(value, field, content):
    """Past the type checker of these tests, which users do not have."""
    object.__setattr__(value, field, content)
    return value


REFUSED = [
    (lambda: StableRank(-1.0), "StableRank needs weights of 0 or more"),
    (lambda: StableRank(float("nan")), "needs weights of 0 or more"),
    (lambda: L2(1.0, per_layer={"0.*": -1.0}), "needs weights of 0 or more"),
    (lambda: L2(1.0, every=0), "every >= 1"),
    (lambda: StableRank(1.0, threshold=2, fraction_of_start=0.5), "a threshold or a fraction"),
    (lambda: StableRank(1.0, fraction_of_start=2.0), "fraction_of_start in"),
    (lambda: WeightedAlpha(1.0, threshold=None), "unbounded below"),
    (lambda: FrechetPrior(1.0, shape=0.0), "shape > 0"),
    (lambda: PowerLawPrior(1.0, floor=1.0), "floor in"),
    (lambda: spoilt(PowerLawPrior(1.0), "scope", "half").check(), "scope must be"),
    (lambda: spoilt(GroupLasso(1.0), "nodes", "rwos").check(), "nodes must be"),
    (lambda: HorseshoeNodes(1.0, floor=0.0), "floor > 0"),
    (lambda: StudentPrior(1.0, tail_index=0.0), "StudentPrior needs tail_index > 0"),
    (lambda: StudentPrior(1.0, scale=0.0), "StudentPrior needs tail_index > 0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refusals(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_penalty_of_ones_own_needs_a_formula_only():
    from tailor.stages.regularize import Penalty, Pull

    @dataclass(frozen=True, slots=True)
    class Entropy(Penalty):
        def pull(self, matrix):
            return Pull.by_autograd(lambda W: W.softmax(1).square().sum(), matrix.W)

    model = nn.Linear(6, 4, dtype=torch.float64)
    Entropy(0.5)(model).backward()
    (expected,) = torch.autograd.grad(0.5 * model.weight.softmax(1).square().sum(), model.weight)
    torch.testing.assert_close(model.weight.grad, expected)
