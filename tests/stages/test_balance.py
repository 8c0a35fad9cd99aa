"""TempBalance: its factors, how they act in a step, and how it gets on with other schedulers."""

import datetime
import gc
import itertools
import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)

from tailor.errors import UsageError
from tailor.numerics.powerlaw import FARMS, Clauset, Hill, XminPeak
from tailor.stages.balance import TempBalance, assign, layer_groups
from tailor.weights.views import ByName, Flattened, Fused

SIDE = 40


def with_spectrum(eigenvalues, seed=0):
    """A square matrix whose squared singular values are these."""
    generator = np.random.default_rng(seed)
    side = len(eigenvalues)
    left, right = (np.linalg.qr(generator.standard_normal((side, side)))[0] for _ in range(2))
    return torch.from_numpy(left * np.sqrt(eigenvalues) @ right)


def pareto_spectrum(alpha, count=SIDE):
    """Quantiles of a Pareto law with density exponent alpha."""
    return (1 - (np.arange(count) + 0.5) / count) ** (-1 / (alpha - 1))


def hill_mid(values):
    """The published formula, written out: 1 + n / sum log(x / xmin) from the median on."""
    rising = sorted(values)
    upper = rising[len(rising) // 2 :]
    return 1 + len(upper) / sum(math.log(x / upper[0]) for x in upper)


def network(alphas=(2.0, 3.0, 5.0), seed=0, bias=True):
    """Square linear layers in float64 with Pareto spectra."""
    layers = [nn.Linear(SIDE, SIDE, bias=bias, dtype=torch.float64) for _ in alphas]
    with torch.no_grad():
        for i, (layer, alpha) in enumerate(zip(layers, alphas, strict=True)):
            layer.weight.copy_(with_spectrum(pareto_spectrum(alpha), seed=seed + i))
            if bias:
                layer.bias.zero_()
    return nn.Sequential(*layers)


def balanced(model, lr=0.1, **options):
    optimizer = SGD(layer_groups(model, lr, layers="*"))
    return optimizer, TempBalance(optimizer, model, layers="*", **options)


def train_step(model, optimizer, seed=0):
    x = torch.randn(4, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    optimizer.zero_grad()
    (1e-3 * model(x).square().mean()).backward()
    optimizer.step()


def rates_inside(optimizer):
    """A list that collects the rates which each step of the optimizer sees."""
    seen = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups])
    )
    return seen


# Factors


def test_formula_by_hand():
    alphas = [hill_mid(pareto_spectrum(alpha)) for alpha in (2.0, 3.0, 5.0)]
    _, scheduler = balanced(network())
    middle = (alphas[1] - alphas[0]) / (alphas[2] - alphas[0]) * (1.5 - 0.5) + 0.5
    assert list(scheduler.exponents.values()) == pytest.approx(alphas, rel=1e-9)
    assert list(scheduler.factors.values()) == pytest.approx([0.5, middle, 1.5], rel=1e-8)
    assert list(scheduler.factors) == ["0.weight", "1.weight", "2.weight"]


def test_formula_equals_interpolation():
    exponents = {"a": 2.5, "b": 4.0, "c": 2.0, "d": 3.1}
    values = list(exponents.values())
    expected = np.interp(values, [min(values), max(values)], [0.6, 1.4])
    found = assign(exponents, low=0.6, high=1.4)
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-12)


def test_mappings_by_hand():
    exponents = {"a": 4.0, "b": 9.0, "c": 1.0 + 1e-9}
    assert list(assign(exponents, mapping="sqrt").values()) == pytest.approx([1, 1.5, 0.5])
    powers_of_two = {"a": 2.0, "b": 4.0, "c": 8.0}
    found = assign(powers_of_two, mapping="log", low=0.1, high=9.0)
    assert list(found.values()) == pytest.approx([0.5, 1, 1.5])


@given(
    st.lists(st.floats(1.01, 50), min_size=2, max_size=12),
    st.sampled_from(["linear", "sqrt", "log"]),
)
def test_larger_exponents_never_get_smaller_factors(values, mapping):
    exponents = {str(i): value for i, value in enumerate(values)}
    factors = assign(exponents, mapping=mapping)
    in_order = [factors[name] for name in sorted(exponents, key=exponents.__getitem__)]
    assert all(one <= two + 1e-12 for one, two in itertools.pairwise(in_order))
    if len(set(values)) == 1:
        assert set(in_order) == {1.0}
    elif mapping == "linear":
        assert (in_order[0], in_order[-1]) == (0.5, 1.5)
    else:
        assert np.mean(in_order) == pytest.approx(1)


def test_equal_exponents_give_one():
    assert assign({"a": 3.0, "b": 3.0}) == {"a": 1.0, "b": 1.0}
    assert assign({"a": 3.0}) == {"a": 1.0}
    assert assign({}) == {}
    _, scheduler = balanced(network([3.0]))
    assert scheduler.factors == {"0.weight": 1.0}


def test_low_above_high_reverses():
    _, plain = balanced(network())
    _, reverse = balanced(network(), low=1.5, high=0.5)
    for name, factor in plain.factors.items():
        assert reverse.factors[name] == pytest.approx(2 - factor)


def test_convolutions_are_pooled_over_kernel_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 24, 3, bias=False), nn.Conv2d(24, 30, 3, bias=False))
    _, scheduler = balanced(model)
    for name, weight in model.named_parameters():
        taps = weight.detach().double().numpy().transpose(2, 3, 0, 1) * math.sqrt(0.5)
        pooled = np.linalg.svd(taps, compute_uv=False).ravel() ** 2
        assert scheduler.exponents[name] == pytest.approx(hill_mid(pooled), rel=1e-9)


def test_view_and_fit_are_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 24, 3), nn.Conv2d(24, 30, 3))
    weight = model[0].weight.detach().double().flatten(1)
    _, scheduler = balanced(model, view=Flattened(), spectrum=Hill(k=12))
    values = np.linalg.svd(weight.numpy(), compute_uv=False) ** 2
    expected = Hill(k=12).fit(values).alpha
    assert scheduler.exponents["0.weight"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("spectrum", [FARMS(window=20, windows=3), XminPeak(), Clauset()])
def test_other_fits(spectrum):
    model = network()
    _, scheduler = balanced(model, spectrum=spectrum)
    first = model[0].weight.detach()
    if isinstance(spectrum, FARMS):
        expected = spectrum.fit_matrices(first[None])
    else:
        expected = spectrum.fit(np.linalg.svd(first.numpy(), compute_uv=False) ** 2)
    assert scheduler.exponents["0.weight"] == pytest.approx(expected.alpha, rel=1e-8)


def test_parts_are_averaged():
    model = network([2.0, 3.0])
    stacked = torch.cat([with_spectrum(pareto_spectrum(a), seed=7) for a in (2.0, 4.0)])
    model[1].weight = nn.Parameter(stacked)
    halves = ByName(rules=(("1.weight", Fused(parts=("a", "b"))),))
    _, scheduler = balanced(model, view=halves)
    expected = np.mean([hill_mid(pareto_spectrum(a)) for a in (2.0, 4.0)])
    assert scheduler.exponents["1.weight"] == pytest.approx(expected, rel=1e-9)


def test_a_low_rank_layer_is_fitted_to_what_is_not_zero():
    model = network([2.0, 3.0])
    values = np.concatenate([np.zeros(SIDE - 30), pareto_spectrum(4.0, 30)])
    with torch.no_grad():
        model[0].weight.copy_(with_spectrum(values))
    _, scheduler = balanced(model)
    expected = hill_mid(pareto_spectrum(4.0, 30))
    assert scheduler.exponents["0.weight"] == pytest.approx(expected, rel=1e-6)


# Refusals


def test_refused_layers_keep_one_and_say_why():
    model = network([2.0, 3.0, 4.0, 4.0, 4.0])
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
        nn.init.orthogonal_(model[3].weight)
    model[4] = nn.Linear(SIDE, 6, dtype=torch.float64)
    _, scheduler = balanced(model)
    assert scheduler.factors["0.weight"] == 0.5
    assert scheduler.factors["1.weight"] == 1.5
    assert {scheduler.factors[f"{i}.weight"] for i in (2, 3, 4)} == {1.0}
    assert "NaN" in scheduler.refusals["2.weight"]
    assert "equal but for rounding" in scheduler.refusals["3.weight"]
    assert scheduler.refusals["4.weight"] == "3 of 6 values from the threshold on, needs 10"
    assert set(scheduler.exponents) == {"0.weight", "1.weight"}


def test_orthogonal_float32_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    nn.init.orthogonal_(model[1].weight)
    _, scheduler = balanced(model)
    assert list(scheduler.refusals) == ["1.weight"]


def test_a_refusal_can_end():
    model = network([2.0, 3.0, 4.0])
    with torch.no_grad():
        kept = model[2].weight.clone()
        model[2].weight.zero_()
    _, scheduler = balanced(model)
    assert scheduler.factors["2.weight"] == 1.0
    with torch.no_grad():
        model[2].weight.copy_(kept)
    scheduler.update()
    assert scheduler.factors["2.weight"] == 1.5
    assert scheduler.refusals == {}


# How the factors act


def test_a_step_moves_each_matrix_by_its_own_rate():
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scheduler = balanced(model, lr=0.1)
    factors = iter(scheduler.factors.values())
    train_step(model, optimizer)
    for old, new in zip(before, model.parameters(), strict=True):
        rate = 0.1 * (next(factors) if new.ndim == 2 else 1.0)
        torch.testing.assert_close(old - new.detach(), rate * new.grad, rtol=1e-9, atol=1e-15)


def test_rates_are_plain_outside_a_step():
    model = network()
    optimizer, scheduler = balanced(model, lr=0.1)
    seen = rates_inside(optimizer)
    train_step(model, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 4
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 4
    assert [seen[0][i] for i in (0, 2, 3)] == pytest.approx([0.05, 0.15, 0.1])


def test_last_rates_are_those_of_the_next_step():
    model = network()
    optimizer, scheduler = balanced(model, lr=0.1)
    seen = rates_inside(optimizer)
    expected = scheduler.get_last_lr()
    train_step(model, optimizer)
    assert seen == [expected]
    assert expected[0] == 0.05
    assert expected[-1] == 0.1


def test_other_parameters_of_a_group_follow():
    model = network([2.0, 3.0])
    groups = [{"params": list(layer.parameters()), "lr": 0.1} for layer in model]
    optimizer = SGD(groups)
    scheduler = TempBalance(optimizer, model, layers="*")
    before = model[0].bias.detach().clone()
    train_step(model, optimizer)
    torch.testing.assert_close(before - model[0].bias.detach(), 0.05 * model[0].bias.grad)
    assert scheduler.get_last_lr() == pytest.approx([0.05, 0.15])


def test_rates_that_are_tensors():
    model = network()
    shared = torch.tensor(0.1, dtype=torch.float64)
    optimizer = Adam(layer_groups(model, shared, layers="*"))
    scheduler = TempBalance(optimizer, model, layers="*")
    seen = rates_inside(optimizer)
    told = scheduler.get_last_lr()
    train_step(model, optimizer)
    scheduler.step()
    assert [float(seen[0][i]) for i in (0, 2, 3)] == pytest.approx([0.05, 0.15, 0.1])
    assert seen[0] == told
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    assert float(shared) == 0.1
    told[3].fill_(7.0)  # a copy, as PyTorch promises
    assert float(shared) == 0.1


def test_a_step_that_fails_leaves_no_factor_behind():
    model = network()
    optimizer, _ = balanced(model)
    seen = rates_inside(optimizer)

    def broken():
        raise RuntimeError("no gradient")

    with pytest.raises(RuntimeError, match="no gradient"):
        optimizer.step(broken)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 4
    train_step(model, optimizer)
    assert seen[0] == seen[1]


def test_all_hooks_see_the_rates_with_factors():
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="*"))
    seen = []

    def look(optimizer, *_):
        seen.append([group["lr"] for group in optimizer.param_groups])

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    scheduler = TempBalance(optimizer, model, layers="*")
    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    train_step(model, optimizer)
    assert seen == [scheduler.get_last_lr()] * 4


def test_nothing_keeps_the_optimizer_alive():
    model = network()
    optimizer, scheduler = balanced(model)
    train_step(model, optimizer)
    left = weakref.ref(optimizer), weakref.ref(scheduler)
    gc.disable()
    try:
        del optimizer, scheduler
        assert left[0]() is None
        assert left[1]() is None
    finally:
        gc.enable()


def test_factors_outlive_the_scheduler():
    model = network()
    optimizer, scheduler = balanced(model)
    seen = rates_inside(optimizer)
    del scheduler
    train_step(model, optimizer)
    assert seen[0][0] == 0.05


def test_a_loaded_optimizer_is_balanced_too():
    model = network()
    optimizer, _ = balanced(model)
    seen = rates_inside(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())  # makes new groups
    train_step(model, optimizer)
    assert seen[0][0] == 0.05
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 4


def test_remove_lets_go():
    model = network()
    optimizer, scheduler = balanced(model, lr=0.1)
    scheduler.remove()
    scheduler.remove()  # once more does no harm
    seen = rates_inside(optimizer)
    train_step(model, optimizer)
    assert seen == [[0.1] * 4]
    TempBalance(optimizer, model, layers="*")  # free for another


# Other schedulers

SCHEDULES = {
    "cosine": lambda o: CosineAnnealingLR(o, T_max=4, eta_min=0.01),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, T_0=3),
    "lambda": lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "one cycle": lambda o: OneCycleLR(o, max_lr=0.3, total_steps=9),
    "warm up, then cosine": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, total_iters=3), CosineAnnealingLR(o, T_max=5)], milestones=[3]
    ),
    "chained": lambda o: ChainedScheduler(
        [ExponentialLR(o, 0.9), CosineAnnealingLR(o, T_max=7)], optimizer=o
    ),
}


@pytest.mark.parametrize("first", ["balance", "schedule"])
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_any_schedule_gives_the_plain_rate(make, first):
    alone = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = make(alone)
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="*"))
    if first == "balance":
        scheduler, schedule = TempBalance(optimizer, model, layers="*"), make(optimizer)
        steps = (scheduler.step, schedule.step)
    else:
        schedule, scheduler = make(optimizer), TempBalance(optimizer, model, layers="*")
        steps = (schedule.step, scheduler.step)
    seen = rates_inside(optimizer)
    for epoch in range(8):  # beyond the end of the cosine, where its rate is 0 and rises again
        factors = list(scheduler.factors.values())
        plain = alone.param_groups[0]["lr"]
        train_step(model, optimizer, seed=epoch)
        assert seen[-1] == pytest.approx([*(plain * f for f in factors), plain], rel=1e-9)
        alone.step()
        reference.step()
        for step in steps:
            step()


def test_inside_a_chain():
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="*"))
    chain = ChainedScheduler(
        [CosineAnnealingLR(optimizer, T_max=4), TempBalance(optimizer, model, layers="*")]
    )
    for epoch in range(1, 4):
        train_step(model, optimizer)
        chain.step()
        plain = 0.05 * (1 + math.cos(math.pi * epoch / 4))
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([plain] * 4)


def test_inside_a_sequence():
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="*"))
    scheduler = TempBalance(optimizer, model, layers="*")
    sequence = SequentialLR(optimizer, [scheduler, ExponentialLR(optimizer, 0.5)], milestones=[2])
    for _ in range(3):
        train_step(model, optimizer)
        sequence.step()
    assert scheduler.last_epoch == 1
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05] * 4)


def test_factors_change_every_so_many_steps():
    model = network()
    optimizer, scheduler = balanced(model, every=3)
    first = dict(scheduler.factors)
    optimizer.step()
    with torch.no_grad():
        model[1].weight.copy_(with_spectrum(pareto_spectrum(2.2)))
    told = []
    for _ in range(3):
        scheduler.step()
        told.append(scheduler.factors == first)
    assert told == [True, True, False]


# State


def test_resuming_equals_going_on():
    def start(model):
        optimizer = SGD(layer_groups(model, 0.1, layers="*"), momentum=0.9)
        schedule = CosineAnnealingLR(optimizer, T_max=8)
        return optimizer, schedule, TempBalance(optimizer, model, layers="*", every=2)

    def go(model, parts, epochs):
        optimizer, schedule, scheduler = parts
        for epoch in epochs:
            train_step(model, optimizer, seed=epoch)
            with torch.no_grad():  # so that the exponents really change from epoch to epoch
                model[1].weight[epoch] *= 3
            schedule.step()
            scheduler.step()

    straight = network()
    parts = start(straight)
    go(straight, parts, range(6))

    half = network()
    half_parts = start(half)
    go(half, half_parts, range(3))
    saved = json.loads(json.dumps(half_parts[2].state_dict()))  # numbers and text alone
    resumed = network()
    resumed.load_state_dict(half.state_dict())
    new_parts = start(resumed)
    assert new_parts[2].factors != saved["factors"]  # what construction alone would give
    new_parts[2].load_state_dict(saved)
    for new, old in zip(new_parts[:2], half_parts[:2], strict=True):
        new.load_state_dict(old.state_dict())
    go(resumed, new_parts, range(3, 6))

    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert new_parts[2].state_dict() == parts[2].state_dict()


def test_state_round_trip_and_copies():
    _, scheduler = balanced(network())
    state = scheduler.state_dict()
    _, other = balanced(network([5.0, 2.0, 3.0]))
    other.load_state_dict(state)
    assert other.state_dict() == state
    state["factors"]["0.weight"] = 9.0
    assert other.factors["0.weight"] == 0.5
    assert scheduler.factors["0.weight"] == 0.5


def test_state_of_other_layers_is_refused():
    _, scheduler = balanced(network())
    _, other = balanced(network([2.0, 3.0]))
    with pytest.raises(UsageError, match=r"other layers \(2.weight is on one side only\)"):
        other.load_state_dict(scheduler.state_dict())


# Groups


class Residual(nn.Module):
    """Names whose alphabetical order is not that of the modules."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer2 = nn.Conv2d(16, 16, 3)
        self.layer10 = nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16, 20)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.first = nn.Linear(24, 24)
        self.second = nn.Linear(24, 24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight


def test_order_and_content_of_the_groups():
    model = Residual()
    groups = layer_groups(model, 0.1, layers="*", weight_decay=5e-4)
    names = [group["name"] for group in groups]
    assert names == ["conv1.weight", "layer2.weight", "layer10.weight", "fc.weight", "rest"]
    assert [len(group["params"]) for group in groups] == [1, 1, 1, 1, 5]
    assert all(group["lr"] == 0.1 and group["weight_decay"] == 5e-4 for group in groups)
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


def test_the_ends_stay_out_by_default():
    names = [group["name"] for group in layer_groups(Residual(), 0.1)]
    assert names == ["layer2.weight", "layer10.weight", "rest"]
    names = [group["name"] for group in layer_groups(Tied(), 0.1)]
    assert names == ["first.weight", "second.weight", "rest"]
    model = nn.Sequential(nn.Embedding(50, 24), nn.Linear(24, 24), nn.Linear(24, 50))
    assert [group["name"] for group in layer_groups(model, 0.1)] == ["1.weight", "rest"]


def test_ends_are_those_of_the_whole_network():
    groups = layer_groups(Residual(), 0.1, skip=("conv1.weight", "fc.weight"))
    assert [group["name"] for group in groups] == ["layer2.weight", "layer10.weight", "rest"]


def test_a_network_of_ends_alone_is_balanced_whole():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Linear(16, 20))
    assert [g["name"] for g in layer_groups(model, 0.1)] == ["0.weight", "1.weight", "rest"]


def test_tied_weights_count_once():
    model = Tied()
    groups = layer_groups(model, 0.1, layers="*")
    assert [group["name"] for group in groups][:-1] == [
        "first.weight",
        "second.weight",
        "embed.weight",
    ]
    scheduler = TempBalance(SGD(groups), model, layers="*")
    assert list(scheduler.factors) == ["first.weight", "second.weight", "embed.weight"]


def test_layers_and_skip():
    model = Residual()
    choice = {"layers": "layer*", "skip": "layer10*"}
    optimizer = SGD(layer_groups(model, 0.1, **choice))
    assert [group["name"] for group in optimizer.param_groups] == ["layer2.weight", "rest"]
    scheduler = TempBalance(optimizer, model, **choice)
    assert list(scheduler.factors) == ["layer2.weight"]


def test_no_group_of_the_rest_without_a_rest():
    groups = layer_groups(network([2.0, 3.0], bias=False), 0.1, layers="*")
    assert [group["name"] for group in groups] == ["0.weight", "1.weight"]


def test_frozen_parameters():
    model = network()
    model[0].bias.requires_grad_(False)
    assert len(layer_groups(model, 0.1, layers="*")[-1]["params"]) == 2
    model[0].weight.requires_grad_(False)
    with pytest.raises(UsageError, match=r"TempBalance would change 0.weight, which is frozen"):
        layer_groups(model, 0.1, layers="*")


# Errors


def test_a_shared_group_is_refused():
    model = network()
    with pytest.raises(UsageError, match=r"1.weight is in one group with 0.weight of the optim"):
        TempBalance(SGD(model.parameters(), lr=0.1), model)


def test_a_matrix_without_group_is_refused():
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="0.*"))
    partial = SGD([group for group in optimizer.param_groups if group["name"] != "rest"])
    with pytest.raises(UsageError, match=r"1.weight is in no group .* layer_groups\(model, lr\)"):
        TempBalance(partial, model, layers="*")


def test_two_on_one_optimizer_are_refused():
    model = network()
    optimizer, _ = balanced(model)
    with pytest.raises(UsageError, match="another TempBalance acts on this optimizer"):
        TempBalance(optimizer, model, layers="*")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "low and high must be positive factors, but are 0.0 and 1.5"),
        ({"high": math.inf}, "low and high must be positive factors"),
        ({"every": 0}, "every must be at least 1 step, but is 0"),
        ({"layers": "nothing*"}, "TempBalance: "),
    ],
)
def test_settings_out_of_range(options, message):
    model = network()
    optimizer = SGD(layer_groups(model, 0.1, layers="*"))
    with pytest.raises(UsageError, match=message):
        TempBalance(optimizer, model, **{"layers": "*", **options})


# Several processes


def _work(rank, folder):
    """Balance a model that differs between the processes, and one that is sharded over them."""
    meet = f"file://{folder}/meet"
    minute = datetime.timedelta(minutes=1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=minute)
    try:
        _, scheduler = balanced(network([2.0 + rank, 3.0, 5.0]))  # as GPUs that round otherwise
        sharded = network()
        for layer in (*sharded, sharded):
            fully_shard(layer)
        _, spread = balanced(sharded)
        found = [scheduler.state_dict(), spread.state_dict()]
        Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def test_processes_agree_and_shards_are_gathered(tmp_path):
    _, alone = balanced(network())
    other = multiprocessing.get_context("spawn").Process(target=_work, args=(1, str(tmp_path)))
    other.start()
    _work(0, str(tmp_path))
    other.join()
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        assert found == [alone.state_dict()] * 2
