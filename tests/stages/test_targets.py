"""Which weights a method acts on."""

import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.stages.targets import ends, rows, targets, whole


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.ModuleList([nn.Linear(4, 4) for _ in range(11)])
        self.twin = nn.Linear(4, 4)
        self.twin.weight = self.body[0].weight
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def names(found):
    return [one.name for one in found]


def test_natural_order_ties_once_and_the_parameters_themselves():
    model = Net()
    found = targets(model, who="a test")
    body = [f"body.{i}.weight" for i in range(11)]
    assert names(found) == [*body, "embed.weight", "head.weight", "stem.weight"]
    assert found[2].parameter is model.body[2].weight
    assert found[-1].kind == "conv2d"


def test_patterns():
    found = targets(Net(), "body.*", ("body.1*", "body.9.weight"), who="a test")
    assert names(found) == [f"body.{i}.weight" for i in (0, 2, 3, 4, 5, 6, 7, 8)]


def test_wrappers_do_not_change_names():
    compiled = torch.compile(nn.Sequential(nn.Linear(2, 3)), backend="eager")
    assert names(targets(compiled, who="a test")) == ["0.weight"]


def test_ends_are_those_of_the_order_of_modules():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert ends(model) == ("0.weight", "3.weight")
    assert ends(nn.Sequential(nn.Linear(4, 2))) == ()
    assert ends(Net()) == ("embed.weight", "stem.weight", "head.weight")

    class Named(nn.Module):  # the last by name is not the last
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.fc = nn.Linear(4, 2)

    assert ends(Named()) == ("fc.weight",)


def test_a_tensor_that_is_not_spread_is_whole():
    tensor = torch.arange(6.0).reshape(3, 2)
    held = rows(tensor)
    assert (held.first, held.total) == (0, 3)
    assert held.local.data_ptr() == tensor.data_ptr()
    assert torch.equal(whole(tensor), tensor)


def frozen():
    model = nn.Linear(2, 3)
    model.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: targets(Net(), "nothing.*", who="Noise"), r"Noise: no layer fits nothing\.\*"),
        (lambda: targets(frozen(), who="Noise"), "Noise would change weight, which is frozen"),
        (
            lambda: targets(nn.Linear(2, 3).half(), who="Noise"),
            "weight is stored in float16, in which most small changes",
        ),
        (
            lambda: targets(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), who="Noise"),
            "computed anew",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UsageError, match=message):
        make()
