"""The comparison with other packages: every case runs, and both sides find the same numbers."""

import dataclasses
import itertools

import numpy as np
import pytest

from benchmarks.analyze.case import (
    Case,
    Contest,
    Ours,
    Side,
    compete,
    cpu_seconds,
    largest_differences,
    trial,
)
from benchmarks.analyze.command import as_markdown, cases

CASES = [  # those of `machine` start processes that import torch anew
    pytest.param(case, id=case.name, marks=pytest.mark.slow if case.unit in ("MB", "s") else ())
    for case in cases()
]


@pytest.mark.parametrize("case", CASES)
def test_our_side_finds_numbers(case):
    contest = case.build(True)
    found = [one.side.read(one.side.run()) for one in contest.ours]
    contest.close()
    for numbers in found:
        assert numbers
        for name, values in numbers.items():
            assert len(values) > 0, name
            assert np.isfinite(values).all(), name


@pytest.mark.parametrize("case", CASES)
def test_both_sides_find_the_same_numbers(case):
    if case.against == "":
        pytest.skip("nobody else does it")
    if case.against in ("weightwatcher", "powerlaw"):
        pytest.importorskip(case.against)
    for row in trial(case):
        assert row.agree, row


def test_a_result_is_shown_as_a_table():
    case, _ = _fake([1.0, 2.0, 4.0], [10.0, 10.0, 10.0], at_least=5)
    rows = [dataclasses.asdict(row) for row in compete(case)]
    assert as_markdown(rows).splitlines()[2:] == ["| a | 10 CPU s | 2 CPU s | 5 | 9e-01 |"]


def test_names_are_unique():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)


def _fake(ours, theirs, **goal):
    """A case whose sides take the times given, one after the other."""
    log = []

    def side(name, times):
        rest = iter(times)
        return Side(run=lambda: (log.append(name), next(rest))[1], read=lambda found: {"x": found})

    def build(tiny):
        if tiny:
            sides = side("trial", [1.0]), side("trial", [1.0])
        else:
            sides = side("theirs", theirs), side("ours", ours)
        return Contest(theirs=sides[0], ours=(Ours(side=sides[1], tolerance=np.inf, **goal),))

    def meter(run):
        return (spent := run()), spent

    return Case(name="a", against="b", build=build, repeats=len(ours), meter=meter), log


def test_ratio_is_the_median_of_alternating_pairs():
    case, log = _fake([1.0, 2.0, 4.0], [10.0, 10.0, 10.0], at_least=5)
    (row,) = compete(case)
    assert log == ["trial", "trial", *["theirs", "ours"] * 3]
    assert (row.ours, row.theirs, row.ratio, row.ratios) == (2.0, 10.0, 5.0, (2.5, 10.0))
    assert row.reached


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        ({"at_least": 2.0}, True),
        ({"at_least": 2.1}, False),
        ({"at_most": 4.0}, True),
        ({"at_most": 3.9}, False),
    ],
)
def test_goals(goal, reached):
    case, _ = _fake([4.0], [8.0], **goal)
    assert [row.reached for row in compete(case)] == [reached]


def test_a_quick_side_is_called_until_its_time_can_be_told(monkeypatch):
    clock = itertools.count(start=7, step=0.0625)
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    calls = []
    spent, last = cpu_seconds(lambda: calls.append(0) or len(calls))
    assert (spent, last) == (0.0625, 2)


def test_what_was_built_is_removed_even_after_a_failure():
    closed = []

    def fail():
        raise RuntimeError("no luck")

    def build(tiny):
        one = Ours(side=Side(run=fail, read=dict), at_least=1)
        return Contest(theirs=None, ours=(one,), close=lambda: closed.append(tiny))

    case = Case(name="a", against="", build=build, repeats=1, meter=cpu_seconds)
    with pytest.raises(RuntimeError, match="no luck"):
        trial(case)
    assert closed == [True]


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "difference"),
    [
        ("alpha", [2.2, 3.0], [2.0, 3.0], 0.1),
        ("log_norm", [0.2], [0.1], 0.1),  # a logarithm near zero is no reason for alarm
        ("log_alpha_norm", [20.2], [20.0], 0.01),
        ("D", [0.03], [0.02], 0.01),
        ("alpha", [np.nan, 1.0], [np.nan, 1.0], 0.0),
        ("alpha", [np.nan, 1.0], [1.0, 1.0], np.inf),
        ("alpha", [1.0], [1.0, 1.0], np.inf),
        ("num_spikes", [0.0], [0.0], 0.0),
    ],
)
def test_differences(name, ours, theirs, difference):
    found = largest_differences({name: np.array(ours)}, {name: np.array(theirs), "other": ours})
    assert found == {name: pytest.approx(difference)}


def test_numbers_that_differ_are_told():
    case, _ = _fake([1.0], [2.0], at_least=1)
    build = case.build

    def strict(tiny):
        contest = build(tiny)
        one = dataclasses.replace(contest.ours[0], tolerance=0.1)
        return dataclasses.replace(contest, ours=(one,))

    (row,) = compete(dataclasses.replace(case, build=strict))
    assert row.differences == {"x": 0.5}
    assert row.agree is False
