"""Checkpoints on disk: the same as in memory, tensor by tensor, and a killed run goes on."""

import json

import pytest
import torch

from tailor.errors import NonFinite, OutputError, UsageError
from tailor.stages.allocate import OWL, AlphaPruning, GlobalMagnitude
from tailor.stages.compress import (
    CompressedModel,
    KMeans,
    Prune,
    Quantize,
    Retrain,
    Shortest,
    UniformStep,
    compress_checkpoint,
)
from tailor.stages.compress import checkpoint as module
from tailor.stages.scores import NofM, Wanda
from tailor.weights.source import read


@pytest.fixture
def source(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(12, 8, generator=generator) for i in range(31)}
    state["conv"] = torch.randn(4, 3, 3, 3, generator=generator)
    state["bias"] = torch.randn(7, generator=generator)
    state["count"] = torch.tensor(3)
    path = tmp_path / "model.pt"
    torch.save(state, path)
    return path


RECIPE = [Prune(0.5, allocation=GlobalMagnitude()), Quantize(UniformStep(tolerance=0.01))]


def test_every_tensor_is_in_the_file_and_the_report(source, tmp_path):
    state = torch.load(source)
    path = tmp_path / "out" / "model.tailor"
    report = compress_checkpoint(read(source), path, RECIPE)
    found = CompressedModel.load(path).state_dict()
    assert set(found) == set(state)
    assert torch.equal(found["bias"], state["bias"])
    assert torch.equal(found["count"], state["count"])
    matrices = [name for name in state if state[name].ndim > 1]
    zeros = sum(int((found[name] == 0).sum()) for name in matrices)
    total = sum(found[name].numel() for name in matrices)
    assert zeros >= round(0.5 * total)
    assert report.sparsity == pytest.approx(zeros / total)
    every = torch.cat([state[name].flatten() for name in matrices]).double()
    after = torch.cat([found[name].flatten() for name in matrices]).double()
    assert report.error == pytest.approx(float((every - after).norm() / every.norm()))
    assert report.file_bytes == path.stat().st_size
    assert report.uniform.file_bytes > 0
    assert report.uniform.error > report.error  # one threshold loses least
    assert [one.name for one in path.parent.iterdir()] == ["model.tailor"]
    assert Prune(0.5, allocation=GlobalMagnitude()) == RECIPE[0]


def test_only_the_chosen_tensors_change(source, tmp_path):
    state = torch.load(source)
    path = tmp_path / "model.tailor"
    recipe = [Prune(0.5, layers="layers.1*"), Quantize(KMeans(levels=4), skip="conv")]
    compress_checkpoint(read(source), path, recipe)
    found = CompressedModel.load(path).state_dict()
    assert torch.equal(found["conv"], state["conv"])
    assert not bool((found["layers.2.weight"] == 0).any())
    assert len(found["layers.2.weight"].unique()) == 4
    assert float((found["layers.12.weight"] == 0).double().mean()) == 0.5


def test_a_pattern(source, tmp_path):
    path = tmp_path / "model.tailor"
    recipe = [Prune(pattern=NofM(n=1, m=4), skip="conv")]
    report = compress_checkpoint(read(source), path, recipe)
    found = CompressedModel.load(path).state_dict()["layers.0.weight"]
    assert bool(((found.reshape(-1, 4) != 0).sum(1) == 1).all())
    assert report.uniform is None


class Killed(BaseException):
    pass


def killed(*arguments, **named):
    raise Killed("now")


@pytest.mark.parametrize("after", [0, 1])
def test_a_killed_run_goes_on_where_it_was(source, tmp_path, monkeypatch, after):
    whole = tmp_path / "whole.tailor"
    compress_checkpoint(read(source), whole, RECIPE)
    path = tmp_path / "model.tailor"
    real, done = module.write_group, []

    def dies(pairs):
        if len(done) == after:
            raise Killed("now")
        done.append(len(pairs))
        return real(pairs)

    monkeypatch.setattr(module, "write_group", dies)
    with pytest.raises(Killed, match="now"):
        compress_checkpoint(read(source), path, RECIPE)
    assert not path.exists()
    counted = []
    monkeypatch.setattr(module, "write_group", lambda p: counted.append(len(p)) or real(p))
    compress_checkpoint(read(source), path, RECIPE, beside=False)
    assert len(counted) == 2 - after  # 34 tensors are two sections
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([source, whole, path])


def test_another_recipe_does_not_go_on(source, tmp_path, monkeypatch):
    path = tmp_path / "model.tailor"
    real = module.write_file
    monkeypatch.setattr(module, "write_file", killed)
    with pytest.raises(Killed, match="now"):
        compress_checkpoint(read(source), path, RECIPE)
    monkeypatch.setattr(module, "write_file", real)
    counted = []
    group = module.write_group
    monkeypatch.setattr(module, "write_group", lambda p: counted.append(len(p)) or group(p))
    compress_checkpoint(read(source), path, [Quantize(KMeans(levels=4))])
    assert len(counted) == 2


def test_damaged_leftovers_are_made_again(source, tmp_path, monkeypatch):
    path = tmp_path / "model.tailor"
    real = module.write_file
    monkeypatch.setattr(module, "write_file", killed)
    with pytest.raises(Killed, match="now"):
        compress_checkpoint(read(source), path, RECIPE, beside=False)
    monkeypatch.setattr(module, "write_file", real)
    work = tmp_path / "model.tailor.partial"
    (work / "000000.json").write_text("{")
    (work / "allocated.json").write_text(json.dumps({"type": "Allocated"}))
    compress_checkpoint(read(source), path, RECIPE, beside=False)
    assert CompressedModel.load(path).state_dict()["conv"].shape == (4, 3, 3, 3)


def test_quality_is_measured_on_what_the_file_holds(source, tmp_path):
    def norm(state):
        return float(state["conv"].double().norm())

    path = tmp_path / "model.tailor"
    report = compress_checkpoint(read(source), path, RECIPE, evaluate=norm, quality="norm")
    assert report.quality_name == "norm"
    assert report.quality_before == norm(torch.load(source))
    assert report.quality_after == norm(CompressedModel.load(path).state_dict())
    assert report.uniform.quality is not None


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([Retrain()], "pruned, quantised, or both in this order, but the recipe has Retrain"),
        ([Quantize(), Prune(0.5)], "the recipe has Quantize, Prune"),
        ([Prune(0.5, score=Wanda())], r"Wanda\(.*\) has to see what the layers are given"),
        ([Prune(0.5, allocation=OWL())], r"OWL\(.*\) has to see"),
        ([Prune(1.5)], "sparsity"),
        ([Prune(0.5, layers="x*")], r"no layer fits x\*"),
        ([Prune(0.995, allocation=AlphaPruning())], "0.99"),
    ],
    ids=str,
)
def test_what_a_checkpoint_cannot_do(source, tmp_path, recipe, message):
    with pytest.raises(UsageError, match=message):
        compress_checkpoint(read(source), tmp_path / "model.tailor", recipe)
    assert not (tmp_path / "model.tailor").exists()


def test_nan_and_a_place_that_cannot_be_written(source, tmp_path):
    state = torch.load(source)
    state["conv"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(NonFinite, match="conv holds 1 NaN"):
        compress_checkpoint(
            read(tmp_path / "nan.pt"), tmp_path / "x.tailor", [Quantize(Shortest(bits=4))]
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        compress_checkpoint(read(source), tmp_path / "file" / "x.tailor", [Quantize()])
