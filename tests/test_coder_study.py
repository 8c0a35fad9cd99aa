"""The studies of the packed stream, made tiny; and what is recorded of the whole ones."""

import json

import pytest

from benchmarks.compress import coder, fuzz


def test_every_case_comes_back_and_has_a_row():
    tensors = coder.cases(scale=0.03)
    few = {name: items[:2] for name, items in tensors.items()}
    pytest.importorskip("constriction")
    rows = coder.measure(few, rounds=1)
    assert [row["case"] for row in rows] == list(tensors)
    for row in rows:
        assert row["bytes"] > 0.5 * row["limit_bytes"] > 0
        assert row["fast_enough"] is None  # so few weights say nothing about speed


def test_damaged_streams_are_refused_or_decode():
    found = fuzz.measure([*fuzz.streams(50, seed=1), *fuzz.files(20, seed=1)])
    counted = sum(sum(one.values()) for one in found["counts"].values())
    assert counted == found["streams"] == 70
    assert found["other_errors"] == {}


def test_whatever_else_happens_is_counted(monkeypatch):
    def broken(data, specs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(fuzz, "decode_packed", broken)
    found = fuzz.measure(fuzz.streams(3, seed=0))
    assert found["other_errors"] == {"RuntimeError('a bug')": 3}
    assert not found["passed"]


def test_recorded_runs_reached_their_goals():
    rows = {row["case"]: row for row in json.loads(coder.RESULT.read_text())["rows"]}
    for name in coder.cases(scale=0.01):
        assert rows[name]["short_enough"] in (True, None)
        assert rows[name]["fast_enough"]
    recorded = json.loads(fuzz.RESULT.read_text())
    assert recorded["streams"] >= 100_000
    assert recorded["passed"]
