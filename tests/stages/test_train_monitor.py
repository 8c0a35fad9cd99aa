"""Spectra during training: the numbers, the table, TensorBoard, and the rules that stop."""

import csv
import itertools
import math
import sys
import types

import pytest
import torch
from torch import nn

from tailor.errors import NoMatrices, UsageError
from tailor.numerics.powerlaw import FARMS, Hill, HillMid, NoFit
from tailor.stages.analyze import analyze
from tailor.stages.train import (
    Checkpoint,
    Monitor,
    Patience,
    SpectrumSettles,
    StopRule,
    batches,
    train,
)
from tailor.stages.train.tails import tails
from tailor.tasks import Data
from tailor.weights.views import ByName, Flattened, Fused

COLUMNS = ["step", "layer", "alpha", "stable_rank", "spectral_norm", "frobenius_norm"]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2))


def start(model, *, steps=10, lr=0.1, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * steps, 30, generator=generator)
    data = Data(x=x, y=(x[:, 0] > 0).long())
    return train(
        model,
        batches(data, size=8, epochs=1),
        loss=nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        **options,
    )


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# The monitor


@pytest.mark.parametrize("fit", [HillMid(), Hill(k=12), FARMS(window=20)])
def test_the_numbers_are_those_of_analyze(fit):
    model = network()
    for step in start(model, monitor=Monitor(every=5, spectrum=fit)):
        if step.number % 5:
            assert step.layers == ()
            continue
        expected = analyze(model, spectrum=fit).layers
        assert [one.name for one in step.layers] == ["0.weight", "2.weight"]
        for one, other in zip(step.layers, expected, strict=True):
            assert one.fit == other.spectrum
            assert one.stable_rank == pytest.approx(other.stable_rank, rel=1e-12)
            assert one.spectral_norm == pytest.approx(other.spectral_norm, rel=1e-12)
            assert one.frobenius_norm == pytest.approx(other.frobenius_norm, rel=1e-12)
    first, last = step.layers
    assert first.alpha == first.fit.alpha
    assert isinstance(last.fit, NoFit)
    assert last.alpha is None  # two singular values


def test_rounding_errors_of_a_low_rank_are_left_out_as_by_analyze():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(40, 24, generator=generator), torch.randn(24, 30, generator=generator)
    model = nn.Sequential(nn.Linear(30, 40))
    model[0].weight.data = factors[0] @ factors[1]
    (found,) = tails(model, HillMid(), Flattened())
    (expected,) = analyze(model, spectrum=HillMid()).layers
    assert found.fit == expected.spectrum
    assert found.fit.n < 30


def test_the_table_has_a_row_for_every_layer_at_the_start_and_at_every_look(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    seen = [step.layers for step in start(network(), monitor=Monitor(every=4, csv=path))]
    head, *rows = table(path)
    assert head == COLUMNS
    assert [row[:2] for row in rows] == [
        [str(step), layer] for step in (0, 4, 8) for layer in ("0.weight", "2.weight")
    ]
    first, last = seen[3]
    assert [float(value) for value in rows[2][2:]] == [
        first.alpha,
        first.stable_rank,
        first.spectral_norm,
        first.frobenius_norm,
    ]
    assert rows[3][2] == ""
    assert float(rows[3][3]) == last.stable_rank


def test_looking_changes_nothing():
    watched, alone = network(), network()
    list(start(watched, monitor=Monitor(every=1)))
    list(start(alone))
    assert all(map(torch.equal, watched.parameters(), alone.parameters()))


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    calm, path = tmp_path / "calm.csv", tmp_path / "rows.csv"
    list(start(network(), monitor=Monitor(every=1, csv=calm)))
    options = {
        "monitor": Monitor(every=1, csv=path),
        "checkpoint": Checkpoint(folder=tmp_path / "run", every=4),
    }
    for _ in itertools.islice(start(network(), **options), 7):
        pass
    with path.open("a", encoding="utf-8") as file:
        file.write("8,0.wei")  # a crash may cut a line short
    assert table(path)[-2][0] == "7"
    resumed = start(network(), **options)
    next(resumed)
    assert [row[0] for row in table(path)[1::2]] == ["0", "1", "2", "3", "4", "5"]
    list(resumed)
    assert path.read_text(encoding="utf-8") == calm.read_text(encoding="utf-8")


def test_a_new_run_begins_the_table_anew_but_no_other_file(tmp_path):
    path = tmp_path / "rows.csv"
    for _ in range(2):
        list(start(network(), steps=3, monitor=Monitor(every=2, csv=path)))
    assert len(table(path)) == 1 + 2 * 2
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"no table of a Monitor \(its first line is 'a,b'\)"):
        next(start(network(), monitor=Monitor(csv=path)))
    assert path.read_text(encoding="utf-8") == "a,b\n1,2\n"


class Board:
    """What a SummaryWriter was told."""

    made: list["Board"]

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, {}, False
        Board.made.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars[tag, step] = value

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def boards(monkeypatch):
    Board.made = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Board.made


def test_tensorboard_gets_every_number_and_is_closed(boards, tmp_path):
    options = {
        "monitor": Monitor(every=4, tensorboard=tmp_path / "board"),
        "checkpoint": Checkpoint(folder=tmp_path / "run", every=4),
    }
    steps = start(network(), **options)
    seen = [step.layers for step in itertools.islice(steps, 5)]
    del steps
    (board,) = boards
    assert (board.folder, board.purge_step, board.closed) == (str(tmp_path / "board"), None, True)
    assert board.scalars["alpha/0.weight", 4] == seen[3][0].alpha
    assert board.scalars["stable_rank/2.weight", 4] == seen[3][1].stable_rank
    assert len(board.scalars) == 2 * (4 + 3)  # steps 0 and 4; one layer has no alpha
    list(start(network(), **options))
    assert boards[1].purge_step == 5
    assert {step for _, step in boards[1].scalars} == {8}


def test_without_tensorboard_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="needs the package tensorboard; install it: pip install"):
        next(start(network(), monitor=Monitor(tensorboard=tmp_path)))


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = [
        step.layers for step in start(network(), monitor=Monitor(every=4, tensorboard=tmp_path))
    ]
    events = EventAccumulator(str(tmp_path)).Reload()
    found = {event.step: event.value for event in events.Scalars("stable_rank/0.weight")}
    assert found.keys() == {0, 4, 8}
    assert found[4] == pytest.approx(seen[3][0].stable_rank, rel=1e-6)


def test_a_model_without_matrices_cannot_be_monitored():
    model = nn.BatchNorm1d(30)
    data = Data(x=torch.randn(8, 30), y=torch.zeros(8, dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = batches(data, size=8, epochs=1)
    loss = nn.functional.cross_entropy
    with pytest.raises(NoMatrices, match="holds no weight matrix"):
        next(train(model, given, loss=loss, optimizer=optimizer, monitor=Monitor()))


# Stopping


def test_patience_counts_looks_without_a_new_least_value():
    values = iter([5.0, 4.0, 4.5, 3.95, 3.0, 3.0, 2.95, 3.0])
    rule = Patience(lambda: next(values), patience=3, every=2, least=0.1)
    steps = list(start(network(), steps=40, stop=[rule]))
    assert len(steps) == 2 * 8
    assert [step.stopped for step in steps[:-1]] == [None] * 15
    assert steps[-1].stopped == "Patience: 3 looks without a value below 3"


def test_patience_sees_the_weights_after_the_step():
    model, measured, seen = network(), [], []

    def measure():
        measured.append(model[0].weight.sum())
        return float(measured[-1])  # gradients are off, or torch would warn here

    for _ in start(model, stop=[Patience(measure, patience=99)]):
        seen.append(model[0].weight.sum().detach())
    assert len(seen) == 10
    assert measured == seen


def test_patience_refuses_nan():
    with pytest.raises(UsageError, match="the measure of Patience gave NaN"):
        next(start(network(), stop=[Patience(lambda: math.nan)]))


def test_spectra_that_stand_still_stop_training_and_moving_ones_do_not():
    rule = SpectrumSettles(every=2, window=3, tolerance=1e-3)
    still = list(start(network(), lr=1e-9, stop=[rule]))
    assert len(still) == 6
    assert still[-1].stopped.startswith("SpectrumSettles: no layer's alpha moved by more than")
    assert still[-1].stopped.endswith("over 3 looks")
    moving = list(start(network(), lr=1.0, stop=[rule]))
    assert [len(moving), moving[-1].stopped] == [10, None]


def test_spectra_settle_only_when_every_layer_does():
    def alphas(*, inner, outer):
        rule = SpectrumSettles(window=2, tolerance=0.05)
        seen = {}
        for pair in zip(inner, outer, strict=True):
            model = nn.ParameterDict(
                {
                    str(i): torch.diag(torch.arange(1.0, 41) ** -power)
                    for i, power in enumerate(pair)
                }
            )
            seen, reason = rule.look(model, seen)
        return reason

    assert alphas(inner=[0.5, 0.5], outer=[0.7, 0.7]) is not None
    assert alphas(inner=[0.5, 0.5], outer=[0.7, 0.5]) is None
    assert alphas(inner=[0.9, 0.5, 0.5], outer=[0.7, 0.7, 0.7]) is not None  # the window moves on


def test_spectra_need_a_layer_that_can_be_fitted():
    model = nn.Sequential(nn.Linear(30, 2))
    message = r"finds no exponent in any layer \(0\.weight: .*\); stop by Patience instead"
    with pytest.raises(UsageError, match=message):
        list(start(model, stop=[SpectrumSettles(every=1)]))


def test_two_rules_give_both_reasons():
    class Now(StopRule):
        every = 3

        def look(self, model, seen):
            return {"looks": seen.get("looks", 0) + 1}, "enough"

    *_, last = start(network(), stop=[Now(), Patience(lambda: 1.0, patience=2)])
    assert (last.number, last.stopped) == (
        3,
        "Now: enough; Patience: 2 looks without a value below 1",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Monitor(every=0), "Monitor needs every >= 1, but got 0"),
        (lambda: Patience(lambda: 0.0, patience=0), "needs patience >= 1, every >= 1 and least"),
        (lambda: Patience(lambda: 0.0, least=-1.0), "but got 10, 1 and -1.0"),
        (lambda: SpectrumSettles(window=1), "needs every >= 1, window >= 2 and tolerance > 0"),
    ],
)
def test_values_refuse_what_makes_no_sense(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_view_names_the_parts():
    model = nn.Sequential(nn.Linear(10, 30), nn.Linear(30, 2))
    x = torch.randn(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = [(x, torch.zeros(8, dtype=torch.long))]
    monitor = Monitor(every=1, view=ByName(rules=(("0.*", Fused(axis=0)),)))
    loss = nn.functional.cross_entropy
    (step,) = train(model, given, loss=loss, optimizer=optimizer, monitor=monitor)
    assert [one.name for one in step.layers] == [
        "0.weight[q]",
        "0.weight[k]",
        "0.weight[v]",
        "1.weight",
    ]
