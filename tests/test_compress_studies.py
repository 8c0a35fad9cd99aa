"""The studies of compression, made tiny, and their pages say what was recorded."""

import json

import pytest
import torch

import tailor as tl
from benchmarks.compress import barsbey, barsbey_networks, demo_network, rate, shin, sparse
from tests.test_studies import assert_page_shows


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return tl.DIGITS.train(), tl.DIGITS.test()


def test_a_step_is_that_of_sgd():
    matrices = barsbey_networks.initial(20, 8, seed=0)
    leaves = [W.clone().requires_grad_() for W in matrices]
    x, y = torch.randn(5, 20), torch.randint(10, (5,))
    said = x
    for W in leaves[:-1]:
        said = (said @ W.T).relu()
    torch.nn.functional.cross_entropy(said @ leaves[-1].T, y).backward()
    barsbey_networks.step(matrices, x, y, 0.1)
    for new, old in zip(matrices, leaves, strict=True):
        torch.testing.assert_close(new, old.detach() - 0.1 * old.grad)


def test_every_scheme_prunes_an_average_of_iterates(digits, monkeypatch):
    for name, value in {"FURTHER": 4, "AVERAGED": 2, "MOST_EPOCHS": 900}.items():
        monkeypatch.setattr(barsbey_networks, name, value)
    monkeypatch.setattr(barsbey, "SHARES", (0.0, 0.5, 0.9))
    data = tl.Data(x=digits[0].x[:100], y=digits[0].y[:100])
    setting = barsbey_networks.Setting(rate=0.2, batch=20)
    trained = barsbey_networks.fit(setting, 0, data, width=120)
    assert trained.about["reached"]
    assert trained.about["train_accuracy"] == 1
    found = barsbey.measure(trained, digits[1])
    assert len(found["curves"]) == 10
    for name, points in found["curves"].items():
        assert points[0][0] == pytest.approx(found["test"], abs=1e-4)
        assert points[2][1] < points[0][1], name
    assert all(0.5 < one["rows"] <= 2 for one in found["layers"])
    assert barsbey.prunable([[0.9, 1], [0.88, 1], [0.5, 1]], 0.01) == pytest.approx(0.25)


def test_every_fill_of_a_split_is_tested(digits, monkeypatch):
    monkeypatch.setattr(shin, "SEEDS", 2)
    monkeypatch.setattr(shin, "MANY_SEEDS", 2)
    generator = torch.Generator().manual_seed(0)
    layers = [
        (torch.randn(out, into, generator=generator), torch.zeros(out))
        for out, into in ((20, 64), (10, 20))
    ]
    found = shin.perceptron(layers, digits[1])
    for row in found["rules"].values():
        for scope in shin.SCOPES:
            tried = row["accuracy"][scope]
            assert [len(tried[fill]) for fill in shin.FILLS] == [1, 2, 2]
        assert row["last"]["zero"]["bound"] == pytest.approx(row["last"]["zero"]["flips"])


def test_rates_are_measured_on_any_state():
    generator = torch.Generator().manual_seed(0)
    state = {"a": torch.randn(20, 30, generator=generator), "b": torch.ones(3)}
    found = rate.measure(state, rate.Shortest())
    assert found


def test_every_way_of_using_zeros_is_timed():
    case = sparse.Case(name="", widths=(8, 16, 8), batch=2)
    found = sparse.measure(case, 0.5, repeats=1, seed=0)
    assert set(found) == {"dense", "masked", "sparse", "removed", "low rank"}


def test_the_network_of_the_demo_is_compressed(digits, monkeypatch):
    one = {"4 bits": demo_network.RECIPES["4 bits"]}
    monkeypatch.setattr(demo_network, "RECIPES", one)
    rows = demo_network.measure(0, epochs=1, retrain=1)
    assert [row["retrained"] for row in rows] == [True, False]
    assert all(row["file_bytes"] < row["dense_bytes"] / 5 for row in rows)
    assert demo_network.show(rows).count("\n") == 2 + len(rows)


def test_the_recorded_network_of_the_demo_is_20_times_smaller_within_half_a_point():
    rows = json.loads(demo_network.RESULT.read_text())["rows"]
    best = [row for row in rows if row["recipe"] == "60 % zeros, error 0.003" and row["retrained"]]
    assert len(best) == len(demo_network.SEEDS)
    assert min(row["times"] for row in best) > 20
    change = [row["accuracy"] - row["dense_accuracy"] for row in best]
    assert abs(sum(change) / len(change)) < 0.005


pytest.importorskip("transformers")  # which the two studies of language models need
from benchmarks.compress import allocation, stories  # noqa: E402

PAGES = {
    "allocation.md": (allocation, "allocation.json"),
    "barsbey2021.md": (barsbey, "barsbey.json"),
    "rate.md": (rate, "rate.json"),
    "shin2021.md": (shin, "shin.json"),
    "stories.md": (stories, "stories.json"),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_what_was_recorded(page, capsys):
    assert_page_shows(page, *PAGES[page], capsys)
