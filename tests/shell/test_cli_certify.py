"""``tailor register`` and ``tailor certify``."""

import json
import sys
from pathlib import Path

import pytest

from tailor import records
from tailor.stages.certify import Certificate, Registration
from tests.shell.conftest import refused
from tests.shell.test_cli_verify import NAME, TASK


@pytest.fixture
def task(run, monkeypatch):
    """A task in the current folder."""
    Path("tiny_task.py").write_text(TASK)
    yield NAME
    sys.modules.pop("tiny_task", None)


def register(run, *more):
    answer = run("register", "--task", NAME, "--out", "r.json", *more)
    assert (answer.code, answer.err) == (0, "")
    return answer.out


def test_a_registration_says_what_is_fixed(run, task):
    out = register(run, "--earlier", "8", "--delta", "0.1", "--split", "0.5:a", "--seed", "3")
    found = records.load(Registration, "r.json")
    assert (found.n, found.delta, found.choices, found.seed) == (60, 0.1, 8, 3)
    assert (found.split.share, found.split.salt) == (0.5, "a")
    assert found.seal() == found.sha256
    assert found.sha256 in out
    assert "60 examples, delta 0.1, 8 choices to pay" in out


def test_search_certify_verify(run, task):
    register(run, "--bound", "occam:pays=bits")
    words = ("certify", "--task", NAME, "--registration", "r.json", "--out", "out")
    more = ("--search", "--seconds", "1", "--bound", "occam:pays=bits")
    answer = run(*words, *more)
    assert answer.code == 0, answer.err
    assert ": bound " in answer.err
    certificate = records.load(Certificate, "out/certificate.json")
    assert certificate.registered
    assert certificate.claim in answer.out
    assert {"model.tailor", "report.html"} <= {path.name for path in Path("out").iterdir()}
    files = ("out/certificate.json", "out/model.tailor")
    assert run("verify", *files, "--task", NAME).code == 0
    again = run(*words, "--model", "out/model.tailor", "--bound", "occam:pays=bits", "--json")
    assert json.loads(again.out)["risk_bound"] == certificate.risk_bound
    assert "What it does not say" in Path("out/report.html").read_text()


def test_what_was_not_registered_is_refused(run, task):
    register(run)
    words = ("certify", "--task", NAME, "--registration", "r.json", "--out", "out", "--search")
    assert "delta is 0.2, but 0.05 was registered" in refused(
        run(*words, "--seconds", "1", "--delta", "0.2")
    )
    assert "the method is HeldOut" in refused(run(*words, "--bound", "held-out:compared=1"))


def test_a_search_is_for_short_codes_only(run, task):
    words = ("certify", "--task", NAME, "--out", "out", "--search")
    said = refused(run(*words, "--bound", "held-out:compared=1"))
    assert "--search looks for the shortest code" in said


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--bound", "luck"), "--bound 'luck' is unknown; choose one of occam, held-out"),
        (("--bound", "held-out"), "needs compared"),
        (("--split", "half"), "--split must be SHARE:SALT"),
        (("--delta", "2"), "delta must lie strictly between 0 and 1"),
        (("--earlier", "0"), "must be at least 1"),
    ],
)
def test_a_bad_registration(run, task, words, match):
    assert match in refused(run("register", "--task", NAME, "--out", "r.json", *words))
    assert not Path("r.json").exists()


def test_files_that_are_not_there(run, task):
    words = ("certify", "--task", NAME, "--out", "out")
    assert "there is no such file" in refused(run(*words, "--model", "no.tailor"))
    said = refused(run(*words, "--search", "--registration", "no.json"))
    assert "make it with tailor register" in said
