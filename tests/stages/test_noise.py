"""Heavy-tailed noise after each step: how much, where, when not, and the same again."""

import itertools
import math

import pytest
import torch
from torch import nn, optim

from tailor.errors import UsageError
from tailor.numerics.stable.keyed import keyed_rows
from tailor.stages import noise as module
from tailor.stages.noise import LAWS, StableNoise
from tailor.stages.schedule import LinearDecay, Window

each_kind = pytest.mark.parametrize(
    ("kind", "alpha"), [("rotation", 1.6), ("iid", 1.6), ("shared", 1.6), ("gaussian", 2.0)]
)
INPUTS = torch.arange(27.0).view(3, 1, 3, 3) / 27


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 2),
            nn.Conv2d(3, 6, 2),
            nn.Flatten(),
            nn.Linear(6, 5),
            nn.Linear(5, 4),
            nn.Linear(4, 2),
        )


HIDDEN = ("1.weight", "3.weight", "4.weight")
ALL = ("0.weight", *HIDDEN, "5.weight")


class Plain(optim.Optimizer):
    """Without a learning rate; does nothing."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure=None):
        return None


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(model, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()


def stand(model, optimizer):
    """A step with zero gradients, which by itself changes nothing; what changed all the same."""
    before = values(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return {name: p - before[name] for name, p in values(model).items()}


def expected(settings, name, shape, step=0):
    """The noise by definition, without factor, in the shape of the weight."""
    law, key = LAWS[settings.kind], (settings.seed, name, step)
    columns = math.prod(shape[1:])
    drawn = keyed_rows(law, settings.alpha, key, range(shape[0]), columns)
    return drawn.expand(shape[0], columns).reshape(shape)


# ---- how much ---------------------------------------------------------------------------


@each_kind
def test_noise_is_scale_times_schedule_times_power_of_the_rate_of_the_group(kind, alpha):
    model = network()
    groups = [
        {"params": [*model[:4].parameters()], "lr": 0.1},
        {"params": [*model[4:].parameters()], "lr": torch.tensor(0.02)},
    ]
    settings = StableNoise(
        alpha=alpha, scale=0.01, kind=kind, targets="all", schedule=LinearDecay(steps=4), seed=7
    )
    optimizer = optim.SGD(groups, lr=1.0)
    injector = settings.attach(model, optimizer)
    assert injector.names == ALL
    for step, share in enumerate([1, 0.75, 0.5, 0.25, 0]):
        change = stand(model, optimizer)
        for name, difference in change.items():
            if name not in ALL:
                assert (difference == 0).all()
                continue
            rate = 0.1 if int(name[0]) < 4 else 0.02
            factor = 0.01 * share * rate ** (1 / alpha)
            wanted = factor * expected(settings, name, difference.shape, step)
            torch.testing.assert_close(difference, wanted, rtol=1e-4, atol=1e-7)
        optimizer.param_groups[0]["lr"] = 0.1


@pytest.mark.parametrize(("power", "factor"), [(0.0, 1.0), (2.0, 0.01), (None, 0.1**0.5)])
def test_power_of_the_rate(power, factor):
    model = network()
    settings = StableNoise(alpha=2, scale=0.5, lr_power=power)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    settings.attach(model, optimizer)
    change = stand(model, optimizer)["3.weight"]
    wanted = 0.5 * factor * expected(settings, "3.weight", (5, 6))
    torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-6)


def test_the_rate_is_that_of_the_step():
    model = network()
    settings = StableNoise(alpha=1.5, scale=1e-3)
    optimizer = optim.SGD(model.parameters(), lr=0.8)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    settings.attach(model, optimizer)
    for step in range(3):
        change = stand(model, optimizer)["3.weight"]
        wanted = 1e-3 * (0.8 / 2**step) ** (1 / 1.5) * expected(settings, "3.weight", (5, 6), step)
        torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-7)
        schedule.step()


def test_clip_shortens_rows_to_a_share_of_the_weights_norm():
    for kind in ("rotation", "iid", "shared"):
        model = network()
        before = values(model)
        settings = StableNoise(alpha=1.1, scale=0.2, kind=kind, lr_power=0.0, clip=0.5)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        settings.attach(model, optimizer)
        change = stand(model, optimizer)
        for name in HIDDEN:
            shape = change[name].shape
            free = (0.2 * expected(settings, name, shape)).flatten(1)
            limit = 0.5 * before[name].flatten(1).norm(dim=1)
            shorter = (limit / free.norm(dim=1)).clamp(max=1)
            assert 0 < (shorter < 1).sum() <= len(shorter)
            wanted = (free * shorter[:, None]).view(shape)
            torch.testing.assert_close(change[name], wanted, rtol=1e-4, atol=1e-6)


def test_rows_of_zeros_stay_zeros_with_a_clip():
    model = network()
    with torch.no_grad():
        model[3].weight[2] = 0
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    StableNoise(alpha=1.5, scale=0.1, clip=0.1).attach(model, optimizer)
    change = stand(model, optimizer)["3.weight"]
    assert (change[2] == 0).all()
    assert (change[[0, 1, 3, 4]] != 0).all()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_weights_stay_finite_whatever_the_noise(clip):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    StableNoise(alpha=0.05, scale=1e30, kind="iid", clip=clip).attach(model, optimizer)
    change = stand(model, optimizer)["3.weight"]
    assert change.isfinite().all()
    assert change.abs().max() > (1e37 if clip is None else 0)


def test_weights_in_other_memory_orders_and_of_double_precision():
    model = network()
    before = values(model)
    other = network().to(memory_format=torch.channels_last)
    third = network().double()
    for one in (model, other, third):
        optimizer = optim.SGD(one.parameters(), lr=0.1)
        StableNoise(alpha=1.5, scale=0.01).attach(one, optimizer)
        stand(one, optimizer)
    assert torch.equal(model[1].weight, other[1].weight)
    assert other[1].weight.stride() != model[1].weight.stride()
    assert not torch.equal(before["1.weight"], model[1].weight)
    assert third[1].weight.dtype == torch.float64
    assert not torch.equal(before["1.weight"].double(), third[1].weight)


def test_blocks_of_rows_do_not_show(monkeypatch):
    found = []
    for size in (1, 7, 10**6):
        monkeypatch.setattr(module, "block_size", lambda device, size=size: size)
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        StableNoise(alpha=1.5, scale=0.01).attach(model, optimizer)
        train(model, optimizer, 2)
        found.append(values(model))
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


# ---- where ------------------------------------------------------------------------------


class Named(nn.Module):
    """The order of the modules is not that of their names."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.middle = nn.Linear(4, 4)
        self.last_but_one = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("model", "settings", "names"),
    [
        (network(), {}, HIDDEN),
        (network(), {"targets": "all"}, ALL),
        (network(), {"layers": ["3.*", "5.*"]}, ("3.weight",)),
        (network(), {"skip": "3.*"}, ("1.weight", "4.weight")),
        (Named(), {}, ("last_but_one.weight", "middle.weight")),
        (nn.Sequential(nn.Linear(3, 2)), {}, ("0.weight",)),
    ],
)
def test_which_weights(model, settings, names):
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    assert StableNoise(alpha=1.5, scale=0.1, **settings).attach(model, optimizer).names == names


def test_a_frozen_weight_that_is_not_meant_does_no_harm():
    model = Named()
    model.words.weight.requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    assert "words.weight" not in StableNoise(alpha=1.5, scale=0.1).attach(model, optimizer).names
    model.middle.weight.requires_grad_(False)
    with pytest.raises(UsageError, match=r"StableNoise would change middle.weight, which is froz"):
        StableNoise(alpha=1.5, scale=0.1).attach(model, optimizer)


def test_a_tied_weight_gets_noise_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    settings = StableNoise(alpha=1.5, scale=0.1, lr_power=0.0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    assert settings.attach(model, optimizer).names == ("0.weight",)
    change = stand(model, optimizer)["0.weight"]
    wanted = 0.1 * expected(settings, "0.weight", (4, 4))
    torch.testing.assert_close(change, wanted, rtol=1e-4, atol=1e-6)


# ---- when -------------------------------------------------------------------------------


def test_not_while_disabled_nor_outside_the_schedule_nor_once_removed():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    injector = StableNoise(alpha=1.5, scale=0.1, schedule=Window(start=1)).attach(model, optimizer)
    moved = []
    for enabled in (True, True, False, True):
        injector.enabled = enabled
        moved.append(bool((stand(model, optimizer)["3.weight"] != 0).any()))
    injector.remove()
    moved.append(bool((stand(model, optimizer)["3.weight"] != 0).any()))
    assert moved == [False, True, False, True, False]
    assert injector.step == 4


@each_kind
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(kind, alpha):
    def start():
        model = network()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        noise = StableNoise(alpha=alpha, scale=0.01, kind=kind, seed=3)
        return model, optimizer, noise.attach(model, optimizer)

    straight, optimizer, _ = start()
    train(straight, optimizer, 7)
    first, optimizer, injector = start()
    train(first, optimizer, 3)
    saved = [one.state_dict() for one in (first, optimizer, injector)]
    assert saved[2] == {"step": 3, "seed": 3}
    second, optimizer, injector = start()
    torch.rand(5)  # no random state matters
    for one, state in zip((second, optimizer, injector), saved, strict=True):
        one.load_state_dict(state)
    train(second, optimizer, 4)
    wanted = values(straight)
    assert all(torch.equal(p, wanted[name]) for name, p in values(second).items())


def test_the_global_random_state_is_not_touched():
    state = torch.get_rng_state()
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    StableNoise(alpha=1.5, scale=0.1).attach(model, optimizer)
    stand(model, optimizer)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_injection_for_each_step_of_an_optimizer_with_a_closure():
    model = network()
    optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    injector = StableNoise(alpha=1.5, scale=1e-3).attach(model, optimizer)
    calls = itertools.count()

    def closure():
        next(calls)
        optimizer.zero_grad()
        loss = model(INPUTS).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.step(closure)
    assert injector.step == 2
    assert next(calls) > 4


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.NAdam])
def test_any_optimizer(make):
    model = network()
    optimizer = make(model.parameters(), lr=0.01)
    StableNoise(alpha=1.5, scale=1e-2).attach(model, optimizer)
    train(model, optimizer, 2)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_gradient_scaling_skips_gets_no_noise(fused):
    """Not fused: the step is not called. Fused: it is, and told of the infinite gradients."""
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01, fused=fused)
    injector = StableNoise(alpha=1.5, scale=1.0).attach(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(hasattr(optimizer, "found_inf")))
    changes = []
    for factor in (1.0, math.inf, 1.0):
        before = values(model)
        optimizer.zero_grad()
        scaler.scale(factor * model(INPUTS).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        changes.append(not all(torch.equal(p, before[name]) for name, p in values(model).items()))
    assert changes == [True, False, True]
    assert called == ([True] * 3 if fused else [False] * 2)
    assert injector.step == len(called)


@pytest.mark.parametrize("found", [0.0, 1.0, 2.0])
def test_a_flag_of_infinite_gradients_on_the_optimizer(found):
    """GradScaler sums it over devices, so that it may exceed 1."""
    model = network()
    optimizer = Plain(model.parameters())
    StableNoise(alpha=1.5, scale=1.0, lr_power=0.0).attach(model, optimizer)
    optimizer.found_inf = torch.tensor(found)
    change = stand(model, optimizer)["3.weight"]
    assert bool((change != 0).all()) is (found == 0)


# ---- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, r"tail index alpha in \(0, 2\] and a scale that is not negative, but got"),
        ({"alpha": math.nan}, r"tail index alpha in \(0, 2\]"),
        ({"scale": -1.0}, "got 1.5 and -1.0"),
        ({"scale": math.inf}, "got 1.5 and inf"),
        ({"kind": "gaussian"}, "gaussian noise has tail index 2, but alpha is 1.5"),
        ({"clip": 0.0}, "needs lr_power >= 0 and clip > 0, but got None and 0.0"),
        ({"lr_power": -1.0}, "needs lr_power >= 0 and clip > 0, but got -1.0 and None"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        StableNoise(**{"alpha": 1.5, "scale": 0.1, **settings})


def test_an_optimizer_without_the_weight():
    model = network()
    with pytest.raises(UsageError, match=r"the optimizer lacks 1.weight, to which StableNoise"):
        StableNoise(alpha=1.5, scale=1.0).attach(model, optim.SGD(model[3:].parameters(), lr=0.1))


def test_an_optimizer_without_a_rate():
    model = network()
    plain = Plain(model.parameters())
    with pytest.raises(UsageError, match=r"group of 1.weight has no learning rate; use lr_power=0"):
        StableNoise(alpha=1.5, scale=1.0).attach(model, plain)
    StableNoise(alpha=1.5, scale=1.0, lr_power=0.0).attach(model, plain)
    assert (stand(model, plain)["3.weight"] != 0).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 3, "seed": 1}, "drawn with seed 1 before, but StableNoise has seed 0"),
        ({"step": 3}, r"has step and seed, but this one has \['step'\]"),
    ],
)
def test_a_state_of_another_noise(state, message):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    injector = StableNoise(alpha=1.5, scale=1.0).attach(model, optimizer)
    with pytest.raises(UsageError, match=message):
        injector.load_state_dict(state)
