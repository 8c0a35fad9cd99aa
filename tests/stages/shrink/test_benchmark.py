"""The benchmark compares networks that compute the same, and shows what it recorded."""

import json

import pytest

from benchmarks.compress import shrink

TINY = {
    "mlp": (lambda: shrink.mlp(6, 30, 20, 3), (6,)),
    "conv": (lambda: shrink.conv(3, 30, 20), (3, 8, 8)),
}


@pytest.mark.parametrize("name", TINY)
def test_all_four_networks_are_measured(name, monkeypatch):
    build, shape = TINY[name]
    monkeypatch.setattr(shrink, "CASES", {"tiny": (build, shape, (2,))})
    monkeypatch.setattr(shrink, "SECONDS", 0.0)
    (row,) = shrink.measure("tiny", 1)
    assert row["difference"] < 1e-5
    assert row["widths"] == [[30, 3], [20, 2]]
    assert set(row["ms"]) == {"dense", "masked", "shrunk", "low rank"}
    numbers = row["parameters"]
    assert numbers["dense"] == numbers["masked"] > 5 * numbers["shrunk"]
    assert row["bytes"]["dense"] == row["bytes"]["masked"] > row["bytes"]["shrunk"]


def test_the_record_meets_what_is_promised(capsys):
    record = json.loads(shrink.RESULT.read_text())
    for row in record["rows"]:
        gain = row["ms"]["dense"] / row["ms"]["shrunk"]
        assert gain >= (3 if "conv" in row["network"] else 5)
        assert row["difference"] < 1e-5
        assert 0.8 < row["ms"]["dense"] / row["ms"]["masked"] < 1.25
    shrink.show()
    assert capsys.readouterr().out.count("smaller |") == len(record["rows"])
