"""`read`: what each kind of source gives, and what is refused with one clear sentence."""

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from tailor import NoMatrices, SourceError, TailorError, Weights, read

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


@pytest.mark.parametrize("value", [numpy.zeros((3, 4)), [[1.0]], None, {"w": W}])
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


# Safetensors


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_every_float_type_is_read_as_it_was_stored(tmp_path, dtype, ending):
    path, stored = tmp_path / f"m.{ending}", W.to(getattr(torch, dtype))
    (save_file if ending == "safetensors" else torch.save)({"w": stored}, path)
    weights = read(str(path))
    (layer,) = weights.layers
    assert (weights.source, layer.dtype, layer.shape) == (str(path), dtype, (3, 4))
    assert layer.load().dtype is stored.dtype
    assert torch.equal(layer.load().float(), stored.float())


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool", "complex64"])
def test_other_types_in_safetensors_are_no_layers(tmp_path, dtype):
    save_file({"w": W, "odd": W.to(getattr(torch, dtype))}, tmp_path / "m.safetensors")
    (other,) = read(tmp_path / "m.safetensors").others
    assert other.name == "odd"
    assert other.reason == f"not floating point ({other.dtype})"
    assert other.load().dtype is getattr(torch, dtype)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": W}, path)
    path.write_bytes(path.read_bytes()[:-7])
    assert "is not a whole safetensors file" in refusal(path)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 100_000_001, 3])
def test_an_absurd_header_length_is_refused(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 20)
    assert "is not a whole safetensors file" in refusal(path)


def test_a_file_that_goes_away_while_it_is_used_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": W}, path)
    (layer,) = read(path).layers
    path.unlink()
    with pytest.raises(SourceError, match="lost the tensor w while it was read"):
        layer.load()


# An index with shards


def sharded(folder: Path, weight_map: object = None) -> Path:
    """Two shards, `a` in one and `b` in the other, and their index."""
    save_file({"a": W}, folder / "1.safetensors")
    save_file({"b": W + 1}, folder / "2.safetensors")
    index = folder / "model.safetensors.index.json"
    usual = {"b": "2.safetensors", "a": "1.safetensors"}
    index.write_text(json.dumps({"weight_map": usual if weight_map is None else weight_map}))
    return index


def test_an_index_gathers_its_shards(tmp_path):
    first, second = read(sharded(tmp_path)).layers
    assert (first.name, second.name) == ("a", "b")
    assert torch.equal(second.load(), W + 1)


def test_an_index_leaves_out_what_it_does_not_name(tmp_path):
    assert names(read(sharded(tmp_path, {"a": "1.safetensors"}))) == ["a"]


def test_a_missing_shard_is_named(tmp_path):
    index = sharded(tmp_path)
    (tmp_path / "2.safetensors").unlink()
    assert "names the shard 2.safetensors, which is missing" in refusal(index)


@pytest.mark.parametrize("shard", ["../x.safetensors", "sub/x.safetensors", "{}/x.safetensors"])
def test_a_shard_outside_the_folder_is_refused(tmp_path, shard):
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    for folder in (tmp_path, inside / "sub"):
        save_file({"a": W}, folder / "x.safetensors")  # they exist, and must not be read
    index = sharded(inside, {"a": shard.format(tmp_path)})
    assert "outside its own folder; refused" in refusal(index)


@pytest.mark.parametrize("shard", ["..", ".", "", "x\0y", "x" * 300, "\ud800", None, 3])
def test_a_shard_that_is_no_file_is_refused(tmp_path, shard):
    refusal(sharded(tmp_path, {"a": shard}))


def test_a_promised_tensor_that_no_shard_holds_is_named(tmp_path):
    index = sharded(tmp_path, {"a": "1.safetensors", "c": "2.safetensors"})
    assert "promises c, but no shard holds it" in refusal(index)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", "{}", '{"weight_map": 3}', '{"weight_map": [1]}', "\xff", "[" * 10**5, " "],
)
def test_a_broken_index_is_refused(tmp_path, text):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text, encoding="latin-1")
    assert "is not an index: it needs a JSON 'weight_map'" in refusal(index)


# Folders


def test_a_folder_with_an_index_is_read_through_it(tmp_path):
    sharded(tmp_path, {"a": "1.safetensors"})
    torch.save({"c": W}, tmp_path / "c.pt")
    weights = read(tmp_path)
    assert names(weights) == ["a"]  # neither b of the other shard nor c
    assert weights.source == str(tmp_path)


def test_a_folder_without_an_index_gives_all_its_safetensors(tmp_path):
    sharded(tmp_path).unlink()
    torch.save({"c": W}, tmp_path / "c.pt")
    assert names(read(tmp_path)) == ["a", "b"]


def test_a_folder_with_one_checkpoint_gives_that(tmp_path):
    torch.save({"c": W}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    assert names(read(tmp_path)) == ["c"]


def test_one_name_in_two_files_is_refused(tmp_path):
    save_file({"a": W}, tmp_path / "1.safetensors")
    save_file({"a": W}, tmp_path / "2.safetensors")
    with pytest.raises(SourceError, match=r"two files in .* hold the name a; name one file"):
        read(tmp_path)


def test_several_checkpoints_in_a_folder_are_refused(tmp_path):
    for name in ("early.pt", "late.pth"):
        torch.save({"a": W}, tmp_path / name)
    assert "holds 2 checkpoints (early.pt, late.pth); name one file" in refusal(tmp_path)


def test_several_indexes_in_a_folder_are_refused(tmp_path):
    sharded(tmp_path).rename(tmp_path / "ema.safetensors.index.json")
    sharded(tmp_path)
    assert "holds several indexes (ema" in refusal(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("weights are elsewhere")
    assert "holds no weight file (.safetensors, .pt, .pth, .th, .bin)" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.safetensors.index.json"])
def test_a_folder_that_is_named_like_a_file_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    refusal(tmp_path)


# Checkpoints of torch


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "note": "x"},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": [state]},
        lambda state: {"my own name": state},
        lambda state: {"counts": {"seen": torch.ones(2)}, "ema": state},
        lambda state: {**state, "epoch": 3},
    ],
    ids=["plain", "state_dict", "model", "list of one", "only", "the one with matrices", "mixed"],
)
def test_the_state_dict_is_found_in_a_checkpoint(tmp_path, wrap, zipped):
    path = tmp_path / "m.pt"
    torch.save(wrap({"w": W, "b": W[0]}), path, _use_new_zipfile_serialization=zipped)
    weights = read(path)
    assert names(weights) == ["w"]
    assert reasons(weights) == {"b": "vector"}
    assert torch.equal(weights.layers[0].load(), W)


def test_tied_weights_in_a_checkpoint_stay_tied(tmp_path):
    torch.save({"a": W, "b": W}, tmp_path / "m.pt")
    (layer,) = read(tmp_path / "m.pt").layers
    assert layer.aliases == ("b",)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    target = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(target)))  # noqa: S301 - the bomb is real ...
    assert target.exists()
    target.rmdir()  # ... and must not go off below
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        state = {"w": W, "x": Bomb(target)}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        assert "holds more than weights, or none; it was not run" in refusal(path)
    path = tmp_path / "plain.bin"
    path.write_bytes(pickle.dumps(Bomb(target)))
    refusal(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_refused(tmp_path, protocol):
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"w": [1.0, 2.0]}, protocol=protocol))
    refusal(path)


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(4, 3), tmp_path / "m.pt")
    assert "torch.save(model.state_dict(), path)" in refusal(tmp_path / "m.pt")


@pytest.mark.parametrize("held", [W, [W], 3, "w"])
def test_a_checkpoint_that_is_no_mapping_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "m.pt")
    assert f"holds a {type(held).__name__}, not weights by name" in refusal(tmp_path / "m.pt")


def test_a_checkpoint_without_tensors_names_its_keys(tmp_path):
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, tmp_path / "m.pt")
    sentence = refusal(tmp_path / "m.pt", NoMatrices)
    assert sentence.endswith("its top-level keys are: epoch, args")


def test_a_checkpoint_without_matrices_is_refused(tmp_path):
    torch.save({"b": torch.ones(3)}, tmp_path / "m.pt")
    assert "holds no weight matrix; found: b" in refusal(tmp_path / "m.pt", NoMatrices)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_checkpoint_is_refused(tmp_path, zipped):
    path = tmp_path / "m.pt"
    torch.save({"w": W}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-20])
    assert "is not a whole torch checkpoint" in refusal(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    plain, path = tmp_path / "plain.pt", tmp_path / "m.pt"
    torch.save({"w": torch.zeros(500, 500)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.namelist():
            new.writestr(item, old.read(item))
    assert path.stat().st_size < plain.stat().st_size / 100
    monkeypatch.setattr(torch, "load", None)
    assert "is a compressed archive, which torch never writes; refused" in refusal(path)


# Paths


def test_a_missing_file_is_refused(tmp_path):
    assert "there is no file or folder" in refusal(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.safetensors.index.json", "m.txt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert "is empty (0 bytes); copy or download it again" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.json", "m.tailor"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    assert "has an unknown ending; tailor reads .safetensors, " in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "a/" * 3000])
def test_an_impossible_path_is_refused(tmp_path, name):
    refusal(tmp_path / name)


# Damage: whatever the bytes are, `read` answers or refuses, and nothing else escapes


def saved(write: object, ending: str) -> tuple[str, bytes]:
    """The bytes of a small good file, with its ending."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{ending}"
        write(path)
        return ending, path.read_bytes()


STATE = {"a.weight": W, "b": W[0].clone(), "c": W[:2].to(torch.bfloat16)}
GOOD = [
    saved(lambda path: save_file(STATE, path), ".safetensors"),
    saved(lambda path: torch.save(STATE, path), ".pt"),
    saved(lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False), ".pt"),
    saved(lambda path: sharded(path.parent).rename(path), ".safetensors.index.json"),
]
KINDS = ["safetensors", "zip", "legacy", "index"]


def only_answers_or_refuses(ending: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{ending}"
        sharded(path.parent).unlink()
        path.write_bytes(data)
        try:
            for layer in read(path).layers:
                layer.load()
        except TailorError as refused:
            assert str(path) in str(refused)  # noqa: PT017 - both ends are good


@pytest.mark.parametrize(("ending", "data"), GOOD, ids=KINDS)
def test_the_good_files_below_are_good(tmp_path, ending, data):
    sharded(tmp_path)
    (tmp_path / f"m{ending}").write_bytes(data)
    assert read(tmp_path / f"m{ending}").layers


@pytest.mark.parametrize(("ending", "data"), GOOD, ids=KINDS)
@settings(max_examples=60)
@given(drawn=st.data())
def test_changed_bytes_are_read_or_refused(ending, data, drawn):
    place = st.integers(0, len(data) - 1)
    changes = drawn.draw(st.dictionaries(place, st.integers(0, 255), min_size=1, max_size=4))
    changed = bytes(changes.get(i, byte) for i, byte in enumerate(data))
    only_answers_or_refuses(ending, changed)


@pytest.mark.parametrize(("ending", "data"), GOOD, ids=KINDS)
@settings(max_examples=30)
@given(drawn=st.data())
def test_cut_or_doubled_pieces_are_read_or_refused(ending, data, drawn):
    place = st.integers(0, len(data))
    start, end = sorted(drawn.draw(st.tuples(place, place)))
    times = drawn.draw(st.sampled_from([0, 2]))
    only_answers_or_refuses(ending, data[:start] + times * data[start:end] + data[end:])


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".safetensors.index.json"])
@settings(max_examples=30)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(ending, data):
    only_answers_or_refuses(ending, data)


ARCHIVE_FIELDS = {  # offset from the first entry of the central directory, with its odd value
    "version": (6, b"\xa1\x00"),  # zipfile: NotImplementedError
    "name": (46, b"\xff\xfe"),  # zipfile: UnicodeDecodeError, once the name claims to be UTF-8
}


@pytest.mark.parametrize("field", [*ARCHIVE_FIELDS, "disks"])
def test_an_archive_that_python_cannot_list_is_refused(tmp_path, field):
    bytes_ = io.BytesIO()
    torch.save({"w": W}, bytes_)
    data = bytearray(bytes_.getvalue())
    first = data.index(b"PK\x01\x02")
    if field == "disks":  # zipfile.is_zipfile itself raises: several disks
        locator = data.index(b"PK\x06\x07") if b"PK\x06\x07" in data else None
        assert locator is not None, "torch wrote no zip64 locator; this test needs another way"
        data[locator + 16] = 9
    else:
        offset, value = ARCHIVE_FIELDS[field]
        data[first + 9] |= 0x08  # the flag that names are UTF-8
        data[first + offset : first + offset + len(value)] = value
    path = tmp_path / "m.pt"
    path.write_bytes(data)
    assert "is not a whole torch checkpoint" in refusal(path)
