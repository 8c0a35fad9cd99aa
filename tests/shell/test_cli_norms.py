"""``tailor norms``: the same numbers as numpy, in every form."""

import csv
import io
import json

import pytest
import torch
from safetensors.torch import save_file

from tailor import NormAnalysis, records
from tests.shell.conftest import refused, singular_values


def test_a_table_names_every_matrix_and_what_is_none(run, model):
    answer = run("norms", model)
    assert (answer.code, answer.err) == (0, "")
    assert "first.weight   30x40" in answer.out
    assert "not analyzed: first.bias (30): vector" in answer.out


def test_csv_and_json_hold_the_norms(run, model, matrices):
    rows = list(csv.DictReader(io.StringIO(run("norms", model, "--csv").out)))
    record = records.from_json(NormAnalysis, json.loads(run("norms", model, "--json").out))
    assert record.source == str(model)
    for row, one in zip(rows, record.layers, strict=True):
        largest = singular_values(matrices[one.name])[0]
        assert one.spectral_norm == pytest.approx(largest, rel=1e-6)
        assert float(row["sv_max"]) == one.spectral_norm


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--layers", "*first*"], ["first.weight"]),
        (["--skip", "*first*"], ["second.weight"]),
        (["--workers", "2"], ["first.weight", "second.weight"]),
    ],
)
def test_options_choose(run, model, options, names):
    record = records.from_json(
        NormAnalysis, json.loads(run("norms", model, "--json", *options).out)
    )
    assert [one.name for one in record.layers] == names


def test_a_broken_model_is_refused_and_a_broken_matrix_named(run, tmp_path):
    broken = torch.full((3, 4), torch.inf)
    save_file({"[b]x[/b]": broken}, tmp_path / "all.safetensors")
    assert refused(run("norms", "all.safetensors")).startswith("[b]x[/b]: 12 of 12 values")
    save_file({"[b]x[/b]": broken, "y": torch.ones(3, 4)}, tmp_path / "one.safetensors")
    answer = run("norms", "one.safetensors")
    assert answer.code == 0
    assert "FAILED [b]x[/b]: 12 of 12 values are NaN or infinite" in answer.out
