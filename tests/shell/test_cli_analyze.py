"""``tailor analyze``: what each option does, and what is printed and written."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tailor
from tailor import Analyses, Analysis, records
from tests.shell.conftest import analyzed, process, refused, singular_values


def alphas(analysis: Analysis) -> dict[str, float]:
    return {layer.name: layer.spectrum.alpha for layer in analysis.layers}


# What is printed and written


def test_a_table_shows_every_matrix_and_what_was_left_out(run, model):
    answer = run("analyze", model.name)
    assert answer.code == 0
    assert answer.out.splitlines()[0].strip() == model.name
    for words in (r"first\.weight +30x40 ", r"second\.weight +25x30 "):
        assert re.search(words, answer.out)
    assert "not analyzed: first.bias (30): vector" in answer.out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_json_loads_back(tmp_path, model, workers):
    answer = process("analyze", model.name, "--json", "--workers", workers, folder=tmp_path)
    assert answer.code == 0
    analysis = records.from_json(Analysis, json.loads(answer.out))
    assert analysis.source == model.name
    assert [layer.shape for layer in analysis.layers] == [(30, 40), (25, 30)]
    assert [one.name for one in analysis.skipped] == ["first.bias"]


def test_out_writes_record_table_and_report(run, model, tmp_path):
    out = tmp_path / "new" / "folder"
    assert run("analyze", model, "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("analysis.csv", "analysis.json", "analysis.md", "analysis.parquet", "report.html")
    ]
    (analysis,) = tailor.load(Analyses, out / "analysis.json").analyses
    with (out / "analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.name for layer in analysis.layers]
    assert float(rows[0]["alpha"]) == analysis.layers[0].spectrum.alpha
    before = (out / "report.html").read_bytes()
    assert b"first.weight" in before
    (out / "report.html").unlink()
    assert run("report", out) == (0, f"{out / 'report.html'}\n", "")
    assert (out / "report.html").read_bytes() == before


NAMES = ["[red]x[/red]", "[/oops]", "[bold", "\\[x]"]


def odd_names(path: Path, names: list[str]) -> None:
    save_file({name: torch.rand(25, 25) for name in names} | {"[b]v[/b]": torch.ones(2)}, path)


def test_markup_in_names_is_shown_as_it_is(run, tmp_path):
    odd_names(tmp_path / "[red]m.safetensors", NAMES)
    answer = run("analyze", "[red]m.safetensors")
    assert answer.code == 0
    for text in (*NAMES, "[red]m.safetensors", "not analyzed: [b]v[/b] (2): vector"):
        assert text in answer.out
    assert refused(run("analyze", "[red]n[/red].pt")).endswith("the pattern [red]n[/red].pt")


def test_markup_in_a_message_is_shown_as_it_is(run, tmp_path):
    save_file({"[red]x[/red]": torch.full((3, 4), torch.inf)}, tmp_path / "m.safetensors")
    assert refused(run("analyze", "m.safetensors")).startswith(
        "[red]x[/red]: 12 of 12 values are NaN"
    )


def test_colons_in_names_are_shown_as_they_are(run, tmp_path):
    odd_names(tmp_path / "m.safetensors", [":smile:"])
    assert ":smile:" in run("analyze", "m.safetensors").out
    assert refused(run("analyze", ":smile:.pt")).endswith("or folder :smile:.pt")


def test_markup_in_names_does_not_disturb_the_progress_bar(tmp_path):
    odd_names(tmp_path / "m.safetensors", ["[/oops]"])
    answer = process("analyze", "m.safetensors", folder=tmp_path, FORCE_COLOR="1")
    assert answer.code == 0
    assert "MarkupError" not in answer.err


def test_one_broken_matrix_does_not_hide_the_others(run, model, matrices):
    save_file(matrices | {"bad.weight": torch.full((3, 4), torch.nan)}, model)
    answer = run("analyze", model)
    assert answer.code == 0
    assert "first.weight" in answer.out
    assert "FAILED bad.weight: 12 of 12 values are NaN or infinite" in answer.out
    answer = run("analyze", model, "--fail-on", "status==failed")
    assert (answer.code, answer.err) == (1, "fails: bad.weight: status = failed\n")


# Tables that are read back


def same(cell: str, value: object) -> bool:
    """Whether a cell of a CSV file holds a value of a table, to the last bit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return cell == ""
    return float(cell) == value if isinstance(value, float) else cell == str(value)


def assert_same(text: str, frame, *, but: tuple[str, ...] = ()) -> None:
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(frame) > 0
    assert list(rows[0]) == list(frame)
    for row, (_, values) in zip(rows, frame.iterrows(), strict=True):
        assert [
            name for name in frame if name not in but and not same(row[name], values[name])
        ] == []


def test_csv_holds_every_number_of_the_record(run, model, matrices):
    save_file(matrices | {"tiny.weight": torch.rand(4, 5)}, model)  # too small for a fit
    answer = run("analyze", model, "--csv", "--with", "bulk")
    frame = analyzed(run("analyze", model, "--json", "--with", "bulk")).to_frame()
    assert answer.code == 0
    assert_same(answer.out, frame, but=("seconds",))
    first, second, tiny = csv.DictReader(io.StringIO(answer.out))
    assert float(first["sv_max"]) == pytest.approx(singular_values(matrices["first.weight"])[0])
    assert float(second["norm"]) == pytest.approx(matrices["second.weight"].square().sum().item())
    assert (tiny["alpha"], tiny["status"]) == ("", "no fit")


def test_parquet_holds_what_the_csv_holds(run, model, matrices):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    save_file(matrices | {"tiny.weight": torch.rand(4, 5)}, model)
    assert run("analyze", model, "--out", "found").code == 0
    frame = pandas.read_parquet("found/analysis.parquet")
    assert frame[["alpha", "norm", "stable_rank"]].dtypes.eq(float).all()
    assert_same(Path("found/analysis.csv").read_text(), frame)


def test_markdown_is_a_table_with_rounded_numbers(run, model, matrices):
    save_file({"a|b.weight": matrices["first.weight"]}, model)
    (alpha,) = alphas(analyzed(run("analyze", model, "--json"))).values()
    answer = run("analyze", model, "--markdown")
    assert answer.code == 0
    head, rule, row = answer.out.splitlines()
    assert head.startswith("| layer | shape | alpha | alpha_ci_low | alpha_ci_high | verdict |")
    assert set(rule) == set("| -")
    assert rule.count("|") == head.count("|")
    assert row.startswith(f"| a\\|b.weight | 30x40 | {alpha:.4g} | ")


def test_only_one_form_is_printed(run, model):
    answer = run("analyze", model, "--csv", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "argument --json: not allowed with argument --csv" in answer.err


# Gates


def test_a_gate_names_what_trips_it(run, model):
    found = alphas(analyzed(run("analyze", model, "--json")))
    low, high = sorted(found, key=found.__getitem__)
    middle = sum(found.values()) / 2
    answer = run("analyze", model, "--fail-on", f"alpha>{middle}")
    assert (answer.code, answer.err) == (1, f"fails: {high}: alpha = {found[high]:.4g}\n")
    assert low in answer.out
    answer = run(
        "analyze", model, "--fail-on", "min(alpha)<0", "--fail-on", f"mean(alpha)>={middle}"
    )
    assert (answer.code, answer.err) == (1, f"fails: mean(alpha) = {middle:.4g}\n")


def test_a_gate_that_does_not_trip_changes_nothing(run, model):
    answer = run("analyze", model, "--fail-on", "alpha>1000", "--fail-on", "zeros>0")
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("alpha", "--fail-on 'alpha' is no condition; write one like 'alpha>6', "),
        ("alpha>>6", "--fail-on 'alpha>>6': '>6' is no number; text takes == or !="),
    ],
)
def test_a_condition_is_read_before_the_work(run, condition, sentence):
    assert refused(run("analyze", "none.pt", "--fail-on", condition)).startswith(sentence)


def test_an_unknown_column_costs_no_result(run, model):
    answer = run("analyze", model, "--fail-on", "beta>1")
    assert answer.code == 2
    assert "first.weight" in answer.out
    (line,) = answer.err.splitlines()
    assert line.startswith("tailor: --fail-on 'beta>1': no column 'beta'; it has source, layer, ")
