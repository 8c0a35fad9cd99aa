"""The command line: exit codes, one clear sentence for each refusal, and what is written."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

import tailor
from tailor import Analyses, Analysis, CompressedModel, Verification, records
from tailor.shell.cli import analyze as analyze_command
from tailor.shell.cli import loop, main
from tailor.shell.cli.loop import round_up

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


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path) -> Run:
    """Runs a command in this process, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse leaves in this way
            code = stop.code
        return Answer(code, *capsys.readouterr())

    return run


def process(*arguments: str | Path, folder: Path, **changes: str) -> Answer:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tailor", *arguments],
        cwd=folder,
        env=os.environ | changes,
        capture_output=True,
        text=True,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def refused(answer: Answer) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, no traceback."""
    assert answer.code == 2
    assert answer.out == ""
    (line,) = answer.err.strip().splitlines()
    assert line.startswith("tailor: ")
    assert "defect" not in line
    return line.removeprefix("tailor: ")


@pytest.fixture(scope="module")
def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "first.weight": torch.randn(30, 40, generator=generator),
        "second.weight": torch.randn(25, 30, generator=generator),
        "first.bias": torch.zeros(30),
    }


@pytest.fixture
def model(tmp_path: Path, matrices: dict[str, torch.Tensor]) -> Path:
    save_file(matrices, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


# Help and misuse


def test_the_version(run):
    assert run("--version") == (0, f"tailor {tailor.__version__}\n", "")


def test_help_lists_every_verb(run):
    answer = run("--help")
    assert answer.code == 0
    for verb in ("demo", "analyze", "compare", "verify", "report"):
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


# Analyze


def test_a_table_shows_every_matrix_and_what_was_left_out(run, model):
    answer = run("analyze", model.name)
    assert answer.code == 0
    assert answer.out.splitlines()[0].strip() == model.name
    for words in (r"first\.weight +30x40 ", r"second\.weight +25x30 "):
        assert re.search(words, answer.out)
    assert "not analyzed: first.bias (30): vector" in answer.out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_json_loads_back(tmp_path, model, workers):
    answer = process("analyze", model.name, "--json", "--workers", workers, folder=tmp_path)
    assert answer.code == 0
    analysis = records.from_json(Analysis, json.loads(answer.out))
    assert analysis.source == model.name
    assert [layer.shape for layer in analysis.layers] == [(30, 40), (25, 30)]
    assert [one.name for one in analysis.skipped] == ["first.bias"]


def test_out_writes_record_table_and_report(run, model, tmp_path):
    out = tmp_path / "new" / "folder"
    assert run("analyze", model, "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("analysis.csv", "analysis.json", "analysis.md", "analysis.parquet", "report.html")
    ]
    (analysis,) = tailor.load(Analyses, out / "analysis.json").analyses
    with (out / "analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.name for layer in analysis.layers]
    assert float(rows[0]["alpha"]) == analysis.layers[0].spectrum.alpha
    before = (out / "report.html").read_bytes()
    assert b"first.weight" in before
    (out / "report.html").unlink()
    assert run("report", out) == (0, f"{out / 'report.html'}\n", "")
    assert (out / "report.html").read_bytes() == before


NAMES = ["[red]x[/red]", "[/oops]", "[bold", "\\[x]"]


def odd_names(path: Path, names: list[str]) -> None:
    save_file({name: torch.rand(25, 25) for name in names} | {"[b]v[/b]": torch.ones(2)}, path)


def test_markup_in_names_is_shown_as_it_is(run, tmp_path):
    odd_names(tmp_path / "[red]m.safetensors", NAMES)
    answer = run("analyze", "[red]m.safetensors")
    assert answer.code == 0
    for text in (*NAMES, "[red]m.safetensors", "not analyzed: [b]v[/b] (2): vector"):
        assert text in answer.out
    assert refused(run("analyze", "[red]n[/red].pt")).endswith("the pattern [red]n[/red].pt")


def test_markup_in_a_message_is_shown_as_it_is(run, tmp_path):
    save_file({"[red]x[/red]": torch.full((3, 4), torch.inf)}, tmp_path / "m.safetensors")
    assert refused(run("analyze", "m.safetensors")).startswith(
        "[red]x[/red]: 12 of 12 values are NaN"
    )


def test_colons_in_names_are_shown_as_they_are(run, tmp_path):
    odd_names(tmp_path / "m.safetensors", [":smile:"])
    assert ":smile:" in run("analyze", "m.safetensors").out
    assert refused(run("analyze", ":smile:.pt")).endswith("or folder :smile:.pt")


def test_markup_in_names_does_not_disturb_the_progress_bar(tmp_path):
    odd_names(tmp_path / "m.safetensors", ["[/oops]"])
    answer = process("analyze", "m.safetensors", folder=tmp_path, FORCE_COLOR="1")
    assert answer.code == 0
    assert "MarkupError" not in answer.err


def test_round_up_never_flatters():
    for share, shown in [(0.41, "0.4100"), (0.41001, "0.4101"), (0.0, "0.0000"), (1.0, "1.0000")]:
        assert round_up(share) == shown
        assert float(shown) >= share


# Verify


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
    small = tailor.compress(network, pruner=tailor.Magnitude(sparsity=0.8))
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
    assert answer.out.splitlines()[-1].startswith("holds: With probability at least 0.95 over ")
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
    tailor.compress(space["build"]()).save(pair[1])
    assert isinstance(CompressedModel.load(pair[1]), CompressedModel)
    found = no(run("verify", *pair, "--task", NAME))
    assert "DIFFERS model sha256" in found
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
    assert "DIFFERS data sha256" in found


def test_a_compressed_model_can_be_analyzed(run, pair):
    answer = run("analyze", pair[1], "--json")
    assert answer.code == 0
    (layer,) = records.from_json(Analysis, json.loads(answer.out)).layers
    assert (layer.name, layer.shape) == ("0.weight", (2, 5))
    assert layer.zeros == pytest.approx(0.8)
