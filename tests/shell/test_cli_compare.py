"""``tailor compare``: what is written, where qualities come from, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tailor
from tailor import Analyses, records
from tailor.shell.cli import compare as compare_command
from tailor.stages.compare import Comparison
from tests.shell.conftest import Answer, refused

WRITTEN = [
    *("analysis.csv", "analysis.json", "analysis.md", "analysis.parquet"),
    *("comparison.json", "layers.csv", "models.csv", "report.html"),
]


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Three checkpoints in the current folder, whose names hold a loss that falls."""
    generator = torch.Generator().manual_seed(0)
    for step in (1, 2, 3):
        state = {
            "first.weight": step * torch.randn(30, 40, generator=generator),
            "second.weight": torch.randn(25, 30, generator=generator),
        }
        save_file(state, tmp_path / f"step-{step}-loss-{4 - step}.5.safetensors")
    return [f"step-{step}-loss-{4 - step}.5.safetensors" for step in (1, 2, 3)]


def compared(answer: Answer) -> Comparison:
    """The record that ``--json`` printed."""
    assert (answer.code, answer.err) == (0, "")
    return records.from_json(Comparison, json.loads(answer.out))


def qualities(comparison: Comparison) -> list[float | None]:
    return [model.quality for model in comparison.models]


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


# What is printed and written


@pytest.mark.parametrize("count", [2, 3])
def test_out_writes_records_tables_and_report(run, models, count):
    answer = run("compare", *models[:count], "--out", "found")
    assert (answer.code, answer.err) == (0, "")
    assert sorted(path.name for path in Path("found").iterdir()) == WRITTEN
    comparison = tailor.load(Comparison, Path("found/comparison.json"))
    analyses = tailor.load(Analyses, Path("found/analysis.json")).analyses
    assert [one.source for one in comparison.models] == models[:count]
    assert [one.source for one in analyses] == models[:count]
    first, last = (analyses[place].layers[0].spectrum.alpha for place in (0, -1))
    assert comparison.layers[0].change == last - first
    assert f"{last - first:+.2f}" in answer.out
    table = rows("found/models.csv")
    assert [row["source"] for row in table] == models[:count]
    assert float(table[0]["mean_alpha"]) == comparison.models[0].mean["alpha"]
    assert [(row["layer"], row["source"]) for row in rows("found/layers.csv")] == [
        (layer, model) for layer in ("first.weight", "second.weight") for model in models[:count]
    ]
    assert len(rows("found/analysis.csv")) == 2 * count
    page = Path("found/report.html").read_text()
    assert all(model in page for model in models[:count])


def test_json_is_what_out_writes(run, models):
    found = compared(run("compare", *models, "--out", "found", "--json"))
    assert found == tailor.load(Comparison, Path("found/comparison.json"))


def test_a_matrix_of_one_model_only_is_named(run, models):
    save_file({"first.weight": torch.rand(30, 40), "new": torch.rand(30, 40)}, "n.safetensors")
    answer = run("compare", models[0], "n.safetensors")
    assert answer.code == 0
    assert f"in one model only: second.weight ({models[0]})" in answer.out
    assert "in one model only: new (n.safetensors)" in answer.out


def test_a_model_without_a_fit_leaves_its_numbers_empty(run, models):
    save_file({"first.weight": torch.rand(3, 4)}, "tiny.safetensors")
    answer = run("compare", "tiny.safetensors", models[0], "--out", "found")
    assert (answer.code, answer.err) == (0, "")
    tiny, first, _ = rows("found/analysis.csv")
    assert (tiny["alpha"], tiny["status"]) == ("", "no fit")
    whole = tailor.load(Analyses, Path("found/analysis.json")).analyses[1]
    assert float(first["alpha"]) == whole.layers[0].spectrum.alpha
    assert int(float(first["num_pl_spikes"])) == whole.layers[0].spectrum.n_tail
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    assert pandas.read_parquet("found/analysis.parquet")["alpha"].isna().tolist()[0]


def test_options_hold_for_every_model(run, models):
    options = ["--layers", "first*", "--spectrum", "hill:k=12", "--with", "bulk"]
    assert run("compare", *models, "--out", "found", *options).code == 0
    for analysis in tailor.load(Analyses, Path("found/analysis.json")).analyses:
        (layer,) = analysis.layers
        assert (layer.name, layer.spectrum.n_tail) == ("first.weight", 12)
        assert "mp_softrank" in layer.measures


def test_a_stopped_run_goes_on_where_it_was(run, models):
    command = ["compare", *models, "--out", "found"]
    last = Path(models[2]).rename("elsewhere")
    assert "there is no file or folder" in refused(run(*command))
    lines = Path("found/analysis-0.partial.jsonl").read_text().splitlines()[1:]
    done = [json.loads(line)["rows"][0]["seconds"] for line in lines]
    last.rename(models[2])
    assert run(*command).code == 0
    first, *_ = tailor.load(Analyses, Path("found/analysis.json")).analyses
    assert sorted(layer.seconds for layer in first.layers) == sorted(done)
    assert sorted(path.name for path in Path("found").iterdir()) == WRITTEN


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["run/a.pt", "run/b.pt"], ["a.pt", "b.pt"]),
        (["/runs/1/m.pt", "/runs/2/m.pt"], ["1/m.pt", "2/m.pt"]),
        (["a", "b/a"], ["a", "b/a"]),
        (["run/last", "run"], ["run/last", "run"]),
        (["run", "."], ["run", "."]),
        (["hf://org/a", "hf://org/b"], ["a", "b"]),
    ],
)
def test_models_are_called_by_what_tells_them_apart(sources, labels):
    assert compare_command._labels(sources) == labels


# Qualities


def test_qualities_in_order(run, models):
    found = compared(run("compare", *models, "--quality", "1,2.5,-3e-1", "--json"))
    assert (found.quality, qualities(found)) == ("quality", [1.0, 2.5, -0.3])
    assert {one.correlation.n for one in found.predictions} == {3}
    answer = run("compare", *models, "--quality", "1,2,3", "--named", "[b]test error[/b]")
    assert answer.code == 0
    assert "does it order the models by [b]test error[/b]?" in answer.out
    assert "says nothing: with 3 models and" in " ".join(answer.out.split())
    assert "All models have the same matrices." in answer.out


def test_two_models_have_no_rank_correlation(run, models):
    answer = run("compare", *models[:2], "--quality", "1,2")
    assert answer.code == 0
    assert "a rank correlation needs at least three models" in answer.out


def test_named_is_a_column(run, models):
    options = ["--quality", "3,2,1", "--named", "test error", "--out", "found"]
    assert run("compare", *models, *options).code == 0
    assert [float(row["test error"]) for row in rows("found/models.csv")] == [3.0, 2.0, 1.0]
    assert tailor.load(Comparison, Path("found/comparison.json")).quality == "test error"


def test_qualities_from_a_csv_file_go_by_name(run, models):
    whole = Path(models[0]).resolve()
    lines = ["quality,source", f"0.3,{models[2]}", f"0.1,{whole}", f"0.2,{models[1]}", "9,other.pt"]
    Path("q.csv").write_text("\n".join(lines))
    sources = [whole, Path(models[1]).resolve(), models[2]]  # by path or by last part
    found = compared(run("compare", *sources, "--quality", "q.csv", "--json"))
    assert qualities(found) == [0.1, 0.2, 0.3]


def test_qualities_from_names(run, models):
    pattern = r"loss-([0-9.]+\d)"
    found = compared(run("compare", *models, "--quality-in-name", pattern, "--json"))
    assert qualities(found) == [3.5, 2.5, 1.5]


# Refusals: all of them before the work


def csv_file(text: str) -> str:
    Path("q.csv").write_text(text)
    return "q.csv"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--quality", "1,2,3"], "--quality has 3 numbers for 2 sources; give one for each"),
        (["--quality", ",".join(["0.125"] * 99)], "--quality has 99 numbers for 2 sources; "),
        (["--quality", "1,x"], "--quality '1,x' is neither a file nor numbers like 8.3,7.4"),
        (["--quality", "none.csv"], "--quality 'none.csv' is neither a file nor numbers like "),
        (["--quality-in-name", "(a"], "--quality-in-name '(a' is no expression: missing ), "),
        (
            ["--quality-in-name", "loss"],
            "--quality-in-name 'loss' needs one group in parentheses, the number, but has 0",
        ),
        (["--quality-in-name", "(a)(b)"], "--quality-in-name '(a)(b)' needs one group in "),
        (
            ["--quality-in-name", "acc-([0-9]+)"],
            "--quality-in-name 'acc-([0-9]+)' finds nothing in step-1-loss-3.5.safetensors",
        ),
        (["--quality-in-name", "(step)"], "--quality-in-name '(step)' finds 'step', no number, "),
        (["--quality-in-name", "step(x)?"], "--quality-in-name 'step(x)?' finds '', no number, in"),
        (["--spectrum", "hil"], "--spectrum 'hil' is unknown; choose one of clauset, robust, "),
    ],
)
def test_options_that_cannot_be_honoured(run, monkeypatch, models, options, sentence):
    monkeypatch.setattr(compare_command, "watched", None)
    assert refused(run("compare", *models[:2], *options)).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,loss\na,1\n", "q.csv needs the columns source and quality (numbers)"),
        ("source,quality\na,low\n", "q.csv needs the columns source and quality (numbers)"),
        ("source,quality\na\n", "q.csv needs the columns source and quality (numbers)"),
        ("", "q.csv has no row for step-1-loss-3.5.safetensors"),
        (
            "source,quality\nstep-1-loss-3.5.safetensors,1\n",
            "q.csv has no row for step-2-loss-2.5.safetensors",
        ),
    ],
)
def test_a_csv_file_without_what_is_needed(run, monkeypatch, models, text, sentence):
    monkeypatch.setattr(compare_command, "watched", None)
    assert refused(run("compare", *models, "--quality", csv_file(text))) == sentence


@pytest.mark.parametrize("again", ["a.pt", "./a.pt"])
def test_one_source_is_no_comparison(run, again):
    assert refused(run("compare", "a.pt")) == (
        "compare needs two or more sources; to look at one, use tailor analyze"
    )
    assert refused(run("compare", "a.pt", "b.pt", again)) == (
        "a source is named twice; name every one once"
    )


def test_qualities_are_given_in_one_way(run, models):
    answer = run("compare", *models, "--quality", "1,2,3", "--quality-in-name", "(.)")
    assert (answer.code, answer.out) == (2, "")
    assert "--quality-in-name: not allowed with argument --quality" in answer.err


def test_a_quality_must_be_a_number(run, models):
    assert refused(run("compare", *models, "--quality", "1,nan,3")) == (
        "every quality must be a finite number"
    )
