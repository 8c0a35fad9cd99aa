"""``tailor compress``: what it writes, what each option does, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tailor as tl
from tailor import records
from tests.shell.conftest import Answer, Run, refused
from tests.shell.test_page import (  # noqa: F401 (browser is a fixture)
    DESK,
    PHONE,
    browser,
    complaints,
    draw_all,
    requests,
    visit,
)

TASK = """
import torch
from torch import nn
import tailor as tl

def build():
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))

def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 16, generator=generator)
    return tl.Data(x=x, y=x[:, :4].argmax(1))

full = tl.Task(name="small_task:full", build=build, train=data, test=data)
"""
FILES = ["compressed.csv", "compressed.json", "model.tailor", "report.html"]


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    (tmp_path / "small_task.py").write_text(TASK)
    generator = torch.Generator().manual_seed(1)
    state = {
        "0.weight": torch.randn(24, 16, generator=generator),
        "0.bias": torch.randn(24, generator=generator),
        "2.weight": torch.randn(4, 24, generator=generator),
        "2.bias": torch.randn(4, generator=generator),
    }
    torch.save(state, tmp_path / "model.pt")
    return state


@pytest.fixture
def compress(run: Run, weights: dict[str, torch.Tensor]) -> Run:
    return lambda *arguments: run("compress", "model.pt", *arguments)


def done(answer: Answer) -> str:
    assert (answer.code, answer.err) == (0, "")
    return answer.out


def record(folder: str = "out") -> tl.CompressionReport:
    return records.load(tl.CompressionReport, Path(folder) / "compressed.json")


def decoded(folder: str = "out") -> dict[str, torch.Tensor]:
    return tl.CompressedModel.load(Path(folder) / "model.tailor").state_dict()


def test_it_leaves_file_record_table_and_page(compress, weights, run):
    said = done(compress("--sparsity", "0.5", "--bits", "4", "--out", "out"))
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    found, state = record(), decoded()
    assert list(state) == ["0.weight", "2.weight", "0.bias", "2.bias"]
    assert torch.equal(state["0.bias"], weights["0.bias"])
    assert len(state["0.weight"].unique()) <= 16
    assert float((state["0.weight"] == 0).double().mean()) >= 0.5
    assert found.source == "model.pt"
    assert found.recipe == "Prune(sparsity=0.5), then Quantize(quantizer=Shortest(bits=4))"
    size = Path("out/model.tailor").stat().st_size
    assert f"{found.dense_bytes:,} bytes -> {size:,} bytes: {found.dense_bytes / size:.1f}" in said
    assert "Zeros alone speed nothing up" in said
    before = Path("out/report.html").read_bytes()
    done(run("report", "out"))
    assert Path("out/report.html").read_bytes() == before
    assert b"Zeros alone speed nothing up" in before


def test_without_options_it_rounds_within_one_per_cent(compress, weights):
    done(compress("--out", "out"))
    state = decoded()
    for name in ("0.weight", "2.weight"):
        lost = (state[name] - weights[name]).double().norm() / weights[name].double().norm()
        assert 0 < float(lost) ** 2 <= 0.01
    assert record().notes == ()


def test_options_make_the_recipe(compress):
    done(
        compress(
            *("--sparsity", "0.6", "--allocation", "global:relative=true", "--out", "out"),
            *("--quantizer", "kmeans:levels=5", "--skip", "2.*"),
        )
    )
    found = record()
    assert found.recipe == (
        "Prune(sparsity=0.6, allocation=GlobalMagnitude(relative=True)), then "
        "Quantize(quantizer=KMeans(levels=5))"
    )
    assert found.uniform is not None
    assert found.tensors[0].levels == 5
    assert found.sparsity == pytest.approx(0.6, abs=0.01)
    assert not bool((decoded()["2.weight"] == 0).any())


def test_pattern_recipe_json_and_export(compress, weights, tmp_path):
    done(compress("--pattern", "2:4", "--out", "out", "--export", "safetensors", "--export", "pt"))
    assert bool(((decoded()["0.weight"].reshape(-1, 4) != 0).sum(1) == 2).all())
    for name in ("model.safetensors", "model.pt"):
        (tl_layer, *_) = tl.read(Path("out") / name).layers
        assert torch.equal(tl_layer.load(), decoded()[tl_layer.name])
    recipe = tl.Recipe([tl.Prune(pattern=tl.NofM(n=2, m=4))])
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_json()))
    said = done(compress("--recipe", "recipe.json", "--out", "again", "--json"))
    again = records.from_json(tl.CompressionReport, json.loads(said))
    assert Path("again/model.tailor").read_bytes() == Path("out/model.tailor").read_bytes()
    assert again == record("again")


def test_errors_on_a_task_and_a_frontier(compress):
    said = done(
        compress(
            *("--sparsity", "0.5", "--allocation", "global", "--task", "small_task:full"),
            *("--frontier", "0.3,0.7", "--out", "out"),
        )
    )
    found = record()
    assert "error on held-out data:" in said
    assert found.uniform.quality is not None
    assert [(one.allocation, round(one.sparsity, 2)) for one in found.frontier] == [
        ("GlobalMagnitude()", 0.3),
        ("UniformAllocation()", 0.3),
        ("GlobalMagnitude()", 0.7),
        ("UniformAllocation()", 0.7),
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1"], "sparsity"),
        (["--sparsity", "nan"], "sparsity"),
        (["--score", "wanda", "--sparsity", "0.5"], "--score 'wanda' is unknown; choose one of"),
        (["--allocation", "alpha"], "are for pruning; give a --sparsity"),
        (["--pattern", "2:4", "--sparsity", "0.5"], "leave out --sparsity"),
        (["--pattern", "two"], "--pattern must be like 2:4, but is 'two'"),
        (["--bits", "0"], "bits"),
        (["--tolerance", "2"], "tolerance must be a relative squared error between 0 and 1"),
        (["--recipe", "x.json"], "--recipe x.json cannot be read"),
        (["--recipe", "small_task.py"], "--recipe small_task.py is not valid JSON"),
        (["--recipe", "x.json", "--bits", "4"], "--recipe has all the steps"),
        (["--frontier", "0.5"], "--frontier needs --task and --sparsity"),
        (["--sparsity", "0.5", "--layers", "x"], "no layer fits x"),
        (["--task", "nothing"], "there is no task 'nothing'"),
        (["--task", "digits"], "do not fit the network of the task"),
    ],
    ids=str,
)
def test_refusals_leave_no_file(compress, arguments, message):
    answer = compress(*arguments, "--out", "out")
    assert message in refused(answer)
    assert not Path("out/model.tailor").exists()
    assert not Path("out/compressed.json").exists()


def test_a_missing_source_is_said(run):
    assert "nothing.pt" in refused(run("compress", "nothing.pt", "--out", "out"))


SLOW = """
import sys, time
from tailor.stages.compress import checkpoint
real = checkpoint.write_group
def slow(pairs):
    time.sleep(1)
    return real(pairs)
checkpoint.write_group = slow
from tailor.shell.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on_and_gives_the_same_file(run, tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"b{i}.weight": torch.randn(6, 5, generator=generator) for i in range(40)}
    torch.save(state, tmp_path / "many.pt")
    arguments = ["compress", "many.pt", "--bits", "3", "--out"]
    done(run(*arguments, "whole"))
    command = [sys.executable, "-c", SLOW, *arguments, "out"]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ) as running:
        work = tmp_path / "out" / "model.tailor.partial"
        while running.poll() is None and not list(work.glob("*.section")):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out" / "model.tailor").exists()
    done(run(*arguments, "out"))
    assert Path("out/model.tailor").read_bytes() == Path("whole/model.tailor").read_bytes()
    assert sorted(path.name for path in Path("out").iterdir()) == FILES


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_is_drawn_without_complaint(browser, compress, tmp_path, size):  # noqa: F811
    evil = {"<img src=x>%{x}": torch.randn(9, 7), "b": torch.randn(5, 4)}
    torch.save(evil, tmp_path / "model.pt")
    allocation = ("--sparsity", "0.5", "--allocation", "global")
    done(compress(*allocation, "--tolerance", "0.01", "--out", "out"))
    page = tmp_path / "out" / "report.html"
    visit(browser, page, size)
    assert draw_all(browser) == 3
    assert browser.execute_script("return document.images.length") == 0
    width, window = browser.execute_script(
        "return [document.scrollingElement.scrollWidth, innerWidth]"
    )
    assert width <= window == size[0]
    assert complaints(browser) == []
    assert requests(browser) == [page.as_uri()]
