"""Cushions and their company against Jacobians and loops of the plainest kind."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from tailor.errors import UsageError
from tailor.records import from_json, to_json
from tailor.stages.measures import AroraMeasures, GaussianNoise, MatrixProjectNoise, arora
from tailor.stages.measures.chain import chain_of, onward, outputs
from tailor.stages.measures.cushions import measure
from tailor.stages.measures.jacobian import Counting
from tailor.stages.measures.project import derived
from tailor.tasks import Data
from tests.stages.measures.networks import convolutions, images, labelled_by, mlp, vectors


def brief(model, data, **settings):
    """Few draws of the noise: enough where it is not what is tested."""
    return arora(model, data, **{"draws": 2, **settings})


def measured(model, x, rows=1024, probes=8, seed=0):
    chain = chain_of(model, who="test")
    generator = torch.Generator().manual_seed(seed)
    data = Data(x=x, y=torch.zeros(len(x), dtype=torch.long))
    return chain, measure(chain, data, Counting(exact_rows=rows, probes=probes), generator)


def reference(chain, x):
    """Jacobians of each pair by autograd, one example at a time: norm, J x, norms by pixel."""
    for number, (i, j) in itertools.product(
        range(len(x)), itertools.combinations(range(len(chain)), 2)
    ):
        here = outputs(chain, x[number : number + 1].double())[i]
        J = jacobian(lambda v, i=i, j=j: onward(chain, i, v)[j - i - 1], here)
        J = J.reshape(-1, here.shape[1], here[0].numel() // here.shape[1])
        slope = J.flatten(1) @ here.flatten()
        yield number, (i, j), J, slope, here


MODELS = {
    "mlp": (lambda: mlp(5, 7, 6, 3), lambda: vectors(6, 5)),
    "mlp with biases": (lambda: mlp(5, 7, 6, 3, bias=True), lambda: vectors(6, 5)),
    "convolutions": (convolutions, images),
    "convolutions with biases": (lambda: convolutions(bias=True), images),
}


@pytest.mark.parametrize("name", MODELS)
def test_interlayer_cushions_and_spread_are_those_of_autograd(name):
    model, x = (make() for make in MODELS[name])
    chain, found = measured(model, x)
    for number, pair, J, slope, here in reference(chain, x):
        pixels = J.shape[2]
        mu = math.sqrt(pixels) * float(slope.norm()) / float(J.norm() * here.norm())
        assert float(found.between[pair][number]) == pytest.approx(mu, rel=1e-9)
        beta = math.sqrt(pixels) * max(float(J[:, :, p].norm()) for p in range(pixels))
        assert float(found.spread[pair][number]) == pytest.approx(beta / float(J.norm()))
        assert found.exact[pair]
        assert float(found.error[pair][number]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_layer_cushions_and_contractions_are_those_of_a_loop(name):
    model, x = (make() for make in MODELS[name])
    _, found = measured(model, x)
    model = model.double()
    before, place = x.double(), 0
    for part in model:
        if isinstance(part, nn.Linear | nn.Conv2d):
            bare = part(before) - part(torch.zeros_like(before))
            mu = bare.flatten(1).norm(dim=1) / part.weight.norm() / before.flatten(1).norm(dim=1)
            assert torch.allclose(found.layer[place], mu)
            place += 1
        elif isinstance(part, nn.ReLU):
            after = before.clamp(min=0)
            c = before.flatten(1).norm(dim=1) / after.flatten(1).norm(dim=1)
            assert torch.allclose(found.contraction[place - 1], c)
            assert (c >= 1).all()
        before = part(before.clone())
    assert torch.allclose(found.scores, before)


@pytest.mark.parametrize("bias", [False, True])
def test_jacobian_times_value_is_the_value_only_without_biases(bias):
    model = mlp(5, 7, 6, 3, bias=bias)
    _, found = measured(model, vectors(6, 5))
    assert (found.gap < 1e-12).all() == (not bias)
    said = brief(model, labelled_by(model, vectors(6, 5)))
    assert said.homogeneous == (not bias)
    assert any("biases" in note for note in said.notes) == bias


def test_minima_are_taken_over_examples_and_capped():
    model, x = mlp(5, 7, 6, 3), vectors(40, 5)
    data = labelled_by(model, x)
    said = brief(model, data)
    _, found = measured(model, x)
    first, _, last = said.layers
    assert first.cushion == float(found.layer[0].min())
    assert [one.value for one in first.interlayer] == [
        float(found.between[0, j].min()) for j in (1, 2)
    ]
    assert first.minimal_cushion == min(
        1 / math.sqrt(7), *(float(found.between[0, j].min()) for j in (1, 2))
    )
    assert last.minimal_cushion == pytest.approx(1 / math.sqrt(3))
    assert last.interlayer == ()
    assert said.contraction == max(float(found.contraction[i].max()) for i in (0, 1))
    assert first.sensitivity == pytest.approx(float(found.layer[0].pow(-2).mean()))
    assert [one.spread for one in said.layers] == [1.0, 1.0, 1.0]


def test_sensitivity_of_a_matrix_is_that_of_gaussian_noise():
    """psi = E ||A eta||^2 ||x||^2 / ||A x||^2, by simulation within four standard errors."""
    model, x = mlp(6, 4), vectors(1, 6)
    W, u = model[0].weight.detach().double(), x[0].double()
    eta = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = (eta @ W.T).square().sum(1) * u.square().sum() / (W @ u).square().sum()
    said = brief(model, labelled_by(model, x), gamma_quantile=0.0)
    assert said.layers[0].sensitivity is not None
    assert abs(float(draws.mean()) - said.layers[0].sensitivity) < 4 * float(
        draws.std() / math.sqrt(20_000)
    )


def test_the_count_is_lemma_3_with_lemma_10():
    model, x = mlp(5, 7, 6, 3), vectors(50, 5)
    said = brief(model, labelled_by(model, x), gamma_quantile=0.1, delta=0.02)
    total = sum(1 / (one.cushion * one.minimal_cushion) ** 2 for one in said.layers)
    eps2 = said.gamma**2 / (2 * said.largest_output**2)
    with_constants = 72 * said.contraction**2 * 9 * math.log(50 * 3 * 7 / 0.02) / eps2 * total
    assert said.effective.with_constants == pytest.approx(with_constants)
    without = (said.contraction * said.largest_output / said.gamma) ** 2 * total
    assert said.effective.without == pytest.approx(without)
    assert said.effective.weights == 5 * 7 + 7 * 6 + 6 * 3
    assert said.effective.orders_above_weights == pytest.approx(math.log10(with_constants / 95))
    assert said.effective.orders_above_examples == pytest.approx(math.log10(with_constants / 50))
    assert said.margin_loss <= 0.1 + 1 / 50
    assert said.margin_loss_twice >= said.margin_loss


def test_convolutions_pay_for_spread_and_reach_and_have_no_constant():
    model = convolutions()
    said = brief(model, labelled_by(model, images(8)))
    assert [(one.width, one.pixels, one.reach) for one in said.layers] == [
        *((3, 64, 9), (4, 4, 4), (3, 1, 1))
    ]
    total = sum(
        one.spread**2 * one.reach / (one.cushion * one.minimal_cushion) ** 2 for one in said.layers
    )
    scale = (said.contraction * said.largest_output / said.gamma) ** 2
    assert said.effective.without == pytest.approx(scale * total)
    assert said.effective.with_constants is None
    assert "theorem 5.1" in said.effective.reason
    assert all(one.spread >= 1 for one in said.layers)
    assert any("Pooling" in note for note in said.notes)


def test_scaling_the_layers_changes_no_count():
    model, x = mlp(5, 7, 6, 3), vectors(50, 5)
    data = labelled_by(model, x)
    one = brief(model, data)
    with torch.no_grad():
        model[0].weight *= 5
        model[4].weight /= 3
    two = brief(model, data)
    assert two.effective.without == pytest.approx(one.effective.without)
    assert two.gamma == pytest.approx(one.gamma * 5 / 3)


def test_estimated_norms_agree_within_their_error_and_say_so():
    model, x = convolutions(), images(40)
    _, exact = measured(model, x)
    _, rough = measured(model, x, rows=3, probes=200)
    for pair, value in exact.between.items():
        if pair[1] == 2:  # the scores are few enough
            assert rough.exact[pair]
            continue
        assert not rough.exact[pair]
        off = (rough.between[pair] - value) / rough.error[pair]
        assert 0.5 < float(off.std()) < 1.6
        assert float(off.abs().mean()) < 1.5
    said = brief(model, labelled_by(model, x), exact_rows=3)
    first = said.layers[0].interlayer[0]
    assert not first.exact
    assert first.standard_error > 0
    assert any("Hutchinson" in note for note in said.notes)


def test_outliers_are_left_out_of_everything_and_counted_together():
    model, x = mlp(5, 7, 6, 3), vectors(60, 5)
    data = labelled_by(model, x)
    plain, said = brief(model, data), brief(model, data, outliers=0.05)
    _, found = measured(model, x)
    gone = set()
    worst = [*found.layer, *found.between.values(), *(-one for one in found.contraction)]
    worst += [-one for one in found.spread.values()]
    for values in worst:
        gone |= set(values.argsort(stable=True)[:3].tolist())
    assert said.left_out == pytest.approx(len(gone) / 60)
    assert said.left_out > 0.05
    rest = torch.tensor(sorted(set(range(60)) - gone))
    assert [one.cushion for one in said.layers] == [float(v[rest].min()) for v in found.layer]
    assert said.layers[0].cushion > plain.layers[0].cushion
    assert plain.left_out == 0
    with pytest.raises(UsageError, match="no example is left"):
        brief(model, labelled_by(model, vectors(4, 5)), outliers=0.9)


def test_smoothness_is_infinite_within_a_region_and_falls_with_the_noise():
    model, x = mlp(5, 7, 6, 3), vectors(20, 5)
    data = labelled_by(model, x)
    tiny = brief(model, data, noise=GaussianNoise(relative=1e-9)).smoothness
    assert tiny.rho is None
    assert tiny.layer is None
    assert tiny.enough
    large = brief(model, data, noise=GaussianNoise(relative=0.5)).smoothness
    assert 0 < large.rho < 100
    assert large.needed == 9


def test_smoothness_is_that_of_a_loop():
    """One draw, so that its quantile is itself; ||M(x+eta) - J(x+eta)|| by an explicit Jacobian."""
    model, x = mlp(5, 7, 6, 3), vectors(4, 5)
    noise = MatrixProjectNoise(per_weight=3.0)
    said = brief(model, labelled_by(model, x), noise=noise, draws=1, seed=4).smoothness
    chain = chain_of(model, who="test")
    values = outputs(chain, x.double())
    added = noise.drawn(chain, derived(4, 0))(x.double(), values)
    least = math.inf
    for number, (i, j), J, _, here in reference(chain, x):
        eta = added[i][number : number + 1]
        moved = onward(chain, i, here + eta)[j - i - 1].flatten()
        off = moved - J.flatten(1) @ (here + eta).flatten()
        bound = eta.norm() * values[j][number].norm() / here.norm()
        if float(off.norm()) > 1e-10:
            least = min(least, float(bound / off.norm()))
    assert said.rho == pytest.approx(least, rel=1e-6)


def test_silent_activations_are_reported_and_not_clipped():
    model = mlp(3, 4, 2)
    model[0].weight.data = -torch.ones(4, 3)
    x = torch.rand(5, 3)
    x[1] = -x[1]
    data = Data(x=x, y=torch.zeros(5, dtype=torch.long))
    model[2].weight.data = torch.tensor([[1.0] * 4, [-1.0] * 4])
    with pytest.raises(UsageError, match="positive one is needed"):
        brief(model, data)
    said = brief(model, data, gamma_quantile=0.9)
    first = said.layers[0]
    assert (first.silent, first.first_silent) == (4, (0, 2, 3, 4))
    assert first.contraction is None
    assert said.contraction is None
    assert said.effective.with_constants is None
    assert "all activations" in said.effective.reason
    assert any("number 0" in note for note in said.notes)
    assert any("negative" in note for note in said.notes)


def test_negative_margin_and_settings_are_refused():
    model = mlp(5, 7, 3)
    data = Data(x=vectors(30, 5), y=torch.arange(30) % 3)
    with pytest.raises(UsageError, match="positive one is needed"):
        brief(model, data)
    for setting in ({"gamma_quantile": 1.0}, {"outliers": -0.1}):
        with pytest.raises(UsageError, match=r"must lie in \[0, 1\)"):
            brief(model, data, **setting)
    with pytest.raises(UsageError, match="delta must lie"):
        brief(model, data, delta=0.0)
    with pytest.raises(UsageError, match="draws is too small"):
        brief(model, data, draws=0)
    model[0].weight.data.zero_()
    with pytest.raises(UsageError, match="all zeros"):
        brief(model, data)


def test_the_record_survives_json_and_the_model_is_left_as_it_was():
    model = convolutions().train()
    kept = [parameter.clone() for parameter in model.parameters()]
    data = labelled_by(convolutions(), images(8))
    said = brief(model, data)
    assert from_json(AroraMeasures, to_json(said)) == said
    assert not said.is_certificate
    assert "another" in said.why_not or "compressed network" in said.why_not
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))
    assert model.training
    assert model[1].inplace
    assert brief(model, data) == said


def test_pieces_change_nothing(monkeypatch):
    model, x = convolutions(), images(9)
    _, whole = measured(model, x)
    for module in ("chain", "jacobian"):
        monkeypatch.setattr(f"tailor.stages.measures.{module}.AT_ONCE", 5000)
    _, parts = measured(model, x)
    for pair, value in whole.between.items():
        assert torch.allclose(parts.between[pair], value)
    assert torch.allclose(parts.scores, whole.scores)
