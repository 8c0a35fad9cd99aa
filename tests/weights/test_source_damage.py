"""Damage: whatever the bytes are, `read` answers or refuses, and nothing else escapes."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tailor import TailorError, read
from tests.weights.sources import W, sharded, write_gguf, write_onnx


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
    saved(lambda path: np.save(path, W.numpy()), ".npy"),
    saved(lambda path: np.savez_compressed(path, w=W.numpy(), b=W[0].numpy()), ".npz"),
    saved(lambda path: write_onnx(path, W.numpy()), ".onnx"),
    saved(lambda path: write_gguf(path, w=W.numpy(), b=W[0].numpy()), ".gguf"),
]
KINDS = ["safetensors", "zip", "legacy", "index", "npy", "npz", "onnx", "gguf"]


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


@pytest.mark.parametrize("ending", sorted({ending for ending, _ in GOOD}))
@settings(max_examples=30)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(ending, data):
    only_answers_or_refuses(ending, data)
