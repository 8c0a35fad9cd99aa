"""The command line: help, exit codes, and one clear sentence for each refusal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tailor
from tailor.shell.cli import analyze as analyze_command
from tailor.shell.cli import loop
from tests.shell.conftest import Answer, process, refused

# Help and misuse


def test_the_version(run):
    assert run("--version") == (0, f"tailor {tailor.__version__}\n", "")


def test_help_lists_every_verb(run):
    answer = run("--help")
    assert answer.code == 0
    for verb in ("demo", "analyze", "norms", "compare", "train", "verify", "report"):
        assert re.search(rf"^ +{verb} ", answer.out, re.MULTILINE)
        assert run(verb, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["--nope"], "the following arguments are required: COMMAND"),
        (["analyse"], "invalid choice: 'analyse'"),
        (["analyze"], "the following arguments are required: source"),
        (["analyze", "m.pt", "--nope"], "unrecognized arguments: --nope"),
        (["analyze", "m.pt", "--workers", "x"], "argument --workers: invalid int value: 'x'"),
        (["verify", "c.json", "m.tailor"], "the following arguments are required: --task"),
    ],
)
def test_misuse_is_refused(run, arguments, sentence):
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert sentence in answer.err.splitlines()[-1]
    assert answer.err.startswith("usage: tailor")


def test_it_runs_as_a_module_without_a_warning(tmp_path, model):
    answer = process("analyze", model.name, folder=tmp_path, PYTHONWARNINGS="error")
    assert answer.code == 0
    assert "first.weight" in answer.out
    assert "not analyzed: first.bias (30): vector" in answer.out
    assert answer.err.strip() == ""
    assert "Traceback" not in process("analyze", "none", folder=tmp_path).err


# Refusals: what is wrong with the source


def truncated(path: Path) -> None:
    save_file({"w": torch.ones(3, 4)}, path)
    path.write_bytes(path.read_bytes()[:-5])


def not_a_number(path: Path) -> None:
    save_file({"bad.weight": torch.full((3, 4), torch.nan)}, path)


WRONG = {
    "missing": ("none.pt", lambda path: None, "there is no file or folder {path}"),
    "empty": ("m.pt", lambda path: path.touch(), "{path} is empty (0 bytes); copy or download"),
    "cut": ("m.safetensors", truncated, "{path} is not a whole safetensors file ("),
    "code": (
        "m.pt",
        lambda path: torch.save(torch.nn.Linear(2, 3), path),
        "{path} is a pickle that holds more than weights, or none; it was not run. Save the",
    ),
    "nan": ("m.safetensors", not_a_number, "bad.weight: 12 of 12 values are NaN or infinite; the"),
    "no matrix": (
        "m.pt",
        lambda path: torch.save({"bias": torch.ones(3)}, path),
        "{path} holds no weight matrix; found: bias",
    ),
    "ending": ("m.zip", lambda path: path.write_text("x"), "{path} has an unknown ending; tailor"),
    "folder": ("folder", lambda path: path.mkdir(), "{path} holds no weight file (.safetensors, "),
    "no tailor file": (
        "m.tailor",
        lambda path: path.write_text("x"),
        "{path}: this is not a tailor file",
    ),
    "no such": ("none.tailor", lambda path: None, "{path}: there is no such file"),
}


@pytest.mark.parametrize(("name", "make", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_source_is_refused_in_its_own_words(run, tmp_path, name, make, sentence):
    path = tmp_path / name
    make(path)
    assert refused(run("analyze", path)).startswith(sentence.format(path=path))
    shown = run("analyze", path, "--debug")
    assert shown.code == 2
    assert "Traceback (most recent call last)" in shown.err
    assert shown.err.splitlines()[-1].startswith("tailor: " + sentence.format(path=path))


def test_no_workers_are_refused(run, model):
    assert (
        refused(run("analyze", model, "--workers", "0")) == "workers must be at least 1, but is 0"
    )


@pytest.mark.parametrize("command", [["analyze", "m.safetensors"], ["demo"]])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    run, monkeypatch, model, command
):
    monkeypatch.setattr(analyze_command, "watched", None)
    monkeypatch.setattr(loop.demo, "run", None)
    sentence = refused(run(*command, "--out", model / "below"))
    assert re.fullmatch(
        r".*m\.safetensors/below cannot be written \(Not a directory\); choose .* --out", sentence
    )
    sentence = refused(run(*command, "--out", model))
    assert "cannot be written (File exists)" in sentence


def test_a_report_of_an_empty_folder_is_refused(run, tmp_path):
    assert f"{tmp_path} holds no results" in refused(run("report", tmp_path))


def test_a_report_of_a_damaged_record_is_refused(run, tmp_path):
    (tmp_path / "analysis.json").write_text("{")
    assert "analysis.json is not valid JSON" in refused(run("report", tmp_path))


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("digit", "there is no task 'digit'; use digits, or module:name for your own"),
        (
            "none_such:t",
            "the module none_such of the task does not import: ModuleNotFoundError: No",
        ),
    ],
)
def test_an_unknown_task_is_refused(run, model, task, sentence):
    assert refused(run("verify", model, model, "--task", task)).startswith(sentence)


def test_a_stop_by_the_keyboard_is_no_traceback(run, monkeypatch, model):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(analyze_command, "analyze", stop)
    assert refused(run("analyze", model)).startswith("stopped by the keyboard")


def test_a_defect_says_that_it_is_one(run, monkeypatch, model):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("too small")

    monkeypatch.setattr(analyze_command, "analyze", fail)
    answer = run("analyze", model)
    assert answer.code == 2
    assert answer.err.strip().startswith("tailor: ZeroDivisionError: too small (this is a defect")
    assert "Traceback" not in answer.err
    assert "Traceback" in run("analyze", model, "--debug").err


def stopped_reader(*arguments: str, folder: Path) -> Answer:
    """Runs a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "tailor", *arguments]
        done = subprocess.run(
            command, cwd=folder, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    return Answer(done.returncode, "", done.stderr.strip())


def test_a_reader_that_goes_away_is_no_failure(tmp_path, model):
    assert stopped_reader("analyze", model.name, "--json", folder=tmp_path) == (0, "", "")


def test_a_reader_of_a_table_that_goes_away_is_no_failure(tmp_path, model):
    assert stopped_reader("analyze", model.name, folder=tmp_path) == (0, "", "")
