"""The studies of docs/findings, made tiny: every method trains, and pages say what was recorded."""

import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import tailor as tl
from benchmarks.train import balance_study, certified, lee, penalties, wan, xiao

ROOT = Path(__file__).parents[1]
FINDINGS, RESULTS = ROOT / "docs" / "findings", ROOT / "benchmarks" / "results"
TINY = xiao.Setting(name="tiny", examples=50, random_labels=0.4, epochs=2)


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return tl.DIGITS.train(), tl.DIGITS.test()


@pytest.mark.parametrize("method", xiao.METHODS)
def test_every_penalty_trains(method, digits):
    make, grid = xiao.METHODS[method]
    found = xiao.run(TINY, make, grid[-1], 0)
    assert 0 <= found.test <= 100
    assert found.stable_rank >= 1
    plain = xiao.run(TINY, None, 0.0, 0)
    assert (found == plain) == (make is None)  # the same data and start, another training


def test_two_fifths_of_the_labels_are_drawn_anew(digits):
    whole = torch.cat([part.y for part in digits])
    parts = xiao._split(xiao.SETTINGS[0], 3)
    again = xiao._split(xiao.SETTINGS[0], 3)
    assert torch.equal(parts["train"].y, again["train"].y)
    assert [len(part) for part in parts.values()] == [300, 300, len(whole) - 600]
    clean = xiao._split(xiao.Setting(name="", examples=300, random_labels=0.0, epochs=1), 3)
    share = float((parts["train"].y != clean["train"].y).double().mean())
    assert 0.25 < share < 0.45  # two fifths, a tenth of which meets its own label again
    assert torch.equal(parts["test"].y, clean["test"].y)


@pytest.mark.parametrize("noise", wan.NOISES)
def test_every_noise_trains(noise, digits):
    found = wan.one(wan.NOISES[noise], *digits, seed=0, width=60, limit=5)
    assert found["steps"] == 5
    assert found["after"]["0"] >= 0
    assert 0 <= found["removable"] <= 1


@pytest.mark.parametrize("way", certified.WAYS)
def test_every_way_of_training_gives_a_bound(way, digits, monkeypatch):
    monkeypatch.setattr(certified, "EPOCHS", 1)
    monkeypatch.setattr(certified, "RETRAIN", 1)
    monkeypatch.setattr(certified, "SPARSITIES", (0.9, 0.97))
    make, grid = certified.WAYS[way]
    found = certified.best(make, grid[0], 0)
    assert 0 < found["bound"] <= 1
    assert found["bits"] > 0


@pytest.mark.parametrize("method", lee.METHODS)
def test_every_prior_of_nodes_trains(method, digits):
    train = tl.Data(x=digits[0].x[:200], y=digits[0].y[:200])
    asked = Namespace(width=20, hidden=2, batch=100, epochs=1)
    found = lee.one(method, train, digits[1], 0, asked)
    assert [point["removed"] for point in found["after"]] == list(lee.REMOVED)


def test_balance_changes_training(digits, monkeypatch):
    monkeypatch.setattr(balance_study, "EPOCHS", 2)
    data = tl.Data(x=digits[0].x[:300], y=digits[0].y[:300])
    models = [balance_study.train((64, 32, 32, 10), arm, 0.05, 0, data) for arm in (None, {})]
    assert not torch.equal(models[0][0].weight, models[1][0].weight)


def test_the_term_that_others_differentiate_is_the_same():
    """The benchmark compares costs of one thing."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(12, 20))
    ours = tl.Regularizer(model, [tl.StableRank(1e-3)])
    with torch.no_grad():
        for _ in range(100):
            ours()
        torch.testing.assert_close(ours(), penalties.by_autograd(model), rtol=1e-4, atol=1e-7)


PAGES = {
    "xiao2023.md": (xiao, "xiao.json"),
    "wan2024.md": (wan, "wan.json"),
    "certified.md": (certified, "certified.json"),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_what_was_recorded(page, capsys):
    assert_page_shows(page, *PAGES[page], capsys)


def assert_page_shows(page, study, record, capsys):
    """Every row that the study shows of its record stands on the page."""
    assert json.loads((RESULTS / record).read_text())
    study.show()
    shown = [
        line for line in capsys.readouterr().out.splitlines() if re.match(r"\| [\w .]+.*\d", line)
    ]
    written = (FINDINGS / page).read_text().splitlines()
    assert len(shown) > 5
    for line in shown:
        assert line in written
