"""`read`: files behind URLs, by the file systems of fsspec that need no network."""

import builtins
import json
import pickle
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from tailor import SourceError, read
from tailor.weights.source import fingerprint
from tests.weights.sources import W, names, write_gguf, write_onnx


@pytest.fixture
def memory():
    """A folder of its own in memory, as (file system, URL)."""
    system = fsspec.filesystem("memory")
    folder = f"/{uuid.uuid4()}"
    system.mkdir(folder)
    yield system, f"memory:/{folder}"
    system.rm(folder, recursive=True)


def put(memory: tuple[object, str], name: str, data: bytes) -> str:
    system, url = memory
    system.pipe(f"{url}/{name}", data)
    return f"{url}/{name}"


def test_safetensors_are_read_in_ranges(memory, monkeypatch):
    url = put(memory, "m.safetensors", save({"w": W, "big": torch.zeros(1000, 1000)}))
    _, w = read(url).layers
    sent = pickle.dumps(w)
    assert len(sent) < 1000
    asked: list[tuple[int, int]] = []
    system = memory[0]
    real = type(system).cat_file

    def watched(self: object, path: str, start: int, end: int) -> bytes:
        asked.append((start, end))
        return real(self, path, start=start, end=end)

    monkeypatch.setattr(type(system), "cat_file", watched)
    assert torch.equal(pickle.loads(sent).load(), W)  # noqa: S301 - our own bytes
    assert [end - start for start, end in asked] == [48]


def test_an_index_and_a_folder_are_read(memory):
    put(memory, "1.safetensors", save({"a": W}))
    put(memory, "2.safetensors", save({"b": W + 1}))
    told = {"weight_map": {"b": "2.safetensors", "a": "1.safetensors"}}
    index = put(memory, "model.safetensors.index.json", json.dumps(told).encode())
    for source in (index, memory[1], memory[1] + "/", memory[1] + "/?.safetensors"):
        assert names(read(source)) == ["a", "b"]
    memory[0].rm(f"{memory[1]}/2.safetensors")
    with pytest.raises(SourceError, match=r"names the shard 2.safetensors, which is missing"):
        read(index)


def test_a_remote_adapter_has_its_scale(memory):
    factors = {"q.lora_A.weight": W[:2].clone(), "q.lora_B.weight": W[:, :2].clone()}
    put(memory, "adapter_model.safetensors", save(factors))
    put(memory, "adapter_config.json", b'{"lora_alpha": 8}')
    (layer,) = read(memory[1]).layers
    assert torch.equal(layer.load(), 4 * W[:, :2] @ W[:2])


def test_other_formats_are_read_where_they_are(memory, tmp_path):
    write_onnx(tmp_path / "m.onnx", W.numpy())
    write_gguf(tmp_path / "m.gguf", w=W.numpy())
    np.save(tmp_path / "m.npy", W.numpy())
    np.savez(tmp_path / "m.npz", w=W.numpy())
    for path in tmp_path.iterdir():
        here = read(path).layers
        there = read(put(memory, path.name, path.read_bytes())).layers
        assert [layer.load().tolist() for layer in there] == [one.load().tolist() for one in here]
        assert there == here


def test_a_checkpoint_is_fetched_and_the_copy_goes_away(memory, tmp_path):
    torch.save({"w": W}, tmp_path / "m.pt")
    url = put(memory, "m.pt", (tmp_path / "m.pt").read_bytes())
    weights = read(url)
    copy = weights.layers[0].load.path
    assert copy.exists()
    assert torch.equal(weights.layers[0].load(), W)
    assert weights.files == (url,)
    del weights
    assert not copy.parent.exists()


def test_a_file_url_is_read(tmp_path):
    save_file({"w": W}, tmp_path / "m.safetensors")
    (layer,) = read(f"file://{tmp_path}/m.safetensors").layers
    assert torch.equal(layer.load(), W)


def test_a_query_is_no_part_of_the_name():
    from tailor.weights.source.place import Remote

    place = Remote("https://host/org/model.safetensors?download=true&x=/y")
    assert place.name == "model.safetensors"
    assert str(place.beside("adapter_config.json")) == "https://host/org/adapter_config.json"


def test_the_fingerprint_of_a_remote_file_follows_its_contents(memory):
    url = put(memory, "m.safetensors", save({"w": W}))
    first = fingerprint(read(url))
    assert fingerprint(read(url)) == first
    put(memory, "m.safetensors", save({"w": W, "v": W[0].clone()}))
    assert fingerprint(read(url)) != first


# What is refused


def test_a_missing_remote_file_is_refused(memory):
    with pytest.raises(SourceError, match=f"there is no file or folder {memory[1]}/x.safetensors"):
        read(f"{memory[1]}/x.safetensors")


def test_a_file_that_shrinks_is_refused(memory):
    url = put(memory, "m.safetensors", save({"w": W}))
    (layer,) = read(url).layers
    put(memory, "m.safetensors", b"x")
    with pytest.raises(SourceError, match="lost the tensor w while it was read"):
        layer.load()


def test_a_server_that_ignores_ranges_is_refused(memory, monkeypatch):
    url = put(memory, "m.safetensors", save({"w": W, "v": W + 1}))
    layer = read(url).layers[0]
    kind = type(memory[0])
    real = kind.cat_file
    monkeypatch.setattr(kind, "cat_file", lambda self, path, **told: real(self, path))
    with pytest.raises(SourceError, match=r"lost the tensor v .* 48 bytes were asked for, "):
        layer.load()


def test_an_unknown_protocol_is_refused():
    with pytest.raises(SourceError, match=r"nowhere://m.safetensors cannot be reached: .*nowhere"):
        read("nowhere://m.safetensors")


def test_without_fsspec_one_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "fsspec":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SourceError, match=r"is remote, which needs fsspec; .*'tailor\[remote\]'"):
        read("s3://bucket/m.safetensors")


def test_a_shard_at_another_address_is_refused(memory, tmp_path: Path):
    save_file({"w": W}, tmp_path / "m.safetensors")
    told = {"weight_map": {"w": f"file://{tmp_path}/m.safetensors"}}
    index = put(memory, "model.safetensors.index.json", json.dumps(told).encode())
    with pytest.raises(SourceError, match="outside its own folder; refused"):
        read(index)
