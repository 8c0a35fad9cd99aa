"""`read`: files of numpy, ONNX and GGUF, against the packages that write them."""

import pickle
import struct
import zipfile
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tailor import NoMatrices, SourceError, read
from tailor.weights.source import gguf as ours
from tests.weights.sources import W, names, reasons, refusal, write_gguf

A = W.numpy()


# Numpy


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_an_array_comes_back_as_it_was_saved(tmp_path, kind, order, save):
    array = np.array(np.arange(24).reshape(2, 3, 4), dtype=kind, order=order)
    path = tmp_path / ("m.npy" if save is np.save else "m.npz")
    save(path, array)
    (layer,) = read(path).layers
    assert (layer.shape, layer.dtype) == ((2, 3, 4), np.dtype(kind).newbyteorder("=").name)
    assert layer.name == ("weight" if save is np.save else "arr_0")
    assert layer.load().tolist() == pickle.loads(pickle.dumps(layer)).load().tolist()  # noqa: S301
    assert layer.load().tolist() == array.tolist()


def test_the_rest_of_an_archive_is_listed(tmp_path):
    np.savez(tmp_path / "m.npz", w=A, b=A[0], n=np.arange(3), s=np.array("x"))
    weights = read(tmp_path / "m.npz")
    assert reasons(weights) == {
        "b": "vector",
        "n": "not floating point (int64)",
        "s": "not floating point (str32)",
    }
    assert weights.others[1].load().tolist() == [0, 1, 2]


def test_a_lone_vector_is_refused(tmp_path):
    np.save(tmp_path / "m.npy", A[0])
    assert "holds no weight matrix; found: weight" in refusal(tmp_path / "m.npy", NoMatrices)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_arrays_of_objects_are_never_unpickled(tmp_path, save):
    path = tmp_path / ("m.npy" if save is np.save else "m.npz")
    save(path, np.array([[None]]), allow_pickle=True)
    assert "it holds Python objects, which are pickles; refused" in refusal(path)


def npy(shape: tuple[int, ...]) -> bytes:
    """A file that promises an array of this shape, and holds 48 bytes."""
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(48)


@pytest.mark.parametrize("shape", [(10**8, 10**7), (-3, -4), (3, 5)])
def test_an_array_must_fill_its_file(tmp_path, shape):
    (tmp_path / "m.npy").write_bytes(npy(shape))
    assert "is not a whole npy file" in refusal(tmp_path / "m.npy")
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("w.npy", npy(shape))
    assert "is not a whole npz file" in refusal(tmp_path / "m.npz")


# ONNX


def model(*initialisers: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(nodes, "g", [], [], initializer=initialisers))


def stored(path: Path, *initialisers: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> Path:
    onnx.save(model(*initialisers, nodes=nodes), path)
    return path


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
def test_every_float_of_onnx_is_read(tmp_path, dtype, raw):
    kind = getattr(TensorProto, dtype)
    tensor = helper.make_tensor("w", kind, (3, 4), A.flatten())
    if raw:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    assert tensor.HasField("raw_data") == raw
    (layer,) = read(stored(tmp_path / "m.onnx", tensor)).layers
    assert layer.dtype == {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype, dtype.lower())
    assert layer.load().tolist() == W.tolist()


def test_what_onnx_multiplies_with_gets_its_outputs_first(tmp_path):
    tensors = [numpy_helper.from_array(A + i, name) for i, name in enumerate("abcd")]
    tensors.append(numpy_helper.from_array(np.zeros((2, 3, 5, 5), np.float32), "e"))
    nodes = (
        helper.make_node("MatMul", ["x", "a"], ["1"]),
        helper.make_node("Gemm", ["1", "b"], ["2"]),
        helper.make_node("Gemm", ["2", "c"], ["3"], alpha=0.5, transB=1),
        helper.make_node("Gather", ["d", "3"], ["4"]),
        helper.make_node("Conv", ["4", "e"], ["5"]),
    )
    layers = read(stored(tmp_path / "m.onnx", *tensors, nodes=nodes)).layers
    assert [layer.shape for layer in layers] == [(4, 3), (4, 3), (3, 4), (3, 4), (2, 3, 5, 5)]
    kinds = ["linear", "linear", "linear", "embedding", "conv2d"]
    assert [layer.kind for layer in layers] == kinds
    assert [layer.note for layer in layers] == ["transposed", "transposed", "", "", ""]
    assert layers[0].load().tolist() == W.T.tolist()
    assert layers[2].load().tolist() == (W + 2).tolist()


def test_constants_count_and_whole_numbers_do_not(tmp_path):
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(A))
    whole = numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3), "q")
    weights = read(stored(tmp_path / "m.onnx", whole, nodes=(constant,)))
    assert names(weights) == ["c"]
    assert reasons(weights) == {"q": "not floating point (int8)"}
    assert weights.others[0].load().tolist() == [[0, 1, 2], [3, 4, 5]]


def external(folder: Path, location: str = "data.bin", **told: object) -> Path:
    """A model whose numbers lie in another file, after four other bytes."""
    tensor = TensorProto(name="w", dims=(3, 4), data_type=TensorProto.FLOAT, data_location=1)
    for key, value in {"location": location, "offset": 4, "length": 48, **told}.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "data.bin").write_bytes(bytes(4) + A.tobytes())
    (folder / "m.onnx").write_bytes(model(tensor).SerializeToString())
    return folder / "m.onnx"


def test_numbers_may_lie_in_another_file(tmp_path):
    weights = read(external(tmp_path))
    assert weights.layers[0].load().tolist() == W.tolist()
    assert weights.files == (str(tmp_path / "m.onnx"), str(tmp_path / "data.bin"))


@pytest.mark.parametrize("location", ["../data.bin", "/etc/passwd", "", "a/../../b", "s3://b/c"])
def test_another_file_outside_the_folder_is_refused(tmp_path, location):
    assert "outside its own folder; refused" in refusal(external(tmp_path, location))


@pytest.mark.parametrize("told", [{"length": 10**15}, {"offset": -1}, {"length": "x"}])
def test_a_wrong_place_in_another_file_is_refused(tmp_path, told):
    assert "is not a whole ONNX model" in refusal(external(tmp_path, **told))


def test_a_missing_other_file_is_named(tmp_path):
    path = external(tmp_path)
    (tmp_path / "data.bin").unlink()
    assert "names the file data.bin, which is missing; fetch it" in refusal(path)


@pytest.mark.parametrize("dims", [(10**9, 10**6), (3, 5), (-3, -4), (1,) * 20])
def test_a_tensor_of_onnx_must_fill_its_shape(tmp_path, dims):
    tensor = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, raw_data=A.tobytes())
    (tmp_path / "m.onnx").write_bytes(model(tensor).SerializeToString())
    assert "is not a whole ONNX model" in refusal(tmp_path / "m.onnx")


# GGUF


def test_plain_types_of_gguf_are_read_and_quantised_ones_listed(tmp_path):
    quantised = gguf.quants.quantize(np.zeros((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    bits = W.to(torch.bfloat16).view(torch.uint8).numpy()
    path = write_gguf(
        tmp_path / "m.gguf",
        w=A,
        h=A.astype(np.float16),
        d=A.astype(float),
        bf=bits,
        q=quantised,
        b=A[0],
    )
    weights = read(path)
    assert {layer.name: layer.dtype for layer in weights.layers} == {
        **{"bf": "bfloat16", "d": "float64", "h": "float16", "w": "float32"}
    }
    for layer in weights.layers:
        assert layer.load().tolist() == W.tolist()
    b, q = weights.others
    assert (b.reason, q.shape) == ("vector", (4, 64))
    assert q.reason == "quantised Q8_0; analyze the file in F32, F16 or BF16"
    with pytest.raises(SourceError, match="q is quantised Q8_0"):
        q.load()


def test_a_file_of_codes_alone_says_so(tmp_path):
    quantised = gguf.quants.quantize(np.zeros((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    sentence = refusal(write_gguf(tmp_path / "m.gguf", q=quantised), NoMatrices)
    assert "holds no weight matrix; q is quantised Q8_0; analyze the file in F32" in sentence


def test_the_names_of_types_are_those_of_the_reference():
    for number, name in ours.QUANTISED.items():
        assert gguf.GGMLQuantizationType(number).name == name
    plain = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
    for number, name in ours.PLAIN.items():
        expected = plain.get(name, name.replace("int", "I"))
        assert gguf.GGMLQuantizationType(number).name == expected


def head(tensors: int, values: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest


@pytest.mark.parametrize(
    "data",
    [
        head(2**60, 0, b""),
        head(0, 2**60, b""),
        head(0, 1, struct.pack("<Q", 2**60)),
        head(0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 2**60)),
        head(0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**60)),
        head(0, 1, struct.pack("<Q1sIQ", 1, b"k", 8, 2**60)),
        head(1, 0, struct.pack("<Q1sI", 1, b"w", 2**31)),
        head(1, 0, struct.pack("<Q1sIQQIQ", 1, b"w", 2, 2**40, 2**40, 0, 0)),
        head(1, 0, struct.pack("<Q1sIQQIQ", 1, b"w", 2, 4, 3, 0, 2**60)),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        b"GGML" + bytes(20),
    ],
)
def test_a_gguf_file_cannot_promise_more_than_it_holds(tmp_path, data):
    (tmp_path / "m.gguf").write_bytes(data)
    assert "is not a whole GGUF file" in refusal(tmp_path / "m.gguf")
