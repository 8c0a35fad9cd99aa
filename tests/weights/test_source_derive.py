"""Selections, differences and fingerprints of what was read."""

import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tailor import NoMatrices, UsageError, read
from tailor.weights.source import derive, difference, fingerprint, select
from tests.weights.sources import W, names, reasons

MODEL = {"a.attn.q": W, "a.attn.k": W + 1, "a.mlp": W + 2, "b.mlp": W + 3, "bias": W[0]}


# select


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        (("*",), (), ["a.attn.k", "a.attn.q", "a.mlp", "b.mlp"]),
        (("*mlp",), (), ["a.mlp", "b.mlp"]),
        ("*mlp", (), ["a.mlp", "b.mlp"]),
        (("a.*", "b.*"), ("*.attn.?",), ["a.mlp", "b.mlp"]),
        (("*",), "a.*", ["b.mlp"]),
        (("a.attn.[kx]",), (), ["a.attn.k"]),
    ],
)
def test_a_selection_keeps_what_fits(include, exclude, kept):
    found = select(read(MODEL), include, exclude)
    assert names(found) == kept
    left = {name for name, reason in reasons(found).items() if reason == "not selected"}
    assert left == set(MODEL) - set(kept) - {"bias"}
    assert reasons(found)["bias"] == "vector"


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"no layer fits A\.\*, x; there are: a.attn.k, a.attn.q"):
        select(read(MODEL), ("A.*", "x"))
    with pytest.raises(UsageError, match=r"no layer fits \* without \*; there are: a.attn.k"):
        select(read(MODEL), exclude=("*",))


# difference


@given(st.integers(0, 2**32 - 1))
def test_a_difference_is_rounded_once_more_at_most(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    (layer,) = difference(read({"w": a}), read({"w": b})).layers
    expected = (a.astype(np.float64) - b.astype(np.float64)).astype(np.float32)
    assert layer.load().numpy().tobytes() == expected.tobytes()
    assert (layer.dtype, layer.factors) == ("float32", None)


def test_small_floats_lose_nothing():
    a, b = torch.tensor([[1.0, 256.0]]), torch.tensor([[2.0**-9, 1.0]])
    half = [read({"w": one.to(torch.bfloat16)}) for one in (a, b)]
    assert difference(*half).layers[0].load().tolist() == [[1 - 2.0**-9, 255.0]]


def test_a_difference_in_pieces_is_the_whole(monkeypatch):
    monkeypatch.setattr(derive, "CHUNK", 5)
    (layer,) = difference(read({"w": W}), read({"w": 3 * W})).layers
    assert torch.equal(layer.load(), -2 * W)
    assert torch.equal(pickle.loads(pickle.dumps(layer)).load(), -2 * W)  # noqa: S301


def test_what_has_no_match_is_listed():
    a = read({"same": W, "mine": W + 1, "shape": W + 2})
    b = read({"same": W + 1, "yours": W + 2, "shape": W.T.clone()})
    found = difference(a, b)
    assert names(found) == ["same"]
    assert found.source == "state dict minus state dict"
    assert reasons(found) == {
        "mine": "not in state dict",
        "shape": "of shape (3, 4) here, but (4, 3) in state dict",
        "yours": "not in state dict",
    }


def test_tied_weights_match_by_any_of_their_names():
    tied, loose = read({"in": W, "out": W}), read({"out": W + 1, "more": W + 2})
    assert (names(difference(tied, loose)), names(difference(loose, tied))) == (["in"], ["out"])
    assert reasons(difference(tied, loose)) == {"more": "not in state dict"}


def test_models_without_a_common_layer_are_refused():
    with pytest.raises(NoMatrices, match="no layer of equal name and shape; they begin with a an"):
        difference(read({"a": W}), read({"b": W}))


# fingerprint


def test_tensors_in_memory_have_no_fingerprint(tmp_path):
    assert fingerprint(read({"w": W})) is None
    save_file({"w": W}, tmp_path / "m.safetensors")
    assert fingerprint(difference(read(tmp_path), read({"w": W}))) is None


def test_a_fingerprint_changes_with_what_it_covers(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": W, "v": W + 1}, path)
    os.utime(path, ns=(0, 10**18))
    whole = read(path)
    seen = {fingerprint(whole)}
    assert fingerprint(read(path)) in seen
    seen.add(fingerprint(select(whole, "w")))
    seen.add(fingerprint(difference(whole, whole)))
    save_file({"w": W, "u": W + 1}, path)  # another name, at the same time
    os.utime(path, ns=(0, 10**18))
    seen.add(fingerprint(read(path)))
    os.utime(path, ns=(0, 10**18 + 1))
    seen.add(fingerprint(read(path)))
    assert len(seen) == 5
    assert None not in seen


def test_a_difference_has_a_direction(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file({"w": W}, tmp_path / name / f"{name}.safetensors")
    a, b = (read(tmp_path / name) for name in "ab")
    assert fingerprint(difference(a, b)) != fingerprint(difference(b, a))
