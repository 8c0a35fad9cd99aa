"""`read`: safetensors, indexes, folders and paths, and what is refused with one sentence."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tailor import SourceError, read
from tests.weights.sources import FLOATS, W, names, refusal, sharded

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
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match="lost the tensor w while it was read"):
        layer.load()
    path.unlink()
    with pytest.raises(SourceError, match="lost the tensor w while it was read"):
        layer.load()


# An index with shards


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
    assert "holds no weight file (.safetensors, .pt, .pth, .th, .bin, " in refusal(tmp_path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.safetensors.index.json"])
def test_a_folder_that_is_named_like_a_file_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    refusal(tmp_path)


def shards(folder: Path, ending: str, numbers: tuple[int, ...] = (1, 2)) -> None:
    for number in numbers:
        torch.save({f"layer{number}": W}, folder / f"m-0000{number}-of-00002{ending}")


@pytest.mark.parametrize("ending", [".bin", ".pth"])
def test_shards_of_torch_are_one_model(tmp_path, ending):
    shards(tmp_path, ending)
    torch.save({"state": {}, "lr": W}, tmp_path / "optimizer.pt")
    torch.save({"args": 1}, tmp_path / "training_args.bin")
    assert names(read(tmp_path)) == ["layer1", "layer2"]


def test_a_lacking_shard_is_named(tmp_path):
    shards(tmp_path, ".bin", numbers=(1,))
    assert "lacks shard 2 of 2; fetch it" in refusal(tmp_path)


def test_an_index_of_torch_files_gathers_its_shards(tmp_path):
    shards(tmp_path, ".bin")
    told = {f"layer{i}": f"m-0000{i}-of-00002.bin" for i in (1, 2)}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": told}))
    torch.save({"c": W}, tmp_path / "other.pt")
    assert names(read(tmp_path)) == names(read(index)) == ["layer1", "layer2"]


@pytest.mark.parametrize("usual", ["model.safetensors", "pytorch_model.bin"])
def test_the_usual_name_is_the_model(tmp_path, usual):
    torch.save({"c": W}, tmp_path / "consolidated.pth")
    if usual.endswith(".bin"):
        torch.save({"a": W}, tmp_path / usual)
    else:
        save_file({"a": W}, tmp_path / usual)
        save_file({"b": W}, tmp_path / "consolidated.safetensors")
    assert names(read(tmp_path)) == ["a"]


# Several files


def test_several_files_and_patterns_are_one_model(tmp_path):
    sharded(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    torch.save({"c": W}, tmp_path / "deep" / "er" / "3.pt")
    (tmp_path / "deep" / "notes.txt").touch()
    one, two, three = tmp_path / "1.safetensors", tmp_path / "2.safetensors", tmp_path / "deep"
    assert names(read([one, str(two)])) == ["a", "b"]
    assert names(read([one, three / "er"])) == ["a", "c"]
    assert names(read(f"{tmp_path}/?.safetensors")) == ["a", "b"]
    assert names(read(f"{tmp_path}/**/*")) == ["a", "b", "c"]
    assert names(read([one, one])) == ["a"]
    assert read([one, two]).source == f"{one} and 1 more"


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    save_file({"a": W}, tmp_path / "m[1].safetensors")
    save_file({"b": W}, tmp_path / "m1.safetensors")
    assert names(read(tmp_path / "m[1].safetensors")) == ["a"]


def test_files_whose_names_clash_are_refused(tmp_path):
    for name in ("1.pt", "2.pt"):
        torch.save({"a": W}, tmp_path / name)
    with pytest.raises(SourceError, match="hold the name a; name one file, or compare them as"):
        read(f"{tmp_path}/*.pt")


def test_a_pattern_that_fits_nothing_is_refused(tmp_path):
    assert "no weight file fits the pattern" in refusal(tmp_path / "*.safetensors")


def test_a_name_of_the_hub_gets_a_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"is read as hf://openai-community/gpt2"):
        read("openai-community/gpt2")


# What a header may promise


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**9, 10**6]},
        {"shape": [-3, -4]},
        {"shape": [3.0, 4]},
        {"data_offsets": [0, 10**15]},
        {"data_offsets": [4, 52]},
        {"data_offsets": [0.0, 48]},
        {"dtype": "F64"},
        {"dtype": None, "data_offsets": None},
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, changes):
    told = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]} | changes
    header = json.dumps({"w": told}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(48))
    assert "is not a whole safetensors file" in refusal(path)


def test_tensors_that_share_bytes_are_refused(tmp_path):
    told = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    header = json.dumps({"a": told, "b": told}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(48))
    assert "the place of b is wrong" in refusal(path)


@pytest.mark.parametrize("spaces", range(8))
def test_numbers_may_lie_anywhere(tmp_path, spaces):
    header = b'{"w":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}' + b" " * spaces
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + W.numpy().tobytes())
    (layer,) = read(path).layers
    assert torch.equal(layer.load() @ W.T, W @ W.T)
    assert layer.load().data_ptr() % 4 == 0


def test_what_is_loaded_can_be_changed_without_changing_the_file(tmp_path):
    save_file({"w": W}, tmp_path / "m.safetensors")
    (layer,) = read(tmp_path / "m.safetensors").layers
    layer.load().zero_()
    assert torch.equal(layer.load(), W)


def test_a_layer_travels_as_a_place_in_a_file(tmp_path):
    save_file({"w": torch.zeros(100, 100)}, tmp_path / "m.safetensors")
    (layer,) = read(tmp_path / "m.safetensors").layers
    sent = pickle.dumps(layer)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent).load(), torch.zeros(100, 100))  # noqa: S301


# Paths


def test_a_missing_file_is_refused(tmp_path):
    assert "there is no file or folder" in refusal(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.safetensors.index.json", "m.txt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert "is empty (0 bytes); copy or download it again" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["m.pkl", "m", "m.json", "m.tailor"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    assert "has an unknown ending; tailor reads .safetensors, " in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "a/" * 3000])
def test_an_impossible_path_is_refused(tmp_path, name):
    refusal(tmp_path / name)
