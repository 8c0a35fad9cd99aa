"""Method values from text."""

import dataclasses

import pytest

from tailor.errors import UsageError
from tailor.numerics.powerlaw import FARMS, Clauset, Hill
from tailor.shell.cli.methods import MEASURES, SPECTRA, TAILS, VIEWS, method
from tailor.stages.analyze import Shuffled
from tailor.weights.views import Circulant, Taps


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
