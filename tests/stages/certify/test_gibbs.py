"""Stochastic predictors: draws, laws, the bound against brute force, and refusals."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import gibbs_risk_upper, pac_bayes_kl
from tailor.numerics.counter import stream
from tailor.numerics.posteriors import isotropic_kl
from tailor.stages.certify.gibbs import (
    Centred,
    DiscreteWeights,
    FromPart,
    GaussianHead,
    GaussianWeights,
    PACBayes,
    SparsePrior,
    count_draws,
    fit_head,
)
from tailor.stages.certify.gibbs.fit import _Problem
from tailor.stages.certify.gibbs.head import contrasts
from tailor.stages.certify.method import Case
from tailor.stages.compress import RANS, pack
from tailor.tasks import Data, zero_one

WIDTH, CLASSES = 4, 3


def head():
    return GaussianHead(nn.Identity(), WIDTH, CLASSES)


def network():
    return nn.Sequential(nn.Linear(WIDTH, 5, bias=False), nn.ReLU(), nn.Linear(5, CLASSES))


def sample(n, seed, noise=0.05):
    """Three classes by a linear rule, with a share of random labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=generator)
    y = x[:, :CLASSES].argmax(dim=1)
    flip = torch.rand(n, generator=generator) < noise
    return Data(x=x, y=torch.where(flip, (y + 1) % CLASSES, y))


def case(model, build, data, delta=0.05, choices=1, error=zero_one):
    small = pack(model, coder=RANS())
    decoded = small.into(build).double().eval()
    return Case(
        small=small, model=decoded, build=build, data=data, error=error, delta=delta,
        choices=choices,
    )  # fmt: skip


def fitted(data, steps=10, **settings):
    made = head()
    fit_head(made, data, steps=steps, **settings)
    return made


DATA = sample(300, 0)
HEAD = fitted(DATA)
PROOF = PACBayes(repeats=8).prove(case(HEAD, head, DATA, choices=16))


def test_every_number_by_hand():
    assert (PROOF.n, PROOF.prior.n, PROOF.draws, PROOF.repeats) == (300, 0, 2400, 8)
    assert PROOF.errors == math.ceil(PROOF.draw_errors / 8)
    upper = stats.beta.isf(0.01, PROOF.draw_errors + 1, 2400 - PROOF.draw_errors)
    assert PROOF.empirical_upper == pytest.approx(upper, rel=1e-9)
    assert PROOF.divergence == pytest.approx(isotropic_kl(*_law(HEAD), 1.0), rel=1e-12)
    nats = (PROOF.divergence + math.log(16) + math.log(2 * math.sqrt(300) / 0.04)) / 300
    q, p = PROOF.empirical_upper, PROOF.risk_bound
    inverted = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert inverted == pytest.approx(nats, rel=1e-9)
    form = 2 * q + (PROOF.divergence + math.log(16) - math.log(0.04)) / 300
    assert PROOF.catoni == pytest.approx((1 - math.exp(-form)) / (1 - math.exp(-2)), rel=1e-9)
    assert PROOF.derandomised == pytest.approx(min(1, 2 * p))
    scores = DATA.x @ HEAD.mean.detach().T @ contrasts(CLASSES).T.float()
    assert PROOF.mean_errors == int((scores.argmax(dim=1) != DATA.y).sum())


def test_the_count_is_the_same_for_a_stranger():
    """The draws again, with numpy and Python's integers alone."""
    small = pack(HEAD, coder=RANS())
    key = f"0\0{hashlib.sha256(small.payload).hexdigest()}\0gibbs".encode()
    start, step = (
        int.from_bytes(part, "little")
        for part in np.array_split(
            np.frombuffer(hashlib.blake2b(key, digest_size=16).digest(), np.uint8), 2
        )
    )
    step |= 1
    assert (step ^ step >> 1).bit_count() >= 24  # else the step would be changed
    mean, factor = HEAD.mean.detach().double().numpy(), HEAD.triangle().numpy()
    basis, x, y = contrasts(CLASSES).numpy(), DATA.x.double().numpy(), DATA.y.numpy()
    errors = 0
    for row in range(300 * 8):
        words = np.array([_word(start, step, 2 * row + i) for i in range(2)], dtype=np.int64)
        even = words.astype(np.float64) * 2.0**-63
        radius = math.sqrt(-2 * math.log(abs((even[0] + 2.0**-64) * (1 - 2.0**-53))))
        normal = radius * np.array([math.cos(math.pi * even[1]), math.sin(math.pi * even[1])])
        features = np.kron(np.eye(2), x[row % 300])
        spread = features @ factor
        drawn = mean @ x[row % 300] + np.linalg.cholesky(spread @ spread.T) @ normal
        errors += int((basis @ drawn).argmax()) != y[row % 300]
    assert errors == PROOF.draw_errors


def _word(start, step, place):
    z = (start + (place + 1) * step) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def test_scores_of_a_head_have_the_law_of_a_fresh_network():
    made = head().double()
    generator = torch.Generator().manual_seed(3)
    size = made.mean.numel()
    factor = torch.randn(size, size, generator=generator, dtype=torch.float64).tril()
    factor.diagonal().abs_().add_(0.3)
    made.set(torch.randn(2, WIDTH, generator=generator, dtype=torch.float64), factor)
    x = torch.randn(1, WIDTH, generator=generator)
    many = Data(x=x.expand(60_000, -1), y=torch.zeros(60_000, dtype=torch.int64))
    found = torch.cat([scores for _, scores in made.scores(many, 1, stream(0, "law"))])
    normal = torch.randn(60_000, size, generator=generator, dtype=torch.float64)
    weights = (made.mean.detach().flatten() + normal @ factor.T).view(-1, 2, WIDTH)
    networks = torch.einsum("skd,d->sk", weights, x[0].double()) @ contrasts(CLASSES).T
    assert found.mean(dim=0).tolist() == pytest.approx(networks.mean(dim=0).tolist(), abs=0.08)
    np.testing.assert_allclose(torch.cov(found.T), torch.cov(networks.T), atol=0.3, rtol=0.05)


def test_draws_of_networks_are_fresh_for_every_example_and_repeat():
    made = GaussianWeights(network, deviation=0.5).double()
    same = Data(x=DATA.x[:1].expand(7, -1), y=torch.zeros(7, dtype=torch.int64))
    scores = torch.cat([scores for _, scores in made.scores(same, 3, stream(0, "fresh"))])
    assert len({tuple(row) for row in scores.tolist()}) == 21
    again = torch.cat([scores for _, scores in made.scores(same, 3, stream(0, "fresh"))])
    assert torch.equal(scores, again)


def test_networks_are_drawn_from_the_law():
    made = GaussianWeights(network, deviation=0.3).double()
    drawn = made.weights(stream(0, "weights"), 0, 4000)
    mean = torch.cat([m.flatten() for m, _ in made.pairs()])
    assert stats.kstest(((drawn - mean) / 0.3).flatten(), "norm").pvalue > 1e-3
    table = DiscreteWeights(network).double()
    first = next(table.network.parameters())
    with torch.no_grad():
        first.copy_(torch.tensor([0.2, 0.7, 0.1]).double().expand_as(first))
    levels = table.weights(stream(0, "levels"), 0, 4000)[:, : WIDTH * 5]
    shares = [(levels == level).double().mean().item() for level in (-1, 0, 1)]
    assert shares == pytest.approx([0.2, 0.7, 0.1], abs=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_whole_network_is_evaluated_with_the_weights_that_were_drawn(seed):
    made = GaussianWeights(network, deviation=0.4).double()
    ((_, scores),) = made.scores(DATA.at(torch.arange(5)), 1, stream(seed, "one"))
    rows = made.weights(stream(seed, "one"), 0, 5)
    for i in range(5):
        plain = network().double()
        nn.utils.vector_to_parameters(rows[i], plain.parameters())
        with torch.no_grad():
            expected = plain(DATA.x[i : i + 1].double())[0]
        assert torch.allclose(scores[i], expected)


def test_coverage_of_the_draws_where_examples_differ():
    """Binomial bounds on the mean of unequal probabilities, simulated: at most one in twenty."""
    rng = np.random.default_rng(0)
    chances = rng.beta(0.2, 2.0, size=40)
    counts = (rng.uniform(size=(4000, 40, 3)) < chances[None, :, None]).sum(axis=(1, 2))
    uppers = {int(k): gibbs_risk_upper(int(k), 120, 0.05) for k in set(counts.tolist())}
    missed = sum(uppers[int(k)] < chances.mean() for k in counts.tolist())
    assert missed / 4000 <= 0.05
    assert min(uppers.values()) < chances.mean()  # so the bound can be missed at all


def test_the_bound_covers_the_risk_of_gibbs_posteriors_on_a_finite_class():
    """All 9 ternary rules on two bits: exact risks, 60 samples, the law that fits each best."""
    rules = torch.cartesian_prod(torch.tensor([-1, 0, 1]), torch.tensor([-1, 0, 1])).double()
    points = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    label = points[:, 0]
    wrong = (points @ rules.T * label[:, None] <= 0).double()  # points x rules
    truth = wrong.mean(dim=0)
    rng = np.random.default_rng(1)
    missed, n = 0, 30
    for _ in range(60):
        seen = wrong[torch.tensor(rng.integers(0, 4, size=n))].mean(dim=0)
        law = torch.softmax(-n * seen, dim=0)
        divergence = float((law * (law * 9).log()).sum())
        bound = pac_bayes_kl(float(law @ seen), n, max(0.0, divergence), 0.2)
        missed += bound < float(law @ truth)
        assert bound < 1
    assert missed / 60 <= 0.2


def test_the_fit_beats_the_prior_and_its_own_start():
    proofs = [
        PACBayes(repeats=8).prove(case(made, head, DATA))
        for made in (head(), fitted(DATA, steps=1), HEAD)
    ]
    assert proofs[0].divergence < 1e-9  # the prior itself
    assert proofs[0].empirical_upper > 0.5
    assert proofs[2].risk_bound < min(proofs[0].risk_bound, proofs[1].risk_bound)


def test_slopes_of_the_errors_are_their_derivatives():
    problem = _Problem.of(HEAD, DATA, None, torch.float64)
    mean, factor = _law(HEAD)
    generator = torch.Generator().manual_seed(5)
    turn = torch.randn(len(mean), len(mean), generator=generator, dtype=torch.float64)
    along, spread, tiny = turn[0], turn @ turn.T / 100, 1e-5
    covariance = factor @ factor.T

    def risk(step, wider):
        precision = torch.linalg.inv(covariance + wider * spread)
        return problem.at(mean + step * along, precision, slopes=False).risk

    here = problem.at(mean, torch.linalg.inv(covariance))
    by_mean = (risk(tiny, 0) - risk(-tiny, 0)) / (2 * tiny)
    by_spread = (risk(0, tiny) - risk(0, -tiny)) / (2 * tiny)
    assert float(here.slope @ along) == pytest.approx(by_mean, rel=1e-5)
    assert float((here.curvature * spread).sum()) / 2 == pytest.approx(by_spread, rel=1e-3)


def test_the_fit_reports_what_the_certificate_finds():
    made = head()
    fit = fit_head(made, DATA, steps=10)
    assert fit.divergence == pytest.approx(isotropic_kl(*_law(made), 1.0), rel=1e-3)
    drawn = count_draws(made.double(), DATA, 50, stream(0, "fit"))
    share = drawn.errors / drawn.draws
    assert share <= fit.risk + 0.005  # a union over rivals is no smaller,
    assert fit.risk <= (CLASSES - 1) * share + 0.005  # and no larger than all of them together


def _law(made):
    return made.mean.detach().double().flatten(), made.triangle()


def test_a_prior_from_a_part_counts_the_other_part_only():
    first, second = DATA.split(0.5, "s")
    learned = fitted(first)
    prior = FromPart(learn=lambda seen: {len(first): learned}[len(seen)], share=0.5, salt="s")
    proof = PACBayes(prior=prior, repeats=8).prove(case(learned, head, DATA))
    assert (proof.n, proof.prior.n) == (len(second), len(first))
    assert proof.divergence < 1e-6  # the posterior is the prior, up to rounding of the prior
    assert proof.risk_bound < PROOF.risk_bound
    moved = HEAD
    mean, root = prior.law(learned)
    assert torch.equal(mean, torch.round(mean * 2**20) / 2**20)
    law = torch.distributions.MultivariateNormal
    expected = torch.distributions.kl_divergence(
        law(_law(moved)[0], scale_tril=_law(moved)[1]),
        law(mean, precision_matrix=root @ root.T),
    )
    found = PACBayes(prior=prior).prove(case(moved, head, DATA)).divergence
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_a_grid_of_scales_is_paid_for_and_taken_by_tensor():
    made = GaussianWeights(network, deviation=0.1)
    one = Centred(scales=(0.1,)).divergence(made, None)
    grid = Centred(scales=(0.1, 0.5, 3.0)).divergence(made, None)
    tensors = [(m, s) for m, s in made.pairs()]
    by_hand = 0.0
    for mean, deviation in tensors:
        options = [
            float(
                torch.distributions.kl_divergence(
                    torch.distributions.Normal(mean, deviation),
                    torch.distributions.Normal(torch.zeros_like(mean), scale),
                ).sum()
            )
            for scale in (0.1, 0.5, 3.0)
        ]
        by_hand += min(options) + math.log(3)
    assert grid == pytest.approx(by_hand, rel=1e-9)
    assert grid < one + 3 * math.log(3) + 1e-9


@pytest.mark.parametrize(
    ("build", "prior"),
    [
        (lambda: GaussianWeights(network, deviation=0.2), Centred(scales=(0.3, 1.0))),
        (lambda: DiscreteWeights(network), SparsePrior(zeros=(0.5, 0.9))),
    ],
)
def test_laws_of_whole_networks_are_certified_from_their_files(build, prior):
    torch.manual_seed(0)
    made = build()
    proof = PACBayes(prior=prior, repeats=2).prove(case(made, build, DATA))
    bits = stream(0, hashlib.sha256(pack(made, coder=RANS()).payload).hexdigest(), "gibbs")
    assert proof.draw_errors == count_draws(made.double(), DATA, 2, bits).errors
    assert proof.divergence == pytest.approx(prior.divergence(made, None), rel=1e-9)
    assert 0 < proof.empirical_upper <= proof.risk_bound <= 1


def test_what_no_bound_holds_for_is_refused():
    flat = head()
    with torch.no_grad():
        flat.factor[0] = 0.0
    with pytest.raises(UsageError, match="above 0, but the smallest is 0"):
        PACBayes().prove(case(flat, head, DATA))
    with pytest.raises(UsageError, match="at least one draw"):
        PACBayes(repeats=0)
    with pytest.raises(UsageError, match="2 examples or more, but got 1"):
        PACBayes().prove(case(HEAD, head, DATA.at(torch.arange(1))))
    with pytest.raises(UsageError, match="strictly between 0 and 1"):
        FromPart(learn=fitted, share=1.0, salt="s")
    with pytest.raises(UsageError, match="the part that it may see"):
        FromPart(learn=fitted, share=0.5, salt="s").divergence(HEAD, None)
    with pytest.raises(UsageError, match="holds a law of networks"):
        PACBayes().prove(case(network(), network, DATA))
    with pytest.raises(UsageError, match="no prior for this GaussianHead"):
        PACBayes(prior=SparsePrior()).prove(case(HEAD, head, DATA))
    with pytest.raises(UsageError, match="errors of classification only"):
        PACBayes().prove(case(HEAD, head, DATA, error=lambda model, data: data.y < 0))
    with pytest.raises(UsageError, match=r"at most 0\.25"):
        PACBayes(draws_share=0.9).prove(case(HEAD, head, DATA, delta=0.5))
    with pytest.raises(UsageError, match=r"without buffers, but it has 0\.running_mean"):
        GaussianWeights(lambda: nn.Sequential(nn.BatchNorm1d(3)))
    with pytest.raises(UsageError, match="at least one example"):
        count_draws(HEAD, DATA, 0, stream(0))


def test_scores_within_rounding_count_as_errors():
    level = GaussianHead(nn.Identity(), WIDTH, CLASSES).double()
    nothing = Data(x=torch.zeros(3, WIDTH), y=torch.zeros(3, dtype=torch.int64))
    assert count_draws(level, nothing, 2, stream(0)).errors == 6  # no law of scores: no right ones
