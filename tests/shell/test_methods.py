"""Method values from text."""

import dataclasses
import inspect

import pytest

from tailor.errors import UsageError
from tailor.numerics.powerlaw import FARMS, Clauset, Hill, HillMid
from tailor.shell.cli.methods import (
    BALANCES,
    MEASURES,
    NESTED,
    NOISES,
    OPTIMIZERS,
    PENALTIES,
    SCHEDULES,
    SPECTRA,
    STOPS,
    TAILS,
    VIEWS,
    as_text,
    method,
    named,
)
from tailor.shell.training.choices import SGD, Balance, HeldOutPatience
from tailor.stages import regularize, schedule
from tailor.stages.analyze import Shuffled
from tailor.stages.noise import StableNoise
from tailor.stages.regularize import L1, L2, Penalty, StableRank
from tailor.stages.schedule import Constant, CosineDecay, PowerDecay, Schedule, Window
from tailor.stages.train import SpectrumSettles
from tailor.weights.views import Circulant, Taps

NOISE = StableNoise(alpha=1.8, scale=0, layers=("a", "b"))


@pytest.mark.parametrize(
    ("text", "table", "value"),
    [
        ("clauset", SPECTRA, Clauset()),
        ("clauset:bootstrap=20,seed=3", SPECTRA, Clauset(bootstrap=20, seed=3)),
        ("clauset:largest=null", TAILS, Clauset(largest=None)),
        ("hill:k=50", TAILS, Hill(k=50)),
        ("hill:k=0.05", TAILS, Hill(k=0.05)),
        ("farms:window=64", SPECTRA, FARMS(window=64)),
        ("taps:pool=false,scale=0.5", VIEWS, Taps(pool=False, scale=0.5)),
        ("circulant:grid=16", VIEWS, Circulant(grid=16)),
        ("shuffled:replicates=10", MEASURES, Shuffled(replicates=10)),
        ("hill_mid", SPECTRA, HillMid()),
        ("stable_rank:weight=1e-3", PENALTIES, StableRank(1e-3)),
        (
            "stable-rank:weight=1,fraction-of-start=.5",
            PENALTIES,
            StableRank(1, fraction_of_start=0.5),
        ),
        ("l2:weight=2,layers=0.*", PENALTIES, L2(2, layers="0.*")),
        (
            'l1:weight=2,layers=["a,b", "c)"],every=3',
            PENALTIES,
            L1(2, layers=("a,b", "c)"), every=3),
        ),
        ("l1:weight=2,per_layer={'a*': 3},skip=x", PENALTIES, L1(2, per_layer={"a*": 3}, skip="x")),
        ("stable:alpha=1.8,scale=0,layers=['a','b']", NOISES, NOISE),
        (
            "l1:weight=2,schedule=window(start=1,stop=5)",
            PENALTIES,
            L1(2, schedule=Window(start=1, stop=5)),
        ),
        ("l1:weight=2,schedule=constant", PENALTIES, L1(2, schedule=Constant())),
        (
            "settles:every=5,spectrum=hill(k=.1)",
            STOPS,
            SpectrumSettles(every=5, spectrum=Hill(k=0.1)),
        ),
        (
            "temp-balance:every=2,view=taps(pool=false)",
            BALANCES,
            Balance(every=2, view=Taps(pool=False)),
        ),
        ("patience:patience=3", STOPS, HeldOutPatience(patience=3)),
        ("sgd:momentum=0.9,nesterov=true", OPTIMIZERS, SGD(momentum=0.9, nesterov=True)),
    ],
)
def test_a_name_with_settings_is_a_value(text, table, value):
    assert method(text, table, "--x") == value


@pytest.mark.parametrize("table", [SPECTRA, VIEWS, MEASURES])
def test_every_name_of_a_table_is_a_frozen_value(table):
    for name, kind in table.items():
        if name != "grouped":  # it has no default
            assert isinstance(method(name, table, "--x"), kind)
        assert kind.__dataclass_params__.frozen
        assert dataclasses.is_dataclass(kind)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("clause", "--x 'clause' is unknown; choose one of clauset, robust, hill"),
        ("clauset:boot=3", "--x clauset has no field 'boot'; it has min_tail, min_fraction"),
        ("clauset:bootstrap", "--x 'clauset:bootstrap' needs field=value, but has 'bootstrap'"),
        ("clauset:bootstrap=many", 'clauset.bootstrap must be int, but it is "many"'),
        ("clauset:bootstrap=-1", "bootstrap must not be negative"),
        ("clauset:seed=1.5", "clauset.seed must be int, but it is 1.5"),
    ],
)
def test_what_is_no_value_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(UsageError) as caught:  # noqa: PT011 (the sentence is compared below)
        method(text, SPECTRA, "--x")
    assert sentence in str(caught.value)


TRAINING = (PENALTIES, NOISES, SCHEDULES, OPTIMIZERS, BALANCES, STOPS)
NEEDED = {"weight": 1, "steps": 9, "period": 3, "alpha": 1.5, "scale": 1, "every": 2}


@pytest.mark.parametrize("table", TRAINING)
def test_every_name_of_training_is_a_frozen_value(table):
    for name, kind in table.items():
        assert isinstance(method(name, table, "--x", NEEDED), kind)
        assert kind.__dataclass_params__.frozen
        assert name == name.lower().replace("_", "-")
        assert name in named(table)


def kinds(module, base):
    found = {one for one in vars(module).values() if inspect.isclass(one)}
    return {one for one in found if issubclass(one, base)} - {base}


def test_no_penalty_and_no_schedule_is_missing():
    assert set(PENALTIES.values()) == kinds(regularize, Penalty)
    assert set(SCHEDULES.values()) == kinds(schedule, Schedule)
    assert dict(NESTED)[Schedule] is SCHEDULES


def test_what_a_text_leaves_open_is_filled_also_inside():
    fill = {"steps": 7, "period": 3, "unknown": 1}
    made = method("l1:weight=1,schedule=power-decay(rate=2)", PENALTIES, "--x", fill)
    assert made == L1(1, schedule=PowerDecay(period=3, rate=2.0))
    assert method("cosine-decay", SCHEDULES, "--x", fill) == CosineDecay(steps=7)
    assert method("cosine-decay:steps=4", SCHEDULES, "--x", fill) == CosineDecay(steps=4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("l1", "--x l1 needs weight, as in l1:weight=..."),
        (
            "l1:weight=1,_bound=2",
            "has no field '_bound'; it has weight, layers, skip, per_layer, s",
        ),
        ("l1:weight=1,weight=2", "--x 'l1:weight=1,weight=2' gives weight twice"),
        ("l1:weight=1,schedule=cosin", "--x l1: schedule 'cosin' is unknown; choose one of consta"),
        (
            "l1:weight=1,schedule=window(stop=",
            "needs name(field=value,...), but has 'window(stop='",
        ),
        (
            "l1:weight=1,schedule=window(end=3)",
            "--x l1: schedule window has no field 'end'; it has",
        ),
        ("l1:weight=1,schedule=5", "l1.schedule must be Schedule, but it is 5"),
        ("l1:weight=1j", 'l1.weight must be float, but it is "1j"'),
        ("l1:weight=nan", 'l1.weight must be float, but it is "nan"'),
        ("l1:weight=NaN", "l1.weight must be float, but it is NaN"),
        ("l1:weight=1e999", "l1.weight must be float, but it is Infinity"),
        ("l1:weight=true", "l1.weight must be float, but it is true"),
        ("l1:weight=1,layers=[1]", "l1.layers must be str | tuple, but it is [1]"),
    ],
)
def test_what_is_no_penalty_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(UsageError) as caught:  # noqa: PT011 (the sentence is compared below)
        method(text, PENALTIES, "--x")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("l1:weight=1", "l1:weight=1"),
        ({"name": "constant"}, "constant"),
        ({"name": "l1", "weight": 1e-3, "layers": ["ä", "b"]}, 'l1:weight=0.001,layers=["ä", "b"]'),
        (
            {"name": "l1", "weight": 1, "schedule": {"name": "window", "start": 3}},
            "l1:weight=1,schedule=window(start=3)",
        ),
        ({"name": "l1", "schedule": {"name": "constant"}}, "l1:schedule=constant()"),
        ({"name": "l1", "per_layer": {"a": 2}}, 'l1:per_layer={"a": 2}'),
    ],
)
def test_a_table_is_the_same_as_a_text(value, text):
    assert as_text(value, "--x") == text
    given = dict(value) if isinstance(value, dict) else {}
    table = SCHEDULES if given.get("name") == "constant" else PENALTIES
    assert method(text, table, "--x", NEEDED)


@pytest.mark.parametrize("value", [3, None, {}, {"weight": 1}, {"name": 3}, ["l1"]])
def test_what_is_neither_text_nor_table_is_refused(value):
    with pytest.raises(UsageError, match=r"^file: penalty must be a text such as name"):
        as_text(value, "file: penalty")
