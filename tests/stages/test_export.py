"""Files for other programs: each is read back by the program that it is for, and by ``read``."""

import importlib.util
import json
import logging
import struct
import warnings

import pytest
import torch
from safetensors.torch import load_file, load_model, save
from torch import nn

from tailor.errors import OutputError, UsageError
from tailor.stages.export import export
from tailor.stages.sparse import SparseLinear
from tailor.weights.source import read
from tailor.weights.source.writing import safetensors_bytes


class Tied(nn.Module):
    """A table that is the last layer, too."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight


ODD = {
    "half": torch.arange(6.0).to(torch.float16).reshape(2, 3),
    "brain": torch.arange(3.0).to(torch.bfloat16),
    "double": torch.tensor([[1.0, -0.0], [torch.inf, torch.nan]], dtype=torch.float64),
    "eight": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
    "complex": torch.tensor([1 + 2j]),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "whole": torch.tensor(7),
    "truth": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    "also empty": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "piece": torch.arange(100.0)[10:12],
    "Größe": torch.ones(1, 1),
}


def assert_same(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert other[name].dtype == tensor.dtype
        assert other[name].shape == tensor.shape
        ours, theirs = (x.resolve_conj().contiguous() for x in (tensor, other[name]))
        flat = [x.flatten().view(torch.uint8) for x in (ours, theirs) if x.numel()]
        assert not flat or torch.equal(*flat)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.pth", "m.bin"])
def test_every_type_comes_back(name, tmp_path):
    path = export(ODD, tmp_path / name)
    load = load_file if name == "m.safetensors" else lambda p: torch.load(p, weights_only=True)
    assert_same(ODD, load(path))


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
def test_what_is_written_is_read(name, tmp_path):
    model = nn.Sequential(nn.Linear(5, 4), nn.Conv2d(2, 3, 3))
    weights = read(export(model, tmp_path / name))
    found = {one.name: one.load() for one in (*weights.layers, *weights.others)}
    assert_same(model.state_dict(), found)


def test_the_header_is_that_of_the_reference():
    """But for the order of keys, which means nothing, and the metadata."""
    tensors = {"b": torch.ones(3), "a": torch.ones(2, 2), "c": torch.ones(1, dtype=torch.float64)}
    headers = []
    for data in (safetensors_bytes(tensors, {"made by": "us"}), save(tensors)):
        (length,) = struct.unpack("<Q", data[:8])
        assert length % 8 == 0
        headers.append(json.loads(data[8 : 8 + length]))
    assert headers[0].pop("__metadata__") == {"format": "pt", "made by": "us"}
    assert headers[0] == headers[1]


def test_tied_weights_stay_tied(tmp_path):
    model, other = Tied(), Tied()
    state = torch.load(export(model, tmp_path / "m.pt"), weights_only=True)
    assert state["head.weight"].data_ptr() == state["table.weight"].data_ptr()
    path = export(model, tmp_path / "m.safetensors")
    assert "head.weight" not in load_file(path)
    assert b'"head.weight":"table.weight"' in path.read_bytes()
    load_model(other, path)
    assert torch.equal(other.head.weight, model.head.weight)
    assert other.head.weight is other.table.weight


def test_a_piece_of_a_tensor_is_stored_alone(tmp_path):
    path = export({"piece": torch.zeros(100_000)[:3], "more": torch.zeros(3)}, tmp_path / "m.pt")
    assert path.stat().st_size < 5_000


class Program(nn.Module):
    """What exporters stumble over: normalisation, dropout, sparse rows, two inputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout()
        self.second = SparseLinear.of(nn.Linear(8, 3))

    def forward(self, x, scale):
        return self.second(self.dropout(self.norm(self.first(x)).relu())) * scale


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    model = Program()
    model(torch.randn(20, 6) + 1, torch.ones(3))
    model.first.eval()
    return model


def expected(model: nn.Module, *args: torch.Tensor) -> torch.Tensor:
    """What it computes in evaluation mode."""
    modes = [(part, part.training) for part in model.modules()]
    with torch.no_grad():
        y = model.eval()(*args)
    for part, mode in modes:
        part.training = mode
    return y


def test_a_program_of_torch_computes_the_same(program, tmp_path):
    before = {name: tensor.clone() for name, tensor in program.state_dict().items()}
    example = {"x": torch.zeros(4, 6), "scale": torch.ones(3)}
    path = export(program, tmp_path / "m.pt2", example=example)
    x, scale = torch.randn(7, 6), torch.rand(3)
    made = torch.export.load(path).module()
    torch.testing.assert_close(made(x=x, scale=scale), expected(program, x, scale))
    assert program.training
    assert not program.first.training
    assert_same(before, program.state_dict())


def test_a_program_in_onnx_computes_the_same_and_says_nothing(
    program, tmp_path, capfd, monkeypatch
):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")}
    filters = list(warnings.filters)
    logged: list[logging.LogRecord] = []
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", logged.append)
    for name in ("torch", "torch.onnx", "torch.export"):  # torch gives each a handler of its own
        monkeypatch.setattr(logging.getLogger(name), "handlers", [listener])
    path = export(program, tmp_path / "m.onnx", example=(torch.zeros(1, 6), torch.ones(3)))
    assert capfd.readouterr() == ("", "")
    assert logged == []
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert list(warnings.filters) == filters
    x, scale = torch.randn(7, 6), torch.rand(3)
    session = runtime.InferenceSession(path)
    fed = {given.name: t.numpy() for given, t in zip(session.get_inputs(), (x, scale), strict=True)}
    (y,) = session.run(None, fed)
    torch.testing.assert_close(
        torch.from_numpy(y), expected(program, x, scale), rtol=1e-5, atol=1e-5
    )
    found = {layer.shape: layer.load() for layer in read(path).layers}
    assert torch.equal(found[(3, 8)], program.second.dense().weight)


class Fixed(nn.Module):
    """For four examples only."""

    def forward(self, x):
        return x.reshape(4, 2, -1)


def test_a_fixed_number_of_examples_has_to_be_asked_for(tmp_path):
    example = torch.zeros(4, 6)
    with pytest.raises(UsageError, match=r"Fixed cannot be traced .*dynamic_batch=False"):
        export(Fixed(), tmp_path / "m.pt2", example=example)
    path = export(Fixed(), tmp_path / "m.pt2", example=example, dynamic_batch=False)
    assert torch.export.load(path).module()(example).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        ({}, "m.safetensors", "no tensors to export"),
        ({"a": torch.ones(1)}, "m.txt", r"the ending of m.txt names no format; give one of .pt"),
        ({"a": torch.ones(1)}, "m", "names no format"),
        ({"a": torch.ones(1)}, "m.onnx", "needs the module itself"),
        (nn.Linear(2, 2), "m.pt2", "needs an example of its input"),
        (nn.Linear(2, 2, device="meta"), "m.pt", r"weight has no values \(it is on meta\)"),
        ({"a": torch.ones(1, dtype=torch.complex128)}, "m.safetensors", "complex128, which safe"),
        ({"a": torch.eye(2).to_sparse()}, "m.safetensors", "a is a torch.sparse_coo tensor"),
        ({"__metadata__": torch.ones(1)}, "m.safetensors", "keeps the name __metadata__"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(given, name, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        export(given, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


class Settings(nn.Linear):
    """Keeps more than tensors."""

    def get_extra_state(self):
        return {"rate": 3}


def test_other_things_than_tensors_are_refused(tmp_path):
    with pytest.raises(UsageError, match="'_extra_state' holds a dict"):
        export(Settings(2, 2), tmp_path / "m.pt")


def test_programs_need_an_example_with_a_tensor(tmp_path):
    with pytest.raises(UsageError, match="of which one is a tensor"):
        export(nn.Linear(2, 2), tmp_path / "m.pt2", example=3)


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxscript" else there(name)
    )
    with pytest.raises(UsageError, match=r"written with onnxscript; .*'tailor\[onnx\]'"):
        export(nn.Linear(2, 2), tmp_path / "m.onnx", example=torch.ones(1, 2))


def test_onnx_has_a_limit(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("tailor.stages.export.program.LIMIT", 20)
    with pytest.raises(UsageError, match="take 24 bytes, but an ONNX file holds 20; export"):
        export(nn.Linear(2, 2), tmp_path / "m.onnx", example=torch.ones(1, 2))


def test_a_failure_leaves_the_old_file(tmp_path):
    path = export({"a": torch.ones(2, 2)}, tmp_path / "m.pt")
    with pytest.raises(UsageError, match="holds a int"):
        export({"a": torch.zeros(2, 2), "b": 3}, path)
    assert torch.load(path)["a"].all()
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        export({"a": torch.ones(2, 2)}, tmp_path / "folder.pt")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.pt", "m.pt"]
