"""Layers whose readers are unknown are left alone, and the reason is told."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from tailor.errors import UsageError
from tailor.stages.shrink import shrink
from tests.stages.shrink.networks import assert_close, draw, mlp, randomized


class Pair(nn.Module):
    """Two layers, with something between them; a third chain can always be cut."""

    def __init__(self, between, width=6, layer=None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 6), nn.Linear(width, 4)
        self.tail = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
        self.between, self.layer = between, layer

    def forward(self, x):
        return self.tail(torch.relu(self.fc2(self.between(self, self.fc1(x)))))


def reasons(model, x):
    found = shrink(randomized(model), 0.5, x)
    assert_close(found.model(x)[:0], model(x)[:0])  # it runs, with the same number of outputs
    return {one.name: one.reason for one in found.left_alone}


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda m, h: torch.softmax(h, -1), "softmax reads its units"),
        (lambda m, h: functional.layer_norm(h, (6,)), "layer_norm reads its units"),
        (lambda m, h: h + m.fc1.bias, "its weights are read without calling it"),
        (lambda m, h: h * torch.arange(6.0), "mul joins its units with others, as in a residual"),
        (lambda m, h: h - h.mean(-1, keepdim=True), "mean reads its units"),
        (lambda m, h: torch.cat([h[:, :3], h[:, 3:]], 1), "getitem reads its units"),
        (lambda m, h: h.clamp(max=torch.ones(6)), "clamp reads its units together with others"),
        (lambda m, h: torch.relu(h).relu_() + h.relu_(), "relu changes its units in place"),
        (lambda m, h: h.view(-1, 6), "view reads its units"),
        (lambda m, h: h.T.flatten(1).T, "T reads its units"),
        (lambda m, h: h * h.shape[1], "shape reads its units"),
        (lambda m, h: h * h.size(-1), "size reads its units"),
        (lambda m, h: h * h.mean(), "mean reads its units"),
        (lambda m, h: m.fc1(h[:, :3]), "it is called more than once"),
    ],
)
def test_operations_that_read_all_units(between, reason):
    assert reasons(Pair(between), draw(4, 3))["fc1"].startswith(reason)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.LayerNorm(6), "layer (a LayerNorm) reads its units"),
        (nn.Softmax(-1), "layer (a Softmax) reads its units"),
        (nn.GroupNorm(2, 6), "layer (a GroupNorm) reads its units"),
        (nn.GLU(), "layer (a GLU) reads its units"),
    ],
)
def test_modules_that_read_all_units(layer, reason):
    model = Pair(lambda m, h: m.layer(h), 3 if isinstance(layer, nn.GLU) else 6, layer)
    assert reasons(model, draw(4, 3))["fc1"] == reason


def test_modules_that_read_units_twice():
    model = Pair(lambda m, h: m.layer(h, h), layer=nn.Bilinear(6, 6, 6))
    found = reasons(model, draw(4, 3))
    assert found["fc1"] == "layer reads its units together with others"
    assert found["layer"] == "a Bilinear is not cut"


def test_grouped_convolutions():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2),
        nn.ReLU(),
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    )
    assert reasons(model, draw(1, 2, 4, 4)) == {
        "0": "2 (a grouped convolution) reads its units",
        "2": "a grouped convolution is not cut",
        "4": "6 (a ConvTranspose2d) reads its units",
        "6": "a ConvTranspose2d is not cut",
        "10": "its units are the outputs",
    }


def test_tied_shared_hooked_and_computed_layers():
    model = nn.Sequential(mlp(), nn.Linear(3, 7), mlp(), nn.Linear(3, 7), mlp())
    model[2][3].weight = model[0][3].weight
    model[4][0].register_forward_hook(lambda module, args, value: value)
    parametrizations.weight_norm(model[4][3])
    found = reasons(model, draw(4, 7))
    assert found["0.3"] == "its weights are tied with those of another module"
    assert (
        found["0.0"] == "0.3 reads its units, but its weights are tied with those of another module"
    )
    assert found["4.0"] == "it has hooks"
    assert found["4.3"] == "a parametrization computes its weights"
    assert "0.5" not in found  # its readers are known


def test_hooks_on_activations_count():
    model = mlp()
    model[1].register_forward_hook(lambda module, args, value: value.sum(-1, keepdim=True) * value)
    assert reasons(model, draw(4, 7))["0"] == "1, which gets its units, has hooks"


def test_shared_modules_stay():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(nn.Linear(2, 3), shared, nn.ReLU(), shared, mlp())
    model[0] = nn.Linear(7, 3)
    model.insert(4, nn.Linear(3, 7))
    found = reasons(model, draw(4, 7))
    assert found["1"] == "it is called more than once"
    assert found["0"] == "1 reads its units, but it is called more than once"


def test_pending_masks_are_refused():
    model = mlp()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    with pytest.raises(UsageError, match=r"0 is masked by torch\.nn\.utils\.prune"):
        shrink(model, 0.5, draw(4, 7))


class Branches(nn.Module):
    """Which way it goes depends on the data, so that it cannot be traced; its parts can."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(mlp() for _ in range(2))
        self.mix = nn.Linear(3, 7)
        self.spare = mlp()

    def forward(self, x):
        for block in self.blocks:
            x = self.mix(block(x))
        return x if x.sum() > 0 else -x


def test_parts_of_what_cannot_be_traced_are_traced():
    model, x = randomized(Branches()), draw(4, 7)
    found = shrink(model, 0.5, x)
    assert [one.name for one in found.removed] == [
        "blocks.0.0",
        "blocks.0.3",
        "blocks.1.0",
        "blocks.1.3",
    ]
    said = {one.name: one.reason for one in found.left_alone}
    assert said["blocks.0.5"].startswith("its units leave blocks.0 (Branches cannot be traced: sym")
    assert said["mix"].startswith("its units leave mix")
    assert said["spare.0"] == "it is not called with example_input"
    assert found.model(x).shape == model(x).shape


class Modes(nn.Module):
    """Reads its units in training, too."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        if self.training:
            x = x / x.norm(dim=-1, keepdim=True)
        return self.fc3(torch.relu(self.fc2(x)))


def test_training_mode_counts():
    found = shrink(Modes(), 0.5, draw(4, 3))
    assert [one.name for one in found.removed] == ["fc2"]
    assert {one.name: one.reason for one in found.left_alone}["fc1"] == "norm reads its units"


def test_layers_inside_modules_of_torch_are_not_looked_into():
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 7), mlp()
    )
    found = reasons(model, draw(2, 3, 8))
    held = "it is inside a TransformerEncoderLayer, which is not looked into"
    assert found["0.linear1"] == found["0.self_attn"] == held


def test_odd_types_stay():
    model = nn.Sequential(
        nn.Linear(3, 4, dtype=torch.complex64), nn.Linear(4, 2, dtype=torch.complex64)
    )
    with pytest.raises(UsageError, match=r"its weights are of torch\.complex64"):
        shrink(model, 0.5, draw(4, 3).to(torch.complex64))


def test_layers_of_no_width_and_strange_strides():
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(mlp(), nn.Linear(3, 0), nn.Linear(0, 7), mlp())
    model[0][3].weight = nn.Parameter(draw(12, 10).T)
    found = shrink(model, 0.5, draw(4, 7))
    assert {one.name: one.reason for one in found.left_alone}["1"] == "it has an empty weight"
    assert [one.after for one in found.removed] == [6, 5, 6, 5]
