"""`read`: two factors of an adapter are one layer, with the scale of their training."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tailor import SourceError, read
from tests.weights.sources import W, names, reasons

A = torch.arange(8.0).reshape(2, 4)  # rank 2, 4 inputs
B = torch.arange(1.0, 7.0).reshape(3, 2)  # 3 outputs; no product is zero
Q = "base_model.model.layers.0.q_proj"


def adapter(folder: Path, config: dict[str, object] | None = None, layer: str = Q) -> Path:
    save_file(
        {f"{layer}.lora_A.weight": A, f"{layer}.lora_B.weight": B},
        folder / "adapter_model.safetensors",
    )
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def scale(folder: Path, config: dict[str, object]) -> float:
    """The scale that was applied under a configuration."""
    (layer,) = read(adapter(folder, config)).layers
    found = layer.load() / (B @ A)
    assert torch.allclose(found, found[0, 0].expand(3, 4))
    return float(found[0, 0])


# Which factors are a pair


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("q.lora_A.weight", "q.lora_B.weight"),
        ("q.lora_A.default.weight", "q.lora_B.default.weight"),
        ("q.lora_A", "q.lora_B"),
        ("q.lora_down.weight", "q.lora_up.weight"),
        ("q.lora.down.weight", "q.lora.up.weight"),
        ("q.lora_a", "q.lora_b"),
    ],
)
def test_two_factors_are_one_layer(down, up):
    weights = read({down: A, up: B})
    (layer,) = weights.layers
    assert (layer.name, layer.shape, layer.kind) == ("q", (3, 4), "lora")
    assert torch.equal(layer.load(), B @ A)
    left, right = layer.factors()
    assert (left.shape, right.shape) == ((3, 2), (2, 4))
    assert torch.equal(left @ right, B @ A)
    assert reasons(weights) == {down: "LoRA factor of q", up: "LoRA factor of q"}
    assert layer.note == "rank 2, no scale is known (adapter_config.json is missing), so 1"


def test_the_factors_of_a_convolution_are_flattened():
    down, up = torch.randn(2, 4, 3, 3), torch.randn(5, 2, 1, 1)
    (layer,) = read({"c.lora_down.weight": down, "c.lora_up.weight": up}).layers
    x = torch.randn(1, 4, 6, 6)
    expected = nn.functional.conv2d(nn.functional.conv2d(x, down), up)
    torch.testing.assert_close(nn.functional.conv2d(x, layer.load()), expected)
    left, right = layer.factors()
    torch.testing.assert_close(left @ right, layer.load().flatten(1))


def test_the_factors_of_an_embedding_are_turned():
    """In peft the update of an embedding is (B @ A).T, for A of (rank, tokens)."""
    down, up = torch.randn(2, 9), torch.randn(5, 2)
    (layer,) = read({"e.lora_embedding_A": down, "e.lora_embedding_B": up}).layers
    torch.testing.assert_close(layer.load(), (up @ down).T)
    left, right = layer.factors()
    torch.testing.assert_close(left @ right, (up @ down).T)


def test_several_adapters_of_a_layer_are_several_layers():
    both = {
        f"q.lora_{side}.{name}.weight": part for side, part in (("A", A), ("B", B)) for name in "xy"
    }
    assert names(read({key: part.clone() for key, part in both.items()})) == ["q.x", "q.y"]


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"q.lora_B.weight": torch.ones(3, 5)},
        {"q.lora_B.weight": torch.ones(3, 2, 3, 3)},
        {"q.lora_B.weight": torch.ones(3, 2, dtype=torch.int8)},
        {"q.lora_B.other.weight": B},
    ],
)
def test_factors_that_do_not_fit_are_no_pair(others):
    assert "q" not in names(read({"q.lora_A.weight": A, **others}))


def test_a_layer_of_the_same_name_keeps_it():
    found = read({"q": W, "q.lora_A": A, "q.lora_B": B})
    assert names(found) == ["q", "q.lora"]


def test_small_floats_are_multiplied_in_float32():
    half = {"q.lora_A": A.to(torch.bfloat16), "q.lora_B": B.to(torch.bfloat16)}
    (layer,) = read(half).layers
    assert layer.load().dtype is torch.float32
    assert layer.dtype == "bfloat16"


def test_an_adapter_of_dora_says_what_is_missing():
    (layer,) = read({"q.lora_A": A, "q.lora_B": B, "q.lora_magnitude_vector": A[0]}).layers
    assert layer.note.endswith("; the magnitudes of DoRA are not applied")


# The scale


def test_the_scale_is_alpha_by_rank(tmp_path):
    assert scale(tmp_path, {"lora_alpha": 16, "r": 2}) == pytest.approx(8)
    (layer,) = read(tmp_path / "adapter_model.safetensors").layers  # the file alone, too
    assert (layer.name, layer.note) == (Q, "rank 2, scale 8")
    assert str(tmp_path / "adapter_config.json") in read(tmp_path).files


def test_the_scale_is_alpha_by_the_root_of_the_rank_if_stabilised(tmp_path):
    found = scale(tmp_path, {"lora_alpha": 16, "r": 2, "use_rslora": True})
    assert found == pytest.approx(16 / math.sqrt(2))


def test_the_rank_is_that_of_the_factors(tmp_path):
    config = {"lora_alpha": 16, "r": 64, "rank_pattern": {"q_proj": 2}}
    assert scale(tmp_path, config) == pytest.approx(8)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("q_proj", 2),
        ("layers.0.q_proj", 2),
        (r"layers\.0\.q_proj$", 2),
        ("^layers.0.q_proj", 2),
        ("^q_proj", 8),
        ("proj", 8),
        ("layers.1.q_proj", 8),
    ],
)
def test_a_layer_may_have_an_alpha_of_its_own(tmp_path, key, expected):
    assert scale(tmp_path, {"lora_alpha": 16, "alpha_pattern": {key: 4}}) == pytest.approx(expected)


@pytest.mark.parametrize("key", ["(a+)+b", ".*q_proj", "[0-9]"])
def test_other_patterns_are_refused(tmp_path, key):
    adapter(tmp_path, {"lora_alpha": 16, "alpha_pattern": {key: 4}})
    with pytest.raises(
        SourceError, match=r"has the pattern .* in alpha_pattern, which is not read"
    ):
        read(tmp_path)


@pytest.mark.parametrize("config", [{}, {"lora_alpha": "x"}, {"lora_alpha": 1, "alpha_pattern": 3}])
def test_a_broken_configuration_is_refused(tmp_path, config):
    with pytest.raises(SourceError, match="is no configuration of LoRA: it needs lora_alpha"):
        read(adapter(tmp_path, config))


def test_a_tensor_may_hold_alpha():
    held = {"q.lora_down.weight": A, "q.lora_up.weight": B, "q.alpha": torch.tensor(3.0)}
    weights = read(held)
    torch.testing.assert_close(weights.layers[0].load(), 1.5 * (B @ A))
    assert reasons(weights)["q.alpha"] == "LoRA scale of q"


class Adapted(nn.Module):
    """Laid out as peft lays out an adapted linear layer."""

    def __init__(self, scaling: object) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 3)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)})
        self.scaling = scaling


@pytest.mark.parametrize("scaling", [{"default": 0.5}, 0.5])
def test_an_adapted_module_knows_its_scale(scaling):
    model = nn.ModuleDict({"q": Adapted(scaling)})
    update, base = read(model).layers
    assert (update.name, base.name) == ("q", "q.base_layer.weight")
    product = model["q"].lora_B["default"].weight @ model["q"].lora_A["default"].weight
    torch.testing.assert_close(update.load(), 0.5 * product)


def test_an_adapter_travels(tmp_path):
    (layer,) = read(adapter(tmp_path, {"lora_alpha": 4})).layers
    there = pickle.loads(pickle.dumps(layer))  # noqa: S301 - our own bytes
    left, right = there.factors()
    assert torch.equal(left @ right, 2 * (B @ A))
