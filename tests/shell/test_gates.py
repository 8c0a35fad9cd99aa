"""Gates: what trips them, and what is no gate."""

import pandas
import pytest

from tailor.errors import UsageError
from tailor.shell.cli.gates import parse

FRAME = pandas.DataFrame(
    {
        "layer": ["a", "b", "c"],
        "alpha": [2.5, 7.0, None],
        "num_traps": [0, 2, 1],
        "verdict": ["well-trained", "undecided", "undecided"],
    }
)


@pytest.mark.parametrize(
    ("text", "offenders"),
    [
        ("alpha>6", ["b: alpha = 7"]),
        ("alpha >= 7", ["b: alpha = 7"]),
        ("alpha>7", []),
        ("alpha<100", ["a: alpha = 2.5", "b: alpha = 7"]),
        ("num_traps!=0", ["b: num_traps = 2", "c: num_traps = 1"]),
        ("verdict==well-trained", ["a: verdict = well-trained"]),
        ("verdict=='well-trained'", ["a: verdict = well-trained"]),
        ("mean(alpha)>4.7", ["mean(alpha) = 4.75"]),
        ("mean(alpha)>4.8", []),
        ("max(num_traps)>=2", ["max(num_traps) = 2"]),
        ("median(alpha)<1e3", ["median(alpha) = 4.75"]),
    ],
)
def test_what_trips_a_gate(text, offenders):
    assert parse(text).offenders(FRAME) == offenders


@pytest.mark.parametrize("text", ["", "alpha", "alpha=6", "sum(alpha)>3", "alpha>", ">6", "a b>6"])
def test_what_is_no_gate(text):
    with pytest.raises(UsageError, match="is no condition; write one like 'alpha>6'"):
        parse(text)


def test_text_is_not_ordered():
    with pytest.raises(UsageError, match="'well' is no number; text takes == or !="):
        parse("verdict>well")


def test_unknown_columns_and_mixed_types_are_refused():
    with pytest.raises(UsageError, match="no column 'beta'; it has layer, alpha, num_traps"):
        parse("beta>1").offenders(FRAME)
    with pytest.raises(UsageError, match="column verdict cannot be compared so"):
        parse("verdict>1").offenders(FRAME)
    with pytest.raises(UsageError, match="column verdict cannot be compared so"):
        parse("mean(verdict)>1").offenders(FRAME)
