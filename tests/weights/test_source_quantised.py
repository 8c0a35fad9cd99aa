"""`read`: codes and scales are never taken for weights; 8-bit floats are multiplied by theirs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tailor import NoMatrices, read
from tests.weights.sources import W, names, reasons

I32, U8, I8 = (torch.ones(8, 8, dtype=kind) for kind in (torch.int32, torch.uint8, torch.int8))
HALF = torch.ones(4, 8, dtype=torch.float16)

# One weight "q" as each format stores it.
FORMATS = {
    "GPTQ": {"q.qweight": I32, "q.qzeros": I32 + 1, "q.scales": HALF, "q.g_idx": I32[0]},
    "AWQ": {"q.qweight": I32, "q.qzeros": I32 + 1, "q.scales": HALF},
    "HQQ": {"q.W_q": U8, "q.scale": HALF, "q.zero": HALF + 1, "q.shape": I32[0]},
    "EXL2": {"q.q_weight": I32, "q.q_scale": I32 + 1, "q.q_scale_max": HALF[0]},
    "AQLM": {"q.codes": U8, "q.codebooks": HALF, "q.scales": HALF + 1},
    "compressed-tensors": {
        **{"q.weight_packed": I32, "q.weight_scale": HALF, "q.weight_zero_point": I32 + 1}
    },
    "MXFP4": {"q_blocks": U8, "q_scales": U8 + 1},
    "bitsandbytes 8-bit": {"q.weight": I8, "q.SCB": HALF[0], "q.weight_format": U8[0, 0]},
    "bitsandbytes NF4": {
        "q.weight": U8.reshape(-1, 1),
        "q.weight.absmax": U8[0],
        "q.weight.quant_map": HALF[0],
        "q.weight.nested_absmax": HALF,
        "q.weight.quant_state.bitsandbytes__nf4": U8[1],
    },
    "bitsandbytes FP4": {
        "q.weight": U8.reshape(-1, 1),
        "q.weight.absmax": HALF,
        "q.weight.quant_state.bitsandbytes__fp4": U8[1],
    },
    "integer": {"q.weight": I8, "q.weight_scale": HALF},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantised_weight_is_listed_with_its_format(name):
    weights = read({"plain.weight": W, **FORMATS[name]})
    assert names(weights) == ["plain.weight"]
    codes = next(iter(FORMATS[name]))
    whole = f"{name}-quantised: analyze the unquantised checkpoint"
    assert reasons(weights)[codes] == whole
    floats = {key for key, part in FORMATS[name].items() if part.dtype is torch.float16}
    for key in floats:
        assert reasons(weights)[key] == f"part of {codes}, {whole}"


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_quantised_weights_alone_says_so(name):
    with pytest.raises(NoMatrices, match=f"is (part of [^ ]+, )?{name}-quantised: analyze the unq"):
        read(FORMATS[name])


def test_names_that_only_resemble_a_format_stay_layers():
    assert names(read({"net.scales": W, "net.zero": W + 1, "q.scale": W + 2})) == [
        *("net.scales", "net.zero", "q.scale")
    ]


# 8-bit floats with scales


def fp8(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("x.weight_scale", torch.tensor(0.5)),
        ("x.weight_scale", torch.tensor([0.5])),
        ("x.weight_scale_inv", torch.tensor([[0.5]])),
        ("x.scale_weight", torch.tensor(0.5)),
        ("x.weight_scale", torch.tensor([[1.0], [2.0], [4.0]])),
        ("x.weight_scale", torch.tensor([1.0, 2.0, 4.0])),
        ("x.weight_scale", torch.tensor([1.0, 2.0, 4.0], dtype=torch.bfloat16)),
    ],
)
def test_a_float8_weight_is_multiplied_by_its_scale(name, scale):
    weights = read({"x.weight": fp8(W), name: scale})
    (layer,) = weights.layers
    rows = scale.float().reshape(-1, 1)
    assert torch.equal(layer.load(), fp8(W).float() * rows)
    assert (layer.dtype, layer.note) == ("float8_e4m3fn", f"multiplied by {name}")
    assert reasons(weights) == {name: "scale of x.weight"}
    assert torch.equal(weights.others[0].load(), scale)


@given(rows=st.integers(1, 300), columns=st.integers(1, 300))
def test_blocks_of_128_have_a_scale_each(rows, columns):
    """DeepSeek-V3 (arXiv:2412.19437), section 3.3.2: one scale for 128 x 128 weights."""
    blocks = (-(-rows // 128), -(-columns // 128))
    scale = torch.arange(1.0, 1 + blocks[0] * blocks[1]).reshape(blocks)
    stored = {"x.weight": fp8(torch.full((rows, columns), 2.0)), "x.weight_scale_inv": scale}
    found = read(stored).layers[0].load()
    assert found.shape == (rows, columns)
    i, j = np.indices((rows, columns))
    assert found.tolist() == (2 * scale.numpy()[i // 128, j // 128]).tolist()


def test_experts_in_one_tensor_have_scales_too():
    experts = {"experts.up": fp8(torch.ones(5, 3, 4)), "experts.up_scale": torch.arange(5.0)}
    found = read(experts).layers[0].load()
    assert found.tolist() == (torch.arange(5.0).reshape(5, 1, 1) * torch.ones(5, 3, 4)).tolist()


def test_a_scale_that_does_not_fit_is_not_guessed_at():
    stored = {"x.weight": fp8(W), "x.weight_scale": torch.ones(7, 5), "y": W}
    weights = read(stored)
    assert names(weights) == ["y"]
    assert "float8 with a scale of shape (7, 5) that" in reasons(weights)["x.weight"]


def test_a_float8_weight_without_a_scale_is_read_as_it_is():
    (layer,) = read({"x.weight": fp8(W)}).layers
    assert (layer.load().dtype, layer.note) == (torch.float8_e4m3fn, "")


def test_scales_work_from_a_file(tmp_path):
    scale = torch.tensor([[1.0], [2.0], [4.0]])
    save_file({"x.weight": fp8(W), "x.weight_scale": scale}, tmp_path / "m.safetensors")
    (layer,) = read(tmp_path / "m.safetensors").layers
    assert torch.equal(layer.load(), fp8(W).float() * scale)
