"""What the tests of `read` share: a matrix, and how a test looks at what came out."""

import json
import re
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tailor import SourceError, TailorError, Weights, read

W = torch.arange(12.0).reshape(3, 4)
FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def names(weights: Weights) -> list[str]:
    return [layer.name for layer in weights.layers]


def reasons(weights: Weights) -> dict[str, str]:
    return {other.name: other.reason for other in weights.others}


def refusal(path: Path, expected: type[TailorError] = SourceError) -> str:
    """The sentence with which a path is refused; it names the path and stays on one line."""
    with pytest.raises(expected, match=re.escape(str(path))) as caught:
        read(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def sharded(folder: Path, weight_map: object = None) -> Path:
    """Two shards, `a` in one and `b` in the other, and their index."""
    save_file({"a": W}, folder / "1.safetensors")
    save_file({"b": W + 1}, folder / "2.safetensors")
    index = folder / "model.safetensors.index.json"
    usual = {"b": "2.safetensors", "a": "1.safetensors"}
    index.write_text(json.dumps({"weight_map": usual if weight_map is None else weight_map}))
    return index


def write_gguf(path: Path, **tensors: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokens", ["a", "bc", ""])
    writer.add_array("scores", [0.5, 1.5])
    writer.add_bool("flag", True)
    writer.add_custom_alignment(64)
    for name, tensor in tensors.items():
        known = {"q": gguf.GGMLQuantizationType.Q8_0, "bf": gguf.GGMLQuantizationType.BF16}
        writer.add_tensor(name, tensor, raw_dtype=known.get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_onnx(path: Path, array: np.ndarray) -> Path:
    """A model that multiplies with an array, and holds its first row, too."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "graph",
        [],
        [],
        initializer=[
            onnx.numpy_helper.from_array(array, "w"),
            onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, array[:1].shape, array[0]),
        ],
    )
    onnx.save(onnx.helper.make_model(graph), path)
    return path
