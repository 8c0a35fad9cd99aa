"""``tailor verify``: what holds, and that no change of a byte or a number goes unseen."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tailor
from tailor import Analysis, CompressedModel, Verification, records
from tailor.shell.cli.loop import round_up
from tests.shell.conftest import Answer, Run, process, refused

TASK = """
import tailor, torch
from torch import nn

def examples(seed):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(seed))
    return tailor.Data(x=x, y=(x[:, 0] > 0).long())

def build():
    return nn.Sequential(nn.Linear(5, 2, bias=False))

task = tailor.Task(
    name="tiny_task:task", build=build, train=lambda: examples(0), test=lambda: examples(1)
)
"""
NAME = "tiny_task:task"


@pytest.fixture(scope="module")
def certified(tmp_path_factory) -> Iterator[Path]:
    """A folder with a small task, a compressed model and its certificate."""
    folder = tmp_path_factory.mktemp("certified")
    (folder / "tiny_task.py").write_text(TASK)
    space: dict[str, object] = {}
    exec(TASK, space)
    task = space["task"]
    network = task.build()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[-1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]]))
    (one,) = tailor.frontier(network, [0.8])
    small = one.compressed
    certificate = tailor.certify(
        small, build=task.build, data=task.train(), held_out=task.test(), task=NAME
    )
    assert certificate.errors == 0
    assert certificate.risk_bound < 1
    small.save(folder / "model.tailor")
    tailor.save(certificate, folder / "certificate.json")
    yield folder
    sys.modules.pop("tiny_task", None)


@pytest.fixture
def pair(certified: Path, run: Run, monkeypatch) -> tuple[Path, Path]:
    """Fresh copies of certificate and model, in the current folder beside the task."""
    for name in ("tiny_task.py", "certificate.json", "model.tailor"):
        Path(name).write_bytes((certified / name).read_bytes())
    return Path("certificate.json"), Path("model.tailor")


def test_a_good_pair_holds(run, pair):
    answer = run("verify", *pair, "--task", NAME)
    assert answer.code == 0
    assert "DIFFERS" not in answer.out
    assert answer.out.splitlines()[-1].startswith("holds: Exploratory, since nothing ")
    assert answer.err == ""


def test_a_good_pair_holds_in_a_process_of_its_own(pair, tmp_path):
    answer = process("verify", *map(str, pair), "--task", NAME, folder=tmp_path)
    assert (answer.code, answer.err) == (0, "")


def test_a_verification_in_json_loads_back(run, pair):
    answer = run("verify", *pair, "--task", NAME, "--json")
    assert answer.code == 0
    assert records.from_json(Verification, json.loads(answer.out)).holds


def no(answer: Answer) -> list[str]:
    """What differs in a pair that does not hold."""
    assert answer.code == 1
    assert answer.err == ""
    assert re.search(r"^does not hold: ", answer.out, re.MULTILINE)
    return [line for line in answer.out.splitlines() if line.startswith("DIFFERS")]


def test_no_byte_of_the_model_can_change(run, pair):
    whole = pair[1].read_bytes()
    for place in range(0, len(whole), 13):
        pair[1].write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert no(run("verify", *pair, "--task", NAME)) == ["DIFFERS decoding of the model"]


@pytest.mark.parametrize("data", [b"", b"x", b"\x89TAILOR\x01"])
def test_garbage_is_no_model(run, pair, data):
    pair[1].write_bytes(data)
    assert no(run("verify", *pair, "--task", NAME)) == ["DIFFERS decoding of the model"]


def test_another_model_does_not_hold(run, pair):
    space: dict[str, object] = {}
    exec(TASK, space)
    next(tailor.frontier(space["build"](), [0.9])).compressed.save(pair[1])
    assert isinstance(CompressedModel.load(pair[1]), CompressedModel)
    found = no(run("verify", *pair, "--task", NAME))
    assert "DIFFERS decoding of the model" in found
    assert "DIFFERS seal of the certificate" not in found


def numbers(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a certificate holds a number."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def test_no_number_of_the_certificate_can_change(run, pair):
    text = pair[0].read_text()
    places = list(numbers(json.loads(text)))
    assert ("risk_bound",) in places
    assert ("held_out", "high") in places
    for path in places:
        changed = json.loads(text)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] += type(inner[path[-1]])(1)
        pair[0].write_text(json.dumps(changed))
        found = no(run("verify", *pair, "--task", NAME))
        assert found[0] == "DIFFERS seal of the certificate", path


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "{}", '{"type": "Certificate"}', "[" * 10**5, "\x00"]
)
def test_garbage_is_no_certificate(run, pair, text):
    pair[0].write_text(text)
    answer = run("verify", *pair, "--task", NAME)
    assert no(answer) == []
    assert answer.out.startswith("does not hold: the certificate is unreadable: ")


@pytest.mark.parametrize("gone", [0, 1])
def test_a_missing_file_is_misuse(run, pair, gone):
    pair[gone].unlink()
    assert refused(run("verify", *pair, "--task", NAME)) == f"there is no file {pair[gone]}"


def test_a_task_for_other_data_does_not_hold(run, pair):
    Path("other_task.py").write_text(TASK.replace("examples(0)", "examples(7)"))
    try:
        found = no(run("verify", *pair, "--task", "other_task:task"))
    finally:
        sys.modules.pop("other_task", None)
    assert "DIFFERS data" in found


def test_a_compressed_model_can_be_analyzed(run, pair):
    answer = run("analyze", pair[1], "--json")
    assert answer.code == 0
    (layer,) = records.from_json(Analysis, json.loads(answer.out)).layers
    assert (layer.name, layer.shape) == ("0.weight", (2, 5))
    assert layer.zeros == pytest.approx(0.8)


def test_round_up_never_flatters():
    for share, shown in [(0.41, "0.4100"), (0.41001, "0.4101"), (0.0, "0.0000"), (1.0, "1.0000")]:
        assert round_up(share) == shown
        assert float(shown) >= share
