"""`read`: files of Keras, laid out as versions 2 and 3 of Keras lay them out."""

import builtins
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from tailor import NoMatrices, SourceError, read
from tests.weights.sources import W, names, reasons, refusal

A = W.numpy()


def stored(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def kernel(path: Path, name: str, array: np.ndarray) -> torch.Tensor:
    """The layer that a file with this one array has."""
    (layer,) = read(stored(path / "m.h5", {name: array})).layers
    assert layer.load().shape == layer.shape
    return layer.load()


def test_version_two_is_read(tmp_path):
    path = stored(
        tmp_path / "m.h5",
        {
            "model_weights/dense/dense/kernel:0": A,
            "model_weights/dense/dense/bias:0": A[0],
            "model_weights/embed/embed/embeddings:0": A,
            "optimizer_weights/adam/m/dense/kernel:0": A,
        },
    )
    weights = read(path)
    assert [(one.name, one.shape, one.kind) for one in weights.layers] == [
        ("dense.kernel", (4, 3), "linear"),
        ("embed.embeddings", (3, 4), "embedding"),
    ]
    assert weights.layers[0].load().tolist() == W.T.tolist()
    assert weights.layers[0].note == "outputs first"
    assert reasons(weights) == {
        "dense.bias": "vector",
        "optimizer_weights.adam.m.dense.kernel": "state of the optimizer",
    }


VERSION_THREE = {
    "layers/dense/vars/0": A,
    "layers/dense/vars/1": A[0],
    "layers/embedding/vars/0": A,
    "layers/conv2d/vars/0": np.zeros((5, 5, 2, 3), np.float32),
    "optimizer/vars/2": A,
}


@pytest.mark.parametrize("zipped", [True, False])
def test_version_three_is_read(tmp_path, zipped):
    path = stored(tmp_path / "model.weights.h5", VERSION_THREE)
    if zipped:
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", "{}")
            archive.write(path, path.name)
        path = tmp_path / "m.keras"
    weights = read(path)
    assert [(one.name, one.shape) for one in weights.layers] == [
        ("layers.conv2d.vars.0", (3, 2, 5, 5)),
        ("layers.dense.vars.0", (4, 3)),
        ("layers.embedding.vars.0", (3, 4)),
    ]
    there = pickle.loads(pickle.dumps(weights.layers[1])).load()  # noqa: S301 - our own bytes
    assert there.tolist() == W.T.tolist()
    assert reasons(weights)["optimizer.vars.2"] == "state of the optimizer"


def test_a_turned_convolution_convolves_alike(tmp_path):
    """Keras' definition: out[i, j, o] = sum over a, b, c of in[i + a, j + b, c] k[a, b, c, o]."""
    rng = np.random.default_rng(0)
    image, stone = rng.normal(size=(6, 7, 2)), rng.normal(size=(3, 2, 2, 5))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 2), axis=(0, 1))
    expected = np.einsum("ijcab,abco->oij", windows, stone)
    ours = kernel(tmp_path, "conv/kernel:0", stone)
    found = conv2d(torch.from_numpy(image).permute(2, 0, 1)[None], ours)[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_turned_depthwise_kernel_convolves_alike(tmp_path):
    """Keras' definition: out[i, j, c n + m] = sum over a, b of in[i+a, j+b, c] k[a, b, c, m]."""
    rng = np.random.default_rng(0)
    image, stone = rng.normal(size=(6, 7, 4)), rng.normal(size=(3, 3, 4, 2))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(0, 1))
    expected = np.einsum("ijcab,abcm->cmij", windows, stone).reshape(8, 4, 5)
    ours = kernel(tmp_path, "depthwise_conv2d/depthwise_kernel:0", stone)
    found = conv2d(torch.from_numpy(image).permute(2, 0, 1)[None], ours, groups=4)[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_attention_kernels_become_one_matrix(tmp_path):
    """Keras' einsum: queries are "td,dhk->thk", and heads are put together by "thk,hkd->td"."""
    rng = np.random.default_rng(0)
    x, heads = rng.normal(size=(5, 6)), rng.normal(size=(5, 2, 3))
    into, out = rng.normal(size=(6, 2, 3)), rng.normal(size=(2, 3, 6))
    query = kernel(tmp_path, "layers/multi_head_attention/query_dense/vars/0", into).numpy()
    np.testing.assert_allclose(x @ query.T, np.einsum("td,dhk->thk", x, into).reshape(5, 6))
    joined = kernel(tmp_path, "mha/attention_output/kernel:0", out).numpy()
    np.testing.assert_allclose(heads.reshape(5, 6) @ joined.T, np.einsum("thk,hkd->td", heads, out))


def test_other_files_are_read_as_they_are(tmp_path):
    assert kernel(tmp_path, "group/matrix", A).tolist() == W.tolist()


def test_big_endian_and_whole_numbers(tmp_path):
    path = stored(tmp_path / "m.h5", {"w": A.astype(">f8"), "n": np.arange(6).reshape(2, 3)})
    weights = read(path)
    assert weights.layers[0].load().tolist() == W.tolist()
    assert weights.layers[0].dtype == "float64"
    assert reasons(weights) == {"n": "not floating point (int64)"}


# What is refused


def test_an_array_that_is_mostly_promised_is_no_layer(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("promised", (10**8, 10**7), "f4")
        file.create_dataset("pieces", (10**8, 10**7), "f4", chunks=(100, 100), compression="gzip")
        file.create_dataset("packed", data=np.zeros((300, 300), "f4"), compression="gzip")
    weights = read(tmp_path / "m.h5")
    assert names(weights) == ["packed"]
    assert torch.equal(weights.layers[0].load(), torch.zeros(300, 300))
    claim = f"claims {4 * 10**15} bytes, but the file stores 0"
    assert reasons(weights) == {"promised": claim, "pieces": claim}


def test_numbers_in_another_file_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("outside", (3, 4), "f4", external=[(str(tmp_path / "secret"), 0, 48)])
        layout = h5py.VirtualLayout((3, 4), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "w", (3, 4))
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("other.h5", "w")
    stored(tmp_path / "other.h5", {"w": A})
    sentence = refusal(tmp_path / "m.h5", NoMatrices)
    assert sentence.endswith("found: outside, virtual")


@pytest.mark.parametrize("ending", [".h5", ".keras"])
@pytest.mark.parametrize("data", [b"weights", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_damaged_file_is_refused(tmp_path, ending, data):
    (tmp_path / f"m{ending}").write_bytes(data)
    kind = "HDF5 file" if ending == ".h5" else "Keras archive"
    assert f"is not a whole {kind}" in refusal(tmp_path / f"m{ending}")


def test_a_compressed_archive_is_refused(tmp_path):
    path = stored(tmp_path / "model.weights.h5", VERSION_THREE)
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    assert "it is compressed, which Keras never does" in refusal(tmp_path / "m.keras")


def test_without_h5py_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = stored(tmp_path / "m.h5", {"w": A})
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SourceError, match=r"needs h5py; install it with: pip install 'tailor\[k"):
        read(path)
