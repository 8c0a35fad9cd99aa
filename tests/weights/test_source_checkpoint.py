"""`read`: checkpoints of torch, in which no code ever runs."""

import argparse
import io
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tailor import NoMatrices, SourceError, read
from tailor.weights.source import checkpoint
from tests.weights.sources import W, names, reasons, refusal


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


# What is inside a checkpoint


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"G": {"w": W}, "D": {"w": W + 1}}, ["D.w", "G.w"]),
        (
            {"params": {"dense": {"kernel": W}, "out": {"kernel": W + 1}}},
            ["dense.kernel", "out.kernel"],
        ),
        ({"state": {"model": {"w": W}}, "optimizer": {"m": W}}, ["w"]),
        ({"optimizer_states": {"m": W}, "ema": {"w": W}}, ["w"]),
        ({"model": {"w": W}, "ema": {"w": W}}, ["w"]),
    ],
)
def test_nested_state_dicts_are_found(tmp_path, held, expected):
    torch.save(held, tmp_path / "m.pt")
    assert names(read(tmp_path / "m.pt")) == expected


def test_a_dictionary_in_two_places_is_looked_at_once(tmp_path):
    held: dict[str, object] = {"w": W}
    held["again"] = held
    torch.save(held, tmp_path / "self.pt")
    assert names(read(tmp_path / "self.pt")) == ["w"]
    shared = {"w": W}
    held = {"x": shared, "y": shared}
    torch.save(held, tmp_path / "m.pt")
    assert names(read(tmp_path / "m.pt")) == ["w"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_arguments_beside_the_weights_do_no_harm(tmp_path, zipped):
    held = {"model": {"w": W}, "args": argparse.Namespace(lr=0.1, path="x")}
    torch.save(held, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    assert names(read(tmp_path / "m.pt")) == ["w"]


def test_what_was_refused_is_named(tmp_path):
    torch.save({"w": W, "best": Path("x")}, tmp_path / "m.pt")
    assert re.search(r"\(it holds pathlib[\w.]*\)$", refusal(tmp_path / "m.pt"))


def test_a_torchscript_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old
        torch.jit.script(nn.Linear(4, 3)).save(tmp_path / "m.pt")
    assert "is a TorchScript program; load it with torch.jit.load" in refusal(tmp_path / "m.pt")


def test_a_checkpoint_from_a_gpu_is_read_without_one(tmp_path):
    plain, path = tmp_path / "plain.pt", tmp_path / "m.pt"
    torch.save({"w": W}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            data = old.read(item)
            if item.endswith("data.pkl"):
                assert data.count(b"X\x03\x00\x00\x00cpu") == 1
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(item, data)
    (layer,) = read(path).layers
    assert torch.equal(layer.load(), W)


# Memory, and other processes


def test_a_zipped_checkpoint_is_not_read_in_whole(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(1000, 1000)}, path)
    (layer,) = read(path).layers
    with path.open("r+b") as file:  # change the last number behind the reader's back
        end = path.read_bytes().rindex(np.ones(2, np.float32).tobytes()) + 8
        file.seek(end - 4)
        file.write(np.float32(7).tobytes())
    assert layer.load()[-1, -1] == 7


def test_a_tensor_of_a_checkpoint_travels_by_name(tmp_path):
    torch.save({"a": torch.zeros(100, 100), "w": W}, tmp_path / "m.pt")
    layers = read(tmp_path / "m.pt").layers
    sent = pickle.dumps(layers)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[1].load(), W)  # noqa: S301 - our own bytes
    for other in ({"a": W}, {"a": W, "w": W.T}):
        torch.save(other, tmp_path / "m.pt")
        with pytest.raises(SourceError, match="lost the tensor w while it was read"):
            pickle.loads(sent)[1].load()  # noqa: S301


def test_a_large_tensor_is_mapped_anew_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGE", 48)
    torch.save({"large": W, "small": W[:2].clone()}, tmp_path / "m.pt")
    large, small = read(tmp_path / "m.pt").layers
    assert torch.equal(large.load(), W)
    assert large.load() is not large.load()
    assert small.load() is small.load()


def test_a_huge_matrix_of_one_repeated_number_is_no_layer(tmp_path):
    torch.save({"w": W, "huge": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "m.pt")
    weights = read(tmp_path / "m.pt")
    assert reasons(weights) == {"huge": "claims more elements than the file holds"}
    with pytest.raises(SourceError, match="huge claims more elements than the file holds"):
        weights.others[0].load()
