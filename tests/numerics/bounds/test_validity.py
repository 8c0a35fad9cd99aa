"""The simulation of the bounds, in brief: the right rules hold, and the wrong ones are caught."""

import json

import pytest

from benchmarks.certify import validity


@pytest.fixture(scope="module")
def rows():
    return validity.study(60, seed=1)


def test_every_bound_holds(rows):
    right = [row for row in rows if not row["rule"].startswith("wrong")]
    assert len(right) == 42
    for row in right:
        assert validity.holds(row), row
        assert row["mean_bound"] > row["mean_risk"], row


def test_random_labels_get_no_bound_below_a_guess(rows):
    for row in rows:
        if row["labels"] == "random labels" and not row["rule"].startswith(("wrong", "bounded")):
            assert row["mean_risk"] == pytest.approx(0.5), row
            assert row["mean_bound"] > 0.5, row


def test_every_wrong_rule_fails_more_often_than_delta(rows):
    wrong = [row for row in rows if row["rule"].startswith("wrong")]
    caught = {row["rule"] for row in wrong if row["rate"] > 1.5 * validity.cells.DELTA}
    mild = {"wrong: PAC-Bayes-kl, the divergence left out"}  # 12 %: the record has enough to see it
    assert caught | mild == {row["rule"] for row in wrong}
    assert len(caught | mild) == 10


def test_the_record_says_the_same():
    record = json.loads(validity.RESULT.read_text())
    assert min(row["repetitions"] for row in record["rows"]) >= 2000
    wrong = [row for row in record["rows"] if row["rule"].startswith("wrong")]
    assert all(row["rate"] <= record["delta"] for row in record["rows"] if row not in wrong)
    caught = {row["rule"] for row in wrong if row["interval"][0] > record["delta"]}
    assert caught == {row["rule"] for row in wrong}
