"""Gradient noise against plain loops; the model and the random state stay as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.powerlaw import Clauset, NoFit, PowerLawFit
from tailor.numerics.stable import Koutrouvelis, LogMoment, StableFit, TwoPoint
from tailor.stages.gradient_noise import gradient_noise, iterate_tail_index

squared = nn.functional.mse_loss
published = LogMoment(blocks=(), orders=0, center=False)  # Simsekli et al. (2019)


def regression(noise, *, count=400, size=4, features=30, seed=0):
    """Batches of y = noise: at weights 0 the gradient of (x w - y)^2 is -2 mean(x y)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, features, generator=generator)
    numbers = np.random.default_rng(seed)
    draw = {
        "normal": lambda: numbers.standard_normal((count, size, 1)),
        "Student": lambda: numbers.standard_t(1.5, (count, size, 1)),
    }[noise]
    y = torch.from_numpy(draw()).to(torch.float32)
    return list(zip(x, y, strict=True))


def linear(features=30):
    model = nn.Linear(features, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3)
        )


def classified(count=12, size=16):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, size, 6, generator=generator)
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in x]


def residuals_by_loops(model, batches, loss):
    """Gradients by backward(), one batch at a time, less their mean; a batch a row."""
    rows = []
    for x, y in batches:
        model.zero_grad()
        loss(model(x), y).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy())
    return np.array(rows, dtype=np.float64) - np.mean(np.array(rows, dtype=np.float64), axis=0)


def test_published_estimator_equals_plain_loops():
    model = network().eval()
    batches = classified()
    found = gradient_noise(model, batches, loss=nn.functional.cross_entropy, estimator=published)
    rows = residuals_by_loops(copy.deepcopy(model), batches, nn.functional.cross_entropy)
    assert (found.batches, found.whole.parameters) == (12, rows.shape[1])
    flat = rows.ravel()
    block = max(m for m in range(1, int(len(flat) ** 0.5) + 1) if len(flat) % m == 0)
    sums = flat.reshape(-1, block).sum(axis=1)
    one, many = np.abs(flat[flat != 0]), np.abs(sums[sums != 0])
    index = np.log(block) / (np.log(many).mean() - np.log(one).mean())
    assert isinstance(found.whole.stable, StableFit)
    assert found.whole.stable.index == pytest.approx(min(index, 2), rel=1e-4)


def test_layers_are_the_named_parameters():
    model, batches = network().eval(), classified(count=40)
    loss = nn.functional.cross_entropy
    found = gradient_noise(model, batches, loss=loss, estimator=TwoPoint(), tail=Clauset())
    rows = residuals_by_loops(copy.deepcopy(model), batches, loss)
    start = 0
    for layer, (name, p) in zip(found.layers, model.named_parameters(), strict=True):
        part = rows[:, start : start + p.numel()]
        start += p.numel()
        assert (layer.name, layer.parameters, layer.coordinates) == (name, p.numel(), p.numel())
        expected = TwoPoint().fit(part.ravel())
        assert type(layer.stable) is type(expected)
        if isinstance(expected, StableFit):
            assert layer.stable.index == pytest.approx(expected.index, rel=1e-4)
        tail = Clauset().fit(np.abs(part).ravel())
        if isinstance(tail, PowerLawFit):
            assert layer.tail.n_tail == pytest.approx(tail.n_tail, rel=0.01, abs=2)
    assert {type(layer.stable) for layer in found.layers} == {StableFit}


def test_light_and_heavy_noise():
    light, heavy = (
        gradient_noise(linear(), regression(noise), loss=squared, per_layer=False)
        for noise in ("normal", "Student")
    )
    assert heavy.whole.stable.index < 1.6 < light.whole.stable.index
    assert heavy.whole.tail.alpha - 1 == pytest.approx(1.5, abs=0.3)
    assert light.whole.tail.alpha - 1 > 4
    assert light.layers == heavy.layers == ()


def test_coordinates_of_different_spread_only_look_heavy():
    """Gaussian noise, but inputs of very different size: the pool is a mixture."""
    scale = torch.logspace(-2, 1, 30)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 64, 30, generator=generator) * scale
    y = torch.randn(200, 64, 1, generator=generator)
    found = gradient_noise(linear(), list(zip(x, y, strict=True)), loss=squared).whole
    assert found.stable.index < 1.2
    assert found.scaled.index > 1.95


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_left_as_it_was(training):
    model = network().train(training)
    model[4].bias.requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(123)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with torch.no_grad():
        found = gradient_noise(model, classified(), loss=nn.functional.cross_entropy)
    assert [layer.name for layer in found.layers] == [
        name for name, _ in model.named_parameters() if name != "4.bias"
    ]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model[0].weight.grad.eq(7).all()
    assert all(p.grad is None for n, p in model.named_parameters() if n != "0.weight")
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_a_failing_batch_leaves_the_model_as_it_was():
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    bad = [*classified(count=3), (torch.zeros(4, 5), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradient_noise(model, bad, loss=nn.functional.cross_entropy)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_follows_the_seed():
    model, loss = network(), nn.functional.cross_entropy
    one, again, other = (
        gradient_noise(model, classified(), loss=loss, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_thinning_keeps_a_random_part_and_says_so():
    batches = regression("Student", count=100, features=2000)
    model = nn.Sequential(linear(2000), nn.Linear(1, 1))
    found = gradient_noise(model, batches, loss=squared, limit=50_000)
    weight, *small = found.layers
    assert weight.parameters == 2000
    assert 200 <= weight.coordinates <= 500
    assert [layer.coordinates for layer in small] == [1, 1]
    assert found.whole.coordinates == weight.coordinates + 2
    full = gradient_noise(model, batches, loss=squared)
    assert full.layers[0].coordinates == 2000
    assert weight.stable.index == pytest.approx(full.layers[0].stable.index, abs=0.05)
    assert weight.stable.index != full.layers[0].stable.index


def test_thinned_rows_stay_aligned_with_their_coordinates():
    """Each coordinate has its own constant noise size; thinning midway must not mix them."""
    scale = torch.logspace(-3, 3, 800)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(100, 64, 800, generator=generator) * scale
    y = torch.randn(100, 64, 1, generator=generator)
    found = gradient_noise(linear(800), list(zip(x, y, strict=True)), loss=squared, limit=30_000)
    assert found.whole.coordinates < 800
    assert found.whole.scaled.index > 1.95


def test_a_frozen_layer_or_a_layer_without_noise():
    model = nn.Sequential(linear(), nn.Linear(1, 1, bias=False))
    model[1].weight.requires_grad_(False)
    found = gradient_noise(model, regression("normal", count=10), loss=squared)
    assert [layer.name for layer in found.layers] == ["0.weight"]
    dead = nn.Sequential(linear(), nn.Linear(1, 1))
    nn.init.zeros_(dead[1].weight)
    weight = gradient_noise(dead, regression("normal", count=10), loss=squared).layers[0]
    assert isinstance(weight.stable, NoFit)
    assert weight.scaled == NoFit(reason="0 values, needs 100", n=0)


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (linear(), [], "at least 2 batches, but got 0"),
        (linear(), regression("normal", count=1), "at least 2 batches, but got 1"),
        (nn.ReLU(), regression("normal", count=3), "no parameter of the model requires a gradient"),
        (
            linear(),
            [(x * float("inf"), y) for x, y in regression("normal", count=3)],
            "gradient of 'weight' is NaN or infinite",
        ),
    ],
)
def test_what_cannot_be_measured(model, batches, message):
    with pytest.raises(UsageError, match=message):
        gradient_noise(model, batches, loss=squared)


def test_limit_is_checked():
    with pytest.raises(UsageError, match="limit must be at least 1, but is 0"):
        gradient_noise(linear(), regression("normal"), loss=squared, limit=0)


# ---- iterates ---------------------------------------------------------------------------


def test_iterates_are_averaged_and_centred():
    generator = np.random.default_rng(0)
    tensors = [torch.from_numpy(generator.standard_cauchy((40, 50))) for _ in range(5)]
    found = iterate_tail_index(tensors, skip=2, estimator=Koutrouvelis(), tail=Clauset())
    average = torch.stack(tensors[2:]).mean(dim=0).numpy().ravel()
    expected = Koutrouvelis().fit(average - average.mean())
    (layer,) = found.layers
    assert (found.iterates, layer.name, layer.parameters) == (3, "", 2000)
    assert layer.stable.index == pytest.approx(expected.index, rel=1e-9)
    assert layer.tail == Clauset().fit(np.abs(average - average.mean()))
    assert found.median == layer.stable.index
    assert layer.stable.index == pytest.approx(1, abs=0.15)


def test_live_tensors_of_a_generator():
    model = nn.Linear(20, 30).double()  # in single precision every reading is a copy anyway
    copies = []

    def training():
        for k in range(4):
            with torch.no_grad():
                model.weight.mul_(1.5).add_(torch.arange(600.0).reshape(30, 20) ** k)
            copies.append(copy.deepcopy(model.state_dict()))
            yield model.state_dict()

    lazily = iterate_tail_index(training())
    assert lazily == iterate_tail_index(copies)
    assert [layer.name for layer in lazily.layers] == ["weight", "bias"]
    assert isinstance(lazily.layers[1].stable, NoFit)
    assert lazily.median == lazily.layers[0].stable.index


def test_whole_numbers_are_no_iterates():
    found = iterate_tail_index([nn.BatchNorm1d(200).state_dict()])
    assert [layer.name for layer in found.layers] == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
    ]
    assert found.median is None


@pytest.mark.parametrize(
    ("iterates", "skip", "message"),
    [
        ([], 0, "nothing to average: got 0 iterates"),
        ([torch.ones(3)], 1, "nothing to average: got 0 iterates after the first 1"),
        ([{"n": torch.ones(3, dtype=torch.long)}], 0, "no floating-point tensor"),
        ([torch.ones(3), torch.ones(4)], 0, "iterate 1 has other names or shapes"),
        ([{"a": torch.ones(3)}, {"b": torch.ones(3)}], 0, "iterate 1 has other names or shapes"),
        ([torch.full((200,), float("nan"))], 0, "needs finite values"),
        ([torch.ones(3)], -1, "skip must not be negative"),
    ],
)
def test_iterates_that_cannot_be_averaged(iterates, skip, message):
    with pytest.raises(UsageError, match=message):
        iterate_tail_index(iterates, skip=skip)
