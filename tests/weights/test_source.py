"""`read`: what is given in memory, what tensors are called, and which of them are layers."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from tailor import NoMatrices, SourceError, TailorError, UsageError, read
from tests.weights.sources import W, names, reasons

# Modules


def test_a_module_gives_its_matrices_in_order_and_the_rest_with_reasons():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    weights = read(model)
    assert weights.source == "Sequential"
    assert names(weights) == ["0.weight", "3.weight"]
    assert [layer.shape for layer in weights.layers] == [(2, 1, 3, 3), (3, 8)]
    assert reasons(weights) == {
        **dict.fromkeys(("0.bias", "3.bias", "1.weight", "1.bias"), "vector"),
        **dict.fromkeys(("1.running_mean", "1.running_var"), "vector"),
        "1.num_batches_tracked": "not floating point (int64)",
    }
    assert torch.equal(weights.layers[1].load(), model[3].weight)


def test_every_tensor_of_the_state_dict_is_somewhere():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    weights = read(model)
    assert {one.name for one in (*weights.layers, *weights.others)} == set(model.state_dict())


def test_tied_weights_count_once_under_their_first_name():
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3, bias=False), "readout": nn.Linear(4, 3)})
    model["readout"].weight = model["encoder"].weight
    (layer,) = read(model).layers
    assert (layer.name, layer.aliases) == ("encoder.weight", ("readout.weight",))


def test_a_shared_module_counts_once_with_aliases():
    block = nn.Linear(3, 3)
    weights = read(nn.Sequential(block, nn.ReLU(), block))
    assert [(one.name, one.aliases) for one in weights.layers] == [("0.weight", ("2.weight",))]
    assert [other.name for other in weights.others] == ["0.bias"]


def test_equal_values_in_separate_memory_are_not_tied():
    assert names(read({"a": W, "b": W.clone()})) == ["a", "b"]


def test_another_view_of_the_same_memory_is_not_tied():
    square = torch.eye(3)
    assert names(read({"a": square, "part": square[:2], "turned": square.T})) == [
        *("a", "part", "turned")
    ]


def test_parametrized_weights_appear_plainly_and_as_the_forward_pass_sees_them():
    class Halved(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    model = nn.Sequential(nn.Linear(4, 3))
    stored = model[0].weight.detach().clone()
    parametrize.register_parametrization(model[0], "weight", Halved())
    (layer,) = read(model).layers
    assert layer.name == "0.weight"
    assert torch.equal(layer.load(), stored / 2)
    layer.load().sum().backward()  # attached to the graph, so that penalties can train it
    assert torch.equal(model[0].parametrizations.weight.original.grad, torch.full((3, 4), 0.5))


def test_buffers_count_unless_they_are_not_persistent():
    model = nn.Linear(4, 3)
    model.register_buffer("kept", W.clone())
    model.register_buffer("scratch", W.clone(), persistent=False)
    assert names(read(model)) == ["kept", "weight"]


def test_a_parallel_model_has_the_names_of_the_plain_one():
    plain = nn.Sequential(nn.Linear(4, 3))
    assert names(read(nn.DataParallel(plain))) == names(read(plain)) == ["0.weight"]


def test_a_lazy_module_is_refused():
    with pytest.raises(TailorError, match="weight"):
        read(nn.Sequential(nn.Linear(4, 3), nn.LazyLinear(2)))


# Names


@pytest.mark.parametrize(
    ("stored", "canonical"),
    [
        ("module.fc.weight", "fc.weight"),
        ("_orig_mod.fc.weight", "fc.weight"),
        ("module._orig_mod.module.fc.weight", "fc.weight"),
        ("_fsdp_wrapped_module.block._fsdp_wrapped_module.weight", "block.weight"),
        ("block._orig_mod.weight", "block.weight"),
        ("submodule.weight", "submodule.weight"),
        ("module_list.weight", "module_list.weight"),
    ],
)
def test_wrappers_leave_no_trace_in_names(stored, canonical):
    (layer,) = read({stored: W}).layers
    assert (layer.name, layer.key) == (canonical, stored)


def test_names_that_would_collide_stay_as_they_are():
    found = read({"module.a": W, "a": W.clone(), "module.b": W.clone()})
    assert names(found) == ["a", "b", "module.a"]


PARTS = st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module", "a", "b", "1", "10", "²"])
STORED = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: ".".join([*parts, "w"]))


@given(st.sets(STORED, min_size=1, max_size=8))
def test_no_tensor_is_lost_and_no_name_given_twice(stored):
    weights = read({name: W.clone() for name in stored})
    assert {layer.key for layer in weights.layers} == stored
    assert len(set(names(weights))) == len(stored)


@given(st.permutations([f"layers.{i}.w" for i in (0, 1, 2, 9, 10, 11, 99, 100)]))
def test_the_order_of_names_is_natural(shuffled):
    found = names(read({name: W.clone() for name in shuffled}))
    assert found == [f"layers.{i}.w" for i in (0, 1, 2, 9, 10, 11, 99, 100)]


@pytest.mark.parametrize("odd", ["²", "1²", "x٣", "w" + "9" * 5000, "0", "", "007.1"])
def test_any_text_can_be_a_name(odd):
    # `"²".isdigit()` holds, but `int("²")` raises, as does `int("9" * 5000)`.
    assert set(names(read({odd: W, "w": W.clone()}))) == {odd, "w"}


# Mappings


def test_what_is_no_matrix_goes_to_others_with_a_reason():
    weights = read(
        {
            "matrix": W,
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(1.0),
            "vector": torch.ones(3),
            "complex": W.to(torch.complex64),
            "whole": W.to(torch.int16),
            "yes": W > 3,
            "sparse": W.to_sparse(),
            "elsewhere": W.to("meta"),
            "rows.empty": torch.zeros(3, 0),
        }
    )
    assert names(weights) == ["matrix"]
    assert reasons(weights) == {
        "empty": "empty",
        "scalar": "scalar",
        "vector": "vector",
        "complex": "not floating point (complex64)",
        "whole": "not floating point (int16)",
        "yes": "not floating point (bool)",
        "sparse": "not floating point (sparse_coo tensor on cpu)",
        "elsewhere": "not floating point (strided tensor on meta)",
        "rows.empty": "empty",
    }


@pytest.mark.parametrize("dtype", ["float8_e8m0fnu", "float8_e4m3fnuz", "float4_e2m1fn_x2"])
def test_floats_without_arithmetic_are_no_layers(dtype):
    odd = torch.empty(3, 4, dtype=getattr(torch, dtype))
    assert reasons(read({"w": W, "odd": odd})) == {"odd": f"not floating point ({dtype})"}


def test_a_mapping_is_not_copied():
    (layer,) = read({"w": W}).layers
    assert layer.load() is W


@pytest.mark.parametrize("value", [[[1.0]], None, {"w": W}])
def test_values_that_are_no_tensors_are_refused(value):
    kind = type(value).__name__
    with pytest.raises(SourceError, match=f"the mapping holds a {kind} under 'v', .* state dict"):
        read({"w": W, "v": value})


def test_without_a_matrix_there_is_nothing_to_do():
    with pytest.raises(NoMatrices, match="state dict holds no weight matrix; found: bias, scale"):
        read({"scale": torch.tensor(1.0), "bias": torch.ones(3)})
    with pytest.raises(NoMatrices, match="ReLU holds no weight matrix; found: nothing"):
        read(nn.ReLU())


def test_other_types_are_refused():
    # In a process of its own: in the tests beartype would refuse the argument first.
    code = "import tailor; tailor.read(3)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("tailor.errors.UsageError: cannot read weights from a int; give a")


# Labels


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Linear(4, 3), "linear"),
        (nn.Embedding(4, 3), "embedding"),
        (nn.Conv1d(2, 3, 3), "conv1d"),
        (nn.ConvTranspose2d(2, 3, 3), "transposed conv2d"),
        (nn.LSTM(2, 3), "lstm"),
        (nn.MultiheadAttention(4, 2), "attention"),
    ],
)
def test_a_layer_is_labelled_by_the_class_that_owns_it(module, kind):
    assert read(module).layers[0].kind == kind


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((3, 4), "matrix"), ((3, 4, 5), "3-D"), ((3, 4, 2, 2), "conv2d"), ((1,) * 6, "6-D")],
)
def test_without_a_class_a_layer_is_labelled_by_its_axes(shape, kind):
    assert read({"w": torch.zeros(shape)}).layers[0].kind == kind


# Arrays, single tensors, pairs


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_like_a_tensor(kind, order):
    array = np.array(W.numpy(), dtype=kind, order=order)
    (layer,) = read({"w": array}).layers
    assert layer.dtype == np.dtype(kind).name
    assert layer.load().tolist() == W.tolist()


def test_odd_arrays_are_read_too():
    fixed = W.numpy().copy()
    fixed.flags.writeable = False
    found = read({"backwards": W.numpy()[::-1], "fixed": fixed})
    assert [layer.load().tolist() for layer in found.layers] == [W.flip(0).tolist(), W.tolist()]


def test_an_array_of_bfloat16_is_read():
    ml_dtypes = pytest.importorskip("ml_dtypes")  # comes with onnx
    (layer,) = read({"w": W.numpy().astype(ml_dtypes.bfloat16)}).layers
    assert torch.equal(layer.load(), W.to(torch.bfloat16))


@pytest.mark.parametrize("array", [np.zeros((2, 2), object), np.zeros((2, 2), "U3")])
def test_an_array_that_holds_no_numbers_is_refused(array):
    with pytest.raises(SourceError, match=r"w is an array of .*, which torch lacks"):
        read({"w": array})


@pytest.mark.parametrize(("matrix", "label"), [(W, "tensor"), (W.numpy(), "array")])
def test_a_single_matrix_is_called_weight(matrix, label):
    weights = read(matrix)
    assert (weights.source, names(weights)) == (label, ["weight"])
    assert weights.layers[0].load().tolist() == W.tolist()


@pytest.mark.parametrize("vector", [W[0], W[0].numpy(), torch.tensor(1.0)])
def test_a_single_vector_is_refused(vector):
    with pytest.raises(UsageError, match=r"is no matrix; give one with two or more axes"):
        read(vector)


def test_pairs_are_read_from_any_iterable():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    assert names(read(model.named_parameters())) == ["0.weight", "1.weight"]
    assert names(read([("b", W.numpy() + 1), ("a", W)])) == ["a", "b"]


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([("w", W), ("w", W)], "yields the name w twice; names must differ"),
        ([("w", W), "m.pt"], r"yields a str where a pair \(name, tensor\) or a path is needed"),
        ([("w", [1.0])], "holds a list under 'w', but only tensors by name"),
        ([], "the source is empty; give at least one path or pair"),
        (["m.pt", ("w", W)], "a tuple stands among paths; give paths only"),
    ],
)
def test_other_iterables_are_refused(pairs, sentence):
    with pytest.raises(TailorError, match=sentence):
        read(iter(pairs))  # an iterator, into which the type checks of tests cannot look


# To another process


def test_a_tensor_travels_alone():
    big = torch.zeros(100, 1000)
    part = read({"w": big[:2]}).layers[0].load
    assert len(pickle.dumps(part)) < 10_000
    trained = read({"w": (W.clone().requires_grad_() * 2)}).layers[0].load
    there = pickle.loads(pickle.dumps(trained))  # noqa: S301 - our own bytes
    assert torch.equal(there(), 2 * W)
    assert not there().requires_grad
