"""What the callbacks share, and what they say where a package is missing."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import tailor as tl
from tailor.errors import UsageError
from tailor.integrations.extras import Extras, summary
from tailor.numerics.powerlaw import NoFit
from tailor.stages.noise import StableNoise
from tailor.stages.train import LayerTail

NOISE = StableNoise(alpha=1.8, scale=1e-3)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 14), nn.Linear(14, 16), nn.Linear(16, 2))


def optimizers(model):
    return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]


def attach(model, given, **options):
    return Extras(**options).attach(model, given, step=0, writes=True)


def test_tailor_runs_without_the_packages_and_names_the_one_that_is_missing():
    program = """
import sys
import tailor, tailor.integrations.extras

packages = {"transformers", "accelerate", "lightning", "pytorch_lightning", "tensorboard"}
assert not packages & set(sys.modules), packages & set(sys.modules)
sys.modules |= dict.fromkeys(packages)  # as if they were not installed
from tailor.integrations import lightning, transformers

for module in (transformers, lightning):
    try:
        module.TailorCallback(penalties=[tailor.L2(1e-3)])
    except tailor.UsageError as error:
        print(error)
"""
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines() == [
        f"this callback needs the package {name}; install it: pip install 'tailor[{name}]'"
        for name in ("transformers", "lightning")
    ], answer.stderr


def test_a_closure_is_evaluated_once_and_before_the_penalties():
    model, expected = network(), network()
    x = torch.ones(3, 12)
    calls = []

    def closure(of):
        of.zero_grad()
        loss = of(x).square().sum()
        loss.backward()
        calls.append(of)
        return loss

    for style in ("named", "positional"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
        work = attach(model, [optimizer], penalties=(tl.L2(1.0),))
        with torch.no_grad():  # a caller may have gradients off, as torch allows
            if style == "named":
                loss = optimizer.step(closure=lambda: closure(model))
            else:
                loss = optimizer.step(lambda: closure(model))
        work.remove()
        assert calls == [model]

        optimizer = torch.optim.SGD(expected.parameters(), lr=0.01, momentum=0.5)
        handle = tl.L2(1.0).attach(expected, optimizer)
        other = closure(expected)
        optimizer.step()
        handle.remove()
        assert torch.equal(loss, other)
        assert all(map(torch.equal, model.parameters(), expected.parameters()))
        calls.clear()


# Several optimizers


def test_an_optimizer_gets_only_what_acts_on_its_weights():
    model = network()
    penalties = (tl.TailExponent(1e-3), tl.L1(1e-3, layers="[02].*"))
    work = attach(model, optimizers(model), penalties=penalties, noise=NOISE)
    first, second, third = work.state_dict()["penalties"]
    assert [text.split("(")[0] for text in first["penalties"]] == ["TailExponent", "L1"]
    assert [text.split("(")[0] for text in second["penalties"]] == ["TailExponent"]
    assert [text.split("(")[0] for text in third["penalties"]] == ["L1"]  # too small for the other
    noise = work.state_dict()["noise"]
    assert [one is None for one in noise] == [False, False, True]  # the last matrix gives outputs


def test_names_with_signs_of_patterns_are_no_patterns():
    model = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("[ab]", "a", "b*")})
    given = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model.values()]
    attach(model, given, noise=replace(NOISE, targets="all"))
    for layer, optimizer in zip(model.values(), given, strict=True):
        before = {name: one.weight.clone() for name, one in model.items()}
        optimizer.step()
        moved = [one for name, one in model.items() if not torch.equal(one.weight, before[name])]
        assert moved == [layer]


@pytest.mark.parametrize(
    ("extras", "who"), [({"penalties": (tl.L2(1e-3),)}, "L2"), ({"noise": NOISE}, "StableNoise")]
)
def test_a_weight_that_no_optimizer_holds_is_refused(extras, who):
    model = network()
    with pytest.raises(UsageError, match=rf"1\.weight.*{who}|no optimizer holds 1\.weight.*{who}"):
        attach(model, optimizers(model)[::2], **extras)


def test_noise_of_another_kind_cannot_be_divided():
    class Own:
        def attach(self, model, optimizer):
            raise AssertionError("it is not reached")

    model = network()
    with pytest.raises(UsageError, match="Own cannot be divided between 3 optimizers"):
        attach(model, optimizers(model), noise=Own())


def test_a_state_of_other_optimizers_is_refused():
    model = network()
    state = attach(model, optimizers(model), penalties=(tl.L2(1e-3),)).state_dict()
    one = [torch.optim.SGD(model.parameters(), lr=0.1)]
    extras = Extras(penalties=(tl.L2(1e-3),))
    message = "written with penalties on 3 of 3 optimizers, but now it is 1 of 1"
    with pytest.raises(UsageError, match=message):
        extras.attach(model, one, step=0, writes=True, state=state)
    assert not one[0]._optimizer_step_pre_hooks  # nothing stays behind


# What is refused


def test_a_callback_with_nothing_to_do_is_refused():
    with pytest.raises(UsageError, match="TailorCallback has nothing to do"):
        Extras()


def test_an_optimizer_that_has_no_steps_to_act_in_is_refused():
    model = network()
    with pytest.raises(UsageError, match=r"object is no torch\.optim\.Optimizer.*DeepSpeed"):
        attach(model, [object()], penalties=(tl.L2(1e-3),))
    with pytest.raises(UsageError, match="LBFGS evaluates the loss several times a step"):
        attach(model, [torch.optim.LBFGS(model.parameters())], penalties=(tl.L2(1e-3),))


def test_what_was_attached_is_taken_out_when_the_next_part_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrong = StableNoise(alpha=1.8, scale=1e-3, layers="no such layer")
    with pytest.raises(UsageError, match="StableNoise"):
        attach(model, [optimizer], penalties=(tl.L2(1e-3),), noise=wrong)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_means_leave_out_layers_without_an_exponent():
    fits = [tl.HillMid().fit(np.arange(1.0, 30) ** -power) for power in (1.0, 0.5)]
    layers = [
        LayerTail(name="", fit=fit, stable_rank=rank, spectral_norm=1.0, frobenius_norm=1.0)
        for fit, rank in ((fits[0], 1.0), (NoFit(reason="small", n=1), 3.0), (fits[1], 5.0))
    ]
    alpha = (fits[0].alpha + fits[1].alpha) / 2
    means = {"mean_stable_rank": 3.0, "mean_spectral_norm": 1.0}
    assert summary(layers) == {"mean_alpha": pytest.approx(alpha, rel=1e-12)} | means
    assert summary(layers[1:2]) == means
