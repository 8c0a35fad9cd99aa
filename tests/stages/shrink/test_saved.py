"""Files of smaller networks: whole, strict, and without code."""

import json
import struct

import pytest
import torch
from torch import nn

from tailor.errors import PayloadError, SourceError, UsageError
from tailor.numerics.nodes import Horseshoe
from tailor.stages.nodes import NodeScale
from tailor.stages.shrink import load_shrunk, save_shrunk, shrink
from tailor.weights.source import read
from tests.stages.shrink.networks import NETWORKS, Separable, draw, mlp, network, randomized


@pytest.mark.parametrize("name", ["mlp", "conv", "gated", "residual", "separable"])
def test_a_file_gives_the_network_back(name, tmp_path):
    model, x, _ = network(name)
    small = shrink(shrink(model, 0.3, x).model, 0.4, x).model  # twice
    path = save_shrunk(small, tmp_path / "small.safetensors")
    again = load_shrunk(path, NETWORKS[name][0]).eval()
    assert torch.equal(again(x), small(x))
    assert again.state_dict().keys() == small.state_dict().keys()
    assert all(torch.equal(again.state_dict()[k], v) for k, v in small.state_dict().items())
    for one, other in zip(again.modules(), small.modules(), strict=True):
        assert repr(one) == repr(other)
    numbers = sum(v.numel() * v.element_size() for v in small.state_dict().values())
    assert path.stat().st_size < numbers + 6000


def test_other_tools_can_read_it(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    model, x, _ = network("conv")
    small = shrink(model, 0.5, x).model
    path = save_shrunk(small, tmp_path / "small.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        assert set(file.keys()) == set(small.state_dict())
        assert torch.equal(file.get_tensor("4.weight"), small[4].weight)
        sizes = json.loads(file.metadata()["tailor.shrunk"])["modules"]
    assert sizes["4"] == {
        **{"type": "Conv2d", "out_channels": 3, "in_channels": 4, "groups": 1, "bias": True}
    }
    assert [layer.shape for layer in read(path).layers] == [
        tuple(p.shape) for n, p in small.named_parameters() if p.ndim > 1
    ]


def test_types_ties_and_what_the_factory_decides(tmp_path):
    def build():
        model = nn.Sequential(mlp(), nn.Linear(3, 7), mlp(False), nn.Linear(3, 3), nn.Linear(3, 3))
        model[4].weight = model[3].weight
        model[3].bias.requires_grad_(False)
        return model

    small = shrink(build(), 0.5, draw(2, 7)).model.to(torch.bfloat16)
    path = save_shrunk(small, tmp_path / "small.safetensors")
    again = load_shrunk(path, build)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert again[4].weight is again[3].weight
    assert not again[3].bias.requires_grad
    assert again[3].weight.requires_grad
    assert again.training
    path.unlink()  # the tensors do not hang on the file
    again(draw(2, 7).to(torch.bfloat16))


def test_new_biases_and_single_channels(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False))

    model = randomized(build())
    with torch.no_grad():
        model[0].weight[:3] = 0
    small = shrink(model, 0.0, draw(2, 4)).model
    again = load_shrunk(save_shrunk(small, tmp_path / "bias"), build)
    assert torch.equal(again(draw(2, 4)), small(draw(2, 4)))
    model, x = randomized(Separable()), draw(2, 3, 5, 5)
    small = shrink(model, 0.95, x).model
    assert small.depth.groups == small.act.num_parameters == 1
    again = load_shrunk(save_shrunk(small, tmp_path / "one"), Separable)
    assert torch.equal(again.eval()(x), small(x))


def test_node_scales_are_cut_too(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(4, 6), NodeScale(6, Horseshoe()), nn.Linear(6, 2))

    small = shrink(build(), 0.5, draw(2, 4)).model
    again = load_shrunk(save_shrunk(small, tmp_path / "scales"), build)
    assert torch.equal(again(draw(2, 4)), small(draw(2, 4)))


# What is refused


@pytest.fixture(scope="module")
def halved():
    model, x, _ = network("mlp")
    return shrink(model, 0.5, x).model


@pytest.fixture
def stored(halved, tmp_path):
    return save_shrunk(halved, tmp_path / "small.safetensors")


def rewritten(path, change):
    """The file with another statement of sizes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    sizes = json.loads(header["__metadata__"]["tailor.shrunk"])
    header["__metadata__"]["tailor.shrunk"] = change(sizes) or json.dumps(sizes)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def module(name, key, value):
    def change(sizes):
        sizes["modules"].setdefault(name, {})[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (module("0", "out_features", 13), "out_features of 0 is 13, not from 1 to 12"),
        (module("0", "out_features", 10**18), "not from 1 to 12"),
        (module("0", "out_features", 0), "out_features of 0 is 0"),
        (module("0", "out_features", True), "out_features of 0 is True"),
        (module("0", "out_features", "6"), "out_features of 0 is '6'"),
        (module("0", "out_features", 5), r"0\..* has shape \(6,.*\), but \(5,.*\) is needed"),
        (module("0", "type", "Conv2d"), "it has a Conv2d '0', which factory does not build"),
        (module("9", "type", "Linear"), "it has a Linear '9', which factory does not build"),
        (module("__class__", "type", "type"), "which factory does not build"),
        (module("0", "training", False), "what it states of 0 is not bias, in_features, out"),
        (module("0", "bias", False), r"it holds 0\.bias, which the network of factory lacks"),
        (lambda sizes: sizes.update(version=2), "another version of tailor wrote it"),
        (lambda sizes: sizes.update(modules=[1]), "the sizes of its layers are no objects"),
        (lambda sizes: sizes.update(modules={"0": 3}), "the sizes of its layers are no objects"),
        (lambda sizes: "[" * 100_000, "sizes of its layers are not valid JSON"),
        (lambda sizes: "{", "sizes of its layers are not valid JSON"),
        (lambda sizes: "3", "another version of tailor"),
    ],
)
def test_sizes_that_are_wrong_are_refused(stored, change, message):
    with pytest.raises(PayloadError, match=message):
        load_shrunk(rewritten(stored, change), mlp)


def test_other_files_are_refused(stored, tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        load_shrunk(tmp_path / "none", mlp)
    with pytest.raises(SourceError, match="there is no file"):
        load_shrunk(tmp_path, mlp)
    with pytest.raises(UsageError, match="factory must build a module, but gave a int"):
        load_shrunk(stored, lambda: 3)
    data = stored.read_bytes()
    for damaged in (b"", data[:7], data[:100], data[:-1], data + b"0", struct.pack("<Q", 2**60)):
        stored.write_bytes(damaged)
        with pytest.raises(SourceError, match="is not a whole safetensors file"):
            load_shrunk(stored, mlp)


def test_plain_safetensors_and_missing_tensors_are_refused(stored, tmp_path):
    from safetensors.torch import save_file

    save_file(mlp().state_dict(), tmp_path / "plain")
    with pytest.raises(PayloadError, match="does not state the sizes of layers"):
        load_shrunk(tmp_path / "plain", mlp)
    model = mlp()
    metadata = {"tailor.shrunk": '{"version":1,"modules":{}}'}
    state = model.state_dict()
    save_file({k: v for k, v in state.items() if k != "3.bias"}, tmp_path / "less", metadata)
    with pytest.raises(PayloadError, match=r"it lacks 3\.bias"):
        load_shrunk(tmp_path / "less", mlp)
    save_file(state | {"0.bias": state["0.bias"].int()}, tmp_path / "whole", metadata)
    with pytest.raises(PayloadError, match=r"0\.bias is of torch\.int32, but the network has"):
        load_shrunk(tmp_path / "whole", mlp)


def test_only_tensors_are_saved(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(UsageError, match="_extra_state is a dict, but only tensors can be saved"):
        save_shrunk(nn.Sequential(Extra(2, 2)), tmp_path / "extra")
