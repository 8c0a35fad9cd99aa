"""``tailor train``: what it writes, how it goes on, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tailor as tl
from tailor import records
from tailor.shell.cli import train as command
from tailor.shell.cli.settings import Settings, read_toml
from tailor.shell.training.journal import Journal
from tailor.shell.training.record import LayerPath, TrainedEpoch, Training, save
from tailor.tasks import find
from tests.shell.conftest import Answer, Run, analyzed, names, refused
from tests.shell.test_page import (  # noqa: F401 (browser is a fixture)
    DESK,
    PHONE,
    browser,
    complaints,
    draw_all,
    markup,
    requests,
    visit,
)

TASK = """
import os
import time

import torch
from torch import nn

import tailor as tl


def data(n, seed):
    x = torch.randn(n, 30, generator=torch.Generator().manual_seed(seed))
    return tl.Data(x=x, y=x[:, :3].argmax(dim=1))


def error(model, data):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return tl.zero_one(model, data)


def build():
    return nn.Sequential(nn.Linear(30, 40), nn.Dropout(0.1), nn.ReLU(), nn.Linear(40, 3))


full = tl.Task(
    name="my_own:full",
    build=build,
    train=lambda: data(50, 0),
    test=lambda: data(40, 1),
    error=error,
)
bare = tl.Task(name="my_own:bare", build=build, train=lambda: data(50, 0))
broken = tl.Task(name="my_own:broken", build=lambda: 1 / 0, train=lambda: data(50, 0))
without = tl.Task(name="my_own:without", build=build, train=lambda: 1 / 0)
"""
HEAVY = ("--penalty", "stable_rank:weight=1e-2", "--noise", "stable:alpha=1.8,scale=1e-3")
SMALL = ("--task", "my_own:full", "--epochs", "3", "--batch", "16")  # 4 steps an epoch
FILES = ("history.csv", "layers.csv", "model.pt", "report.html", "steps.csv", "train.toml")


@pytest.fixture
def train(run: Run, tmp_path: Path) -> Run:
    """Runs ``tailor train`` where my_own.py is."""
    (tmp_path / "my_own.py").write_text(TASK)
    return lambda *arguments: run("train", *arguments)


def done(answer: Answer) -> Answer:
    assert (answer.code, answer.err) == (0, "")
    return answer


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def record(folder: str) -> Training:
    return records.load(Training, Path(folder) / "training.json")


# What it writes


def test_it_leaves_network_tables_record_and_page(train, run):
    answer = done(train(*SMALL, *HEAVY, "--out", "run/"))
    assert sorted(contents("run")) == sorted([*FILES, "training.json"])
    assert not (Path("run") / "checkpoint").exists()
    found = record("run")
    assert (found.task, found.steps, found.stopped) == ("my_own:full", 12, None)
    assert [(one.epoch, one.step) for one in found.history] == [(1, 4), (2, 8), (3, 12)]
    assert found.provenance.settings["penalty"] == "stable_rank:weight=1e-2"
    assert "2.weight" not in answer.out
    assert "my_own:full: 3 epochs, 12 steps" in answer.out
    held_out = f"{found.test_error:.2%} of the held-out ones"
    assert f"errors: {found.train_error:.2%} of the training examples, {held_out}" in answer.out
    assert names(analyzed(run("analyze", "run/model.pt", "--json"))) == ["0.weight", "3.weight"]


def test_the_tables_say_what_the_record_says(train):
    done(train(*SMALL, *HEAVY, "--out", "run"))
    found = record("run")
    for epoch, row in zip(found.history, rows("run/history.csv"), strict=True):
        assert {name: repr(getattr(epoch, name)) for name in row} == row
    steps = rows("run/steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 13))
    second = [float(row["loss"]) for row in steps[4:8]]
    assert found.history[1].loss == pytest.approx(sum(second) / 4, rel=1e-12)
    first, last = found.layers
    assert (first.name, last.name) == ("0.weight", "3.weight")
    assert first.steps == last.steps == (0, 4, 8, 12)
    assert all(alpha is not None for alpha in first.alpha)
    assert last.alpha == (None,) * 4  # three eigenvalues are no tail
    told = [(int(r["step"]), r["layer"], r["stable_rank"]) for r in rows("run/layers.csv")]
    assert told[:2] == [(0, one.name, repr(one.stable_rank[0])) for one in found.layers]


def test_the_record_speaks_of_the_network_in_the_file(train):
    done(train(*SMALL, *HEAVY, "--out", "run"))
    task, found = find("my_own:full"), record("run")
    model = task.build()
    model.load_state_dict(torch.load("run/model.pt", weights_only=True))
    assert found.train_error == float(tl.zero_one(model, task.train()).double().mean())
    assert found.test_error == float(tl.zero_one(model, task.test()).double().mean())
    largest = torch.linalg.matrix_norm(model[0].weight.detach().double(), ord=2)
    assert found.layers[0].spectral_norm[-1] == pytest.approx(float(largest), rel=1e-5)


def test_it_is_the_loop_of_the_library(train):
    """The weights are those of a call of ``tailor.train`` with the same choices."""
    options = ("--penalty", "l2:weight=1e-2,layers=0.*", "--optimizer", "sgd:momentum=0.9")
    done(train(*SMALL, *options, "--lr", "0.1", "--seed", "5", "--out", "run"))
    task = find("my_own:full")
    torch.manual_seed(5)
    model = task.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in tl.train(
        model,
        tl.batches(task.train(), size=16, epochs=3, seed=5),
        loss=nn.functional.cross_entropy,
        optimizer=optimizer,
        penalties=[tl.L2(1e-2, layers="0.*")],
        # eta_min is 0, as in CosineDecay
        schedulers=[torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)],
        seed=5,
    ):
        pass
    state = torch.load("run/model.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)


def test_the_same_command_gives_the_same_bytes(train):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        done(train(*SMALL, *HEAVY, "--balance", "temp-balance", "--seed", seed, "--out", folder))
    assert contents("a") == contents("b")
    assert contents("a")["model.pt"] != contents("c")["model.pt"]


def test_noise_follows_the_seed_unless_it_has_its_own(train):
    quiet = ("--lr", "1e-9", "--noise", "stable:alpha=2,scale=1,lr_power=0")
    for folder, noise in (("a", quiet[3] + ",seed=3"), ("b", quiet[3]), ("c", quiet[3])):
        seed = "3" if folder != "c" else "4"
        done(train(*SMALL, *quiet[:2], "--noise", noise, "--seed", seed, "--out", folder))
    states = [torch.load(f"{folder}/model.pt", weights_only=True) for folder in "abc"]
    start = [torch.manual_seed(seed) and find("my_own:full").build() for seed in (3, 3, 4)]
    added = [s["0.weight"] - m[0].weight for s, m in zip(states, start, strict=True)]
    torch.testing.assert_close(added[0], added[1])
    assert (added[1] - added[2]).abs().max() > 0.1


def test_json_prints_the_record(train):
    answer = done(train(*SMALL, "--out", "run", "--json"))
    assert records.from_json(Training, json.loads(answer.out)) == record("run")


@pytest.mark.parametrize(
    ("options", "steps", "ends"),
    [
        (("--accumulate", "3"), 4, [(1, 2), (2, 3), (3, 4)]),
        (("--accumulate", "4"), 3, [(1, 1), (2, 2), (3, 3)]),
        (("--stop", "settles:every=3,window=2,tolerance=99"), 6, [(1, 4), (2, 6)]),
        (("--stop", "patience:patience=1,every=1,least=1"), 2, [(1, 2)]),
    ],
)
def test_epochs_end_where_their_last_step_does(train, options, steps, ends):
    done(train(*SMALL, *options, "--monitor-every", "4", "--out", "run"))
    found = record("run")
    assert found.steps == steps
    assert [(one.epoch, one.step) for one in found.history] == ends
    assert found.layers[0].steps[-1] == steps
    assert int(rows("run/layers.csv")[-1]["step"]) == steps
    assert (found.stopped is not None) == ("--stop" in options)


def test_a_stop_rule_says_why(train):
    answer = done(train(*SMALL, "--stop", "settles:every=3,window=2,tolerance=99", "--out", "r"))
    assert "stopped early: SpectrumSettles: no layer's alpha moved by more" in answer.out
    assert record("r").stopped in markup(Path("r/report.html")).replace("&#x27;", "'")


def test_a_decoupled_penalty_acts_and_is_not_in_the_loss(train):
    heavy = ("--penalty", "l2:weight=1")
    done(train(*SMALL, *heavy, "--decoupled", "--out", "a"))
    done(train(*SMALL, "--out", "b"))
    assert all(one.penalty == 0 for one in record("a").history)
    assert record("a").layers[0].frobenius_norm[-1] < record("b").layers[0].frobenius_norm[-1]
    assert "apart from the loss" in markup(Path("a/report.html"))
    assert "apart from the loss" not in markup(Path("b/report.html"))


def test_a_task_without_held_out_examples(train):
    answer = done(train("--task", "my_own:bare", "--epochs", "2", "--batch", "16", "--out", "run"))
    assert record("run").test_error is None
    assert rows("run/history.csv")[0]["test_error"] == ""
    assert "held-out" not in answer.out
    sentence = refused(train("--task", "my_own:bare", "--stop", "patience", "--out", "other"))
    assert sentence.startswith("--stop patience looks at held-out examples, but the task my_own:b")


# The configuration file


def test_a_file_says_what_options_say(train):
    Path("t.toml").write_text(
        'task = "my_own:full"\nepochs = 3\nbatch = 16\nout = "b"\nclip-norm = 1\n'
        'noise = "stable:alpha=1.8,scale=1e-3"\n'
        "[[penalty]]\nname = 'stable_rank'\nweight = 1e-2\nlayers = ['0.*', '3.*']\n"
        "schedule = {name = 'power-decay', rate = 0.5}\n"
    )
    penalty = "stable-rank:weight=0.01,layers=['0.*','3.*'],schedule=power-decay(rate=0.5)"
    options = ("--clip-norm", "1", "--penalty", penalty, *HEAVY[2:])
    done(train(*SMALL, *options, "--out", "a"))
    done(train("--config", "t.toml"))
    for name in ("model.pt", "history.csv", "layers.csv"):
        assert contents("a")[name] == contents("b")[name]
    assert record("b").history[0].penalty > 0


def test_options_win_over_the_file(train):
    Path("t.toml").write_text(
        'task = "nowhere"\nepochs = 9\nbatch = 16\npenalty = "l1:weight=3"\ndecoupled = true\n'
        'out = "b"\n'
    )
    options = ("--task", "my_own:full", "--epochs", "3", "--penalty", "l2:weight=0.1")
    done(train("--config", "t.toml", *options, "--no-decoupled", "--out", "a"))
    assert not Path("b").exists()
    assert record("a").provenance.settings["penalty"] == "l2:weight=0.1"
    assert (record("a").steps, record("a").decoupled) == (12, False)


def test_the_file_that_a_run_leaves_repeats_it(train):
    options = ("--penalty", "l2:weight=0.1,per_layer={'0.*': 2}", "--stop", "patience:patience=9")
    done(train(*SMALL, *HEAVY, *options, "--clip-norm", "0.5", "--seed", "8", "--out", "a"))
    done(train("--config", "a/train.toml", "--out", "b"))
    assert contents("a") == contents("b")


@settings(max_examples=40)
@given(
    texts=st.tuples(st.text(st.characters(codec="utf-8")), st.text("\x7f\"\\\n\t'éab😀")),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    norm=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
)
def test_settings_survive_the_file(tmp_path_factory, texts, lr, norm, seed):
    chosen = Settings(task=texts[0], penalty=texts, lr=lr, clip_norm=norm, seed=seed)
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_bytes(chosen.to_toml().encode())
    assert Settings(**read_toml(path)) == chosen


def test_a_file_of_the_user_stays_as_it_is(train):
    Path("a").mkdir()
    text = f'# mine\ntask = "my_own:full"\n{"epochs = 2"}\nbatch = 16\n'
    Path("a/train.toml").write_text(text)
    done(train("--config", "a/train.toml", "--out", "a"))
    assert Path("a/train.toml").read_text() == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no file t.toml; --config needs a TOML file"),
        ("epochs = ", "t.toml is not TOML: "),
        ("\xff", "t.toml is not TOML: "),
        ("epoch = 3", "t.toml has an unknown key 'epoch'; known are task, epochs, batch, lr"),
        ("clip_norm = 1\nclip-norm = 2", "t.toml has both clip_norm and clip-norm; keep one"),
        ("epochs = 1.5", "t.toml: epochs must be int, but the file says 1.5"),
        ("precision = 'half'", "t.toml: precision must be one of float32, bfloat16"),
        ("seed = 2020-01-01", "t.toml: seed cannot be 2020-01-01"),
        ("noise = 3", "t.toml: noise must be a text such as name:field=value, or a table with a"),
        ("penalty = [{weight = 1}]", "t.toml: penalty must be a text such as name:field=value, "),
        ("penalty = [{name = 'l1', weight = nan}]", "t.toml: penalty: weight cannot be nan"),
        ("penalty = ['l1']", "--penalty l1 needs weight, as in l1:weight=..."),
    ],
)
def test_a_file_that_says_something_else_is_refused(train, text, sentence):
    if text is not None:
        Path("t.toml").write_bytes(text.encode("latin-1"))
    answer = train("--config", "t.toml", "--task", "my_own:full", "--out", "run")
    assert refused(answer).startswith(sentence)
    assert not Path("run").exists()


# Misuse


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--task nowhere", "there is no task 'nowhere'; use digits, or module:name for your own"),
        ("--task my_own:broken", "the network of the task my_own:broken cannot be built: ZeroDiv"),
        ("--task my_own:without", "the data of the task my_own:without cannot be had: ZeroDivis"),
        ("--penalty l3:weight=1", "--penalty 'l3' is unknown; choose one of l1, l2, student-pr"),
        ("--penalty l2:wait=1", "--penalty l2 has no field 'wait'; it has weight, layers, skip, p"),
        ("--penalty l2:weight=-1", "L2 needs weights of 0 or more, but got -1.0"),
        ("--penalty l2:weight=1,layers=conv*", "no layer fits conv*; there are: 0.weight, 3.wei"),
        ("--penalty tail-exponent:weight=1,layers=3.*", "TailExponent finds no matrix large enou"),
        ("--noise stable:alpha=2.5,scale=1", "StableNoise needs a tail index alpha in (0, 2] and"),
        ("--noise stable:alpha=1.8,scale=1,layers=x", "no layer fits x"),
        ("--balance temp-balance:low=-1", "low and high must be positive factors, but are -1.0"),
        ("--optimizer adam:betas=[2,3]", "--optimizer: Invalid beta parameter at index 0: 2.0"),
        ("--optimizer adam:lr=1", "--optimizer adam has no field 'lr'; it has betas, eps"),
        ("--schedule window:start=-1", "a window needs 0 <= start < stop, but got start -1"),
        ("--stop patience:patience=0", "Patience needs patience >= 1, every >= 1 and least >= 0"),
        ("--stop settles:window=1", "SpectrumSettles needs every >= 1, window >= 2 and toleranc"),
        ("--epochs 0", "--epochs must be at least 1, but is 0"),
        ("--batch 0", "--batch must be at least 1, but is 0"),
        ("--checkpoint-every 0", "--checkpoint-every must be at least 1, but is 0"),
        ("--accumulate 9", "--accumulate 9 is more than the 1 batches of an epoch"),
        ("--lr 0", "--lr must be above 0, but is 0.0"),
        ("--lr nan", "--lr must be above 0, but is nan"),
        ("--seed -1", "--seed must be a whole number from 0 up, but is -1"),
        ("--clip-norm 0", "clip_norm must be above 0, or None, but is 0.0"),
        ("--device gpu", "--device 'gpu' is unknown; give cpu, cuda or cuda:1"),
    ],
)
def test_misuse_is_refused_before_anything_is_written(train, options, sentence):
    answer = train("--task", "my_own:full", "--out", "run", *options.split())
    assert sentence in refused(answer)
    assert not Path("run").exists()


def test_a_task_has_to_be_named(train):
    assert refused(train()).startswith("tailor train needs --task: digits, or module:name for yo")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(train, monkeypatch):
    monkeypatch.setattr(command.Run, "go", None)
    Path("file").touch()
    assert "file/below cannot be written (Not a dir" in refused(
        train(*SMALL, "--out", "file/below")
    )
    assert "cannot be written (File exists)" in refused(train(*SMALL, "--out", "file"))


def test_a_loss_that_runs_away_is_a_sentence(train):
    answer = train(*SMALL, "--lr", "1e30", "--optimizer", "sgd", "--out", "run")
    sentence = refused(answer)
    assert "at step" in sentence
    assert "lower the learning rate" in sentence
    assert not Path("run/model.pt").exists()


# Runs that were cut short


def test_a_killed_run_goes_on_as_if_it_had_not_been(train, tmp_path):
    options = (*SMALL[:3], "12", *SMALL[4:], *HEAVY, "--balance", "temp-balance")
    options = (*options, "--penalty", "l1:weight=1e-3", "--checkpoint-every", "3")
    killed = subprocess.Popen(
        [sys.executable, "-m", "tailor", "train", *options, "--out", "a"],
        cwd=tmp_path,
        env=os.environ | {"PAUSE": "0.1"},
    )
    try:
        end = time.monotonic() + 60
        while not (Path("a/history.csv").is_file() and len(rows("a/history.csv")) > 3):
            assert killed.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, "it does not train"
            time.sleep(0.01)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert 3 < len(rows("a/history.csv")) < 12
    assert not Path("a/training.json").exists()
    done(train(*options, "--out", "a"))
    assert not Path("a/checkpoint").exists()
    done(train(*options, "--out", "b"))
    assert contents("a") == contents("b")


class Stop:
    """Presses Ctrl-C when a method is called for the nth time, before it does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
        self.calls, self.at, original = 0, at, getattr(Journal, name)

        def watched(journal: Journal, *arguments: object) -> object:
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return original(journal, *arguments)

        monkeypatch.setattr(Journal, name, watched)


@pytest.mark.parametrize(
    ("place", "at", "sentence"),
    [
        ("add", 7, "stopped by the keyboard after step 7; the same command goes on after step 6"),
        # step 4 is stored, but not written down
        ("add", 4, "stopped by the keyboard after step 4; the same command goes on after step 2"),
        # step 4 is stored and ends the first epoch, whose line is not written any more
        ("close_epoch", 1, "stopped by the keyboard after step 4; the same command goes on after"),
        ("add", 1, "stopped by the keyboard after step 1; the same command begins anew"),
    ],
)
def test_a_stop_by_the_keyboard_keeps_the_checkpoint(train, monkeypatch, place, at, sentence):
    options = (*SMALL, *HEAVY, "--checkpoint-every", "2")
    with monkeypatch.context() as patch:
        Stop(patch, place, at)
        assert refused(train(*options, "--out", "a")).startswith(sentence)
    done(train(*options, "--out", "a"))
    done(train(*options, "--out", "b"))
    assert contents("a") == contents("b")


def test_without_a_checkpoint_it_begins_anew(train, monkeypatch):
    with monkeypatch.context() as patch:
        Stop(patch, "add", 7)
        sentence = refused(train(*SMALL, "--out", "a"))
    assert sentence == "stopped by the keyboard after step 7; the same command begins anew"
    done(train(*SMALL, "--out", "a"))
    done(train(*SMALL, "--out", "b"))
    assert contents("a") == contents("b")


def test_a_run_stopped_by_a_rule_before_its_last_line_is_completed(train, monkeypatch):
    options = (*SMALL, "--stop", "settles:every=3,window=2,tolerance=99", "--checkpoint-every=2")
    with monkeypatch.context() as patch:
        Stop(patch, "close_epoch", 2)
        refused(train(*options, "--out", "a"))
    done(train(*options, "--out", "a"))
    done(train(*options, "--out", "b"))
    assert record("a").steps == 6
    assert contents("a") == contents("b")


def cut_short(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Stop(patch, "add", 7)
        refused(train(*SMALL, "--checkpoint-every", "2", "--out", "a"))


def test_a_checkpoint_of_other_settings_is_refused(train, monkeypatch):
    cut_short(train, monkeypatch)
    sentence = refused(train(*SMALL, "--lr", "0.1", "--out", "a"))
    assert sentence == (
        "a holds a run with lr = 0.005, but now it is 0.1; give another --out, or --again to "
        "replace it"
    )
    assert "with penalty = none, but now it is l2:weight=1" in refused(
        train(*SMALL, "--penalty", "l2:weight=1", "--out", "a")
    )
    assert "with task = my_own:full, but now it is my_own:bare" in refused(
        train("--task", "my_own:bare", "--out", "a")
    )
    done(train(*SMALL, "--lr", "0.1", "--out", "a", "--again"))
    done(train(*SMALL, "--lr", "0.1", "--out", "b"))
    assert contents("a") == contents("b")


def test_how_often_it_is_stored_may_change(train, monkeypatch):
    cut_short(train, monkeypatch)
    went: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", lambda *given, add=Journal.add: went.append(1) or add(*given))
        done(train(*SMALL, "--out", "a"))
    assert len(went) == 6  # after step 6 of 12
    done(train(*SMALL, "--out", "b"))
    assert contents("a") == contents("b")


def test_what_a_killed_run_left_half_written_is_removed(train, monkeypatch):
    cut_short(train, monkeypatch)
    Path("a/.history.csv.0a1b2c3d").touch()
    Path("a/.mine.csv.0a1b2c3d").touch()
    done(train(*SMALL, "--out", "a"))
    assert [name for name in contents("a") if name.startswith(".")] == [".mine.csv.0a1b2c3d"]


def test_a_damaged_checkpoint_is_refused(train, monkeypatch):
    cut_short(train, monkeypatch)
    for path in Path("a/checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    sentence = refused(train(*SMALL, "--out", "a"))
    assert sentence == "a/checkpoint/checkpoint.pt is damaged; give --again to begin anew"
    done(train(*SMALL, "--out", "a", "--again"))


# Runs that are finished


def test_a_finished_run_is_shown_and_not_repeated(train, monkeypatch):
    first = done(train(*SMALL, *HEAVY, "--out", "a"))
    before = contents("a")
    with monkeypatch.context() as patch:
        patch.setattr(command.Run, "go", None)
        again = done(
            train(*SMALL, "--penalty", "stable-rank:weight=0.01", *HEAVY[2:], "--out", "a")
        )
    assert again.out == first.out
    assert contents("a") == before


def test_a_finished_run_of_other_settings_is_replaced_only_when_asked(train):
    done(train(*SMALL, "--out", "a"))
    before = contents("a")
    sentence = refused(train(*SMALL, "--seed", "1", "--out", "a"))
    assert sentence.startswith("a holds a run with seed = 0, but now it is 1; give another --out")
    assert "no layer fits x" in refused(
        train(*SMALL, "--penalty", "l2:weight=1,layers=x", "--again", "--out", "a")
    )
    assert contents("a") == before
    done(train(*SMALL, "--seed", "1", "--out", "a", "--again"))
    assert contents("a")["model.pt"] != before["model.pt"]


def test_a_network_of_somebody_else_is_not_replaced(train):
    Path("a").mkdir()
    Path("a/model.pt").write_text("mine")
    sentence = refused(train(*SMALL, "--out", "a"))
    assert sentence.startswith("a holds a model.pt that is not of a finished run; give another")
    assert contents("a") == {"model.pt": b"mine"}


def test_a_run_without_its_settings_is_refused(train):
    done(train(*SMALL, "--out", "a"))
    Path("a/train.toml").unlink()
    sentence = refused(train(*SMALL, "--out", "a"))
    assert sentence.startswith("a holds a run whose settings cannot be read (there is no file a/t")


# The report


def test_the_report_can_be_made_again(train, run):
    done(train(*SMALL, *HEAVY, "--out", "a"))
    before = contents("a")
    Path("a/report.html").unlink()
    done(run("report", "a"))
    assert contents("a") == before
    text = markup(Path("a/report.html"))
    assert "No exponent at any step, since the fit was refused: <b>3.weight</b>." in text
    shown = text.count("<data ")
    assert shown == 2 * 8 - 2 + 3 * 7  # layers, without two refused fits; and epochs


def test_a_report_that_is_missing_is_made_by_the_same_command(train):
    done(train(*SMALL, "--out", "a"))
    before = contents("a")
    Path("a/report.html").unlink()
    done(train(*SMALL, "--out", "a"))
    assert contents("a") == before


def test_the_report_of_a_run_that_is_not_finished_is_refused(train, run, monkeypatch):
    cut_short(train, monkeypatch)
    sentence = refused(run("report", "a"))
    assert sentence == "a holds a run that is not finished; give its `tailor train` command again"


def test_an_analysis_beside_a_run_has_its_place(train, run):
    done(train(*SMALL, "--out", "a"))
    done(run("analyze", "a/model.pt", "--out", "a"))
    text = markup(Path("a/report.html"))
    assert 'id="run"' in text
    assert 'id="analyze"' in text


def deep(folder: Path, layers: int, evil: str = "") -> Path:
    """The record of a run of a deep network, with gaps."""
    steps = tuple(range(0, 200, 10))
    made = tuple(
        LayerPath(
            name=f"transformer.blocks.{i}.attention.query_key_value.weight{evil}",
            steps=steps,
            alpha=tuple(None if 5 < k < 9 or k == 10 else 2 + 3 / (k + 1) for k in range(20)),
            stable_rank=tuple(30.0 / (k + 1) + i for k in range(20)),
            spectral_norm=tuple(1.0 + k + i for k in range(20)),
            frobenius_norm=(9.0,) * 20,
        )
        for i in range(layers)
    )
    history = tuple(
        TrainedEpoch(
            epoch=e,
            step=20 * e,
            loss=1 / e,
            penalty=0.1 * (5 - e),  # a log density may be negative
            lr=0.1,
            train_error=0.0,
            test_error=0.5 / e,
        )
        for e in range(1, 10)
    )
    about = records.Provenance.now(0, task="deep")
    errors = {"train_error": 0.0, "test_error": 0.05, "decoupled": False}
    save(
        Training(
            task=f"deep{evil}",
            steps=190,
            stopped=evil or None,
            history=history,
            layers=made,
            provenance=about,
            **errors,
        ),
        folder,
    )
    return tl.render(folder)


def test_of_very_many_layers_the_figures_show_some(tmp_path):
    text = deep(tmp_path, 40).read_text("utf-8")
    assert "Of 40 layers the figures show 12, evenly spread" in text
    (block,) = [b for b in text.split("</script>") if 'id="run-ranks-data"' in b]
    drawn = json.loads(block.split(">")[-1])["data"]
    legend = [one["name"] for one in drawn]
    assert (legend[:3], legend[-1]) == (["0", "4", "7"], "39")
    looks = {(one["line"]["color"], one["line"].get("dash")) for one in drawn}
    assert len(looks) == len(drawn) == 12
    (block,) = [b for b in text.split("</script>") if 'id="run-exponents-data"' in b]
    (first, *_) = json.loads(block.split(">")[-1])["data"]
    assert [i for i, y in enumerate(first["y"]) if y is None] == [6, 7, 8, 10]
    marked = [i for i, size in enumerate(first["marker"]["size"]) if size]
    assert [i for i in marked if first["y"][i] is not None] == [9]  # stands alone


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_every_figure_is_drawn_without_complaint(browser, tmp_path, size):  # noqa: F811
    report = deep(tmp_path, 14, "<img src=x>%{x}")
    visit(browser, report, size)
    assert draw_all(browser) == 6
    width, window = browser.execute_script(
        "return [document.scrollingElement.scrollWidth, innerWidth]"
    )
    assert width <= window == size[0]
    legends = browser.execute_script(
        "return [...document.querySelectorAll('#run-norms .legendtext')].map(e => e.textContent)"
    )
    assert legends == ["0", "1", "2", "4", "5", "6", "7", "8", "9", "11", "12", "13"]
    texts = browser.execute_script(
        "return [...document.querySelectorAll('details[data-numbers] td')].map(e => e.textContent)"
    )
    assert texts.count("–") == 4 * 12
    assert complaints(browser) == []
    assert requests(browser) == [report.as_uri()]
