"""``tailor analyze``: what its options choose, compute and resume."""

import csv
import io
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tailor
from tailor import Analyses, Analysis, records
from tailor.numerics.powerlaw import Clauset, WeightWatcherCompat
from tailor.weights.views import Taps
from tests.shell.conftest import Answer, analyzed, names, process, refused, singular_values

# What is read


def test_base_gives_the_spectrum_of_the_difference(run, model, matrices):
    generator = torch.Generator().manual_seed(1)
    base = {
        "first.weight": torch.randn(30, 40, generator=generator),
        "third.weight": torch.randn(30, 40, generator=generator),
    }
    save_file(base, "base.safetensors")
    found = analyzed(run("analyze", model.name, "--base", "base.safetensors", "--json"))
    assert found.source == "m.safetensors minus base.safetensors"
    (layer,) = found.layers
    expected = singular_values(matrices["first.weight"] - base["first.weight"])
    assert layer.singular_values == pytest.approx(expected, rel=1e-6)
    reasons = {one.name: one.reason for one in found.skipped}
    assert reasons["second.weight"] == "not in base.safetensors"
    assert reasons["third.weight"] == "not in m.safetensors"


def test_nothing_in_common_with_the_base_is_refused(run, model):
    save_file({"other": torch.rand(30, 40)}, "base.safetensors")
    sentence = refused(run("analyze", model.name, "--base", "base.safetensors"))
    assert sentence.startswith("m.safetensors and base.safetensors have no layer of equal name")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--layers", "first*"], ["first.weight"]),
        (["--layers", "f*", "--layers", "s?cond.*"], ["first.weight", "second.weight"]),
        (["--skip", "first*"], ["second.weight"]),
        (["--layers", "*", "--skip", "[st]*"], ["first.weight"]),
    ],
)
def test_layers_are_chosen_by_name(run, model, options, kept):
    found = analyzed(run("analyze", model, "--json", *options))
    assert names(found) == kept
    left = {one.name for one in found.skipped if one.reason == "not selected"}
    assert left == {"first.weight", "second.weight"} - set(kept)


def test_a_choice_of_nothing_is_refused(run, model):
    sentence = refused(run("analyze", model, "--layers", "third*", "--skip", "x"))
    assert sentence == "no layer fits third* without x; there are: first.weight, second.weight"


def test_several_files_are_one_model(run, model, tmp_path):
    save_file({"third.weight": torch.rand(30, 40)}, tmp_path / "n.safetensors")
    found = analyzed(run("analyze", "m.safetensors", "n.safetensors", "--json"))
    assert found.source == "m.safetensors n.safetensors"
    assert names(found) == ["first.weight", "second.weight", "third.weight"]
    assert names(analyzed(run("analyze", "*.safetensors", "--json"))) == names(found)


# What is computed


@pytest.mark.parametrize("option", [["--spectrum", "hill"], ["--view", "taps"]])
def test_compat_leaves_no_choice(run, model, option):
    sentence = refused(run("analyze", model, "--compat", "weightwatcher", *option))
    assert sentence.startswith("--compat weightwatcher is an estimator and a view; leave out")


def test_compat_is_the_estimator_and_the_view_of_weightwatcher(run, tmp_path):
    weight = torch.randn(16, 24, 3, 3, generator=torch.Generator().manual_seed(2))
    save_file({"conv.weight": weight}, tmp_path / "m.safetensors")
    found = analyzed(run("analyze", "m.safetensors", "--compat", "weightwatcher", "--json"))
    assert found.provenance.settings["spectrum"] == str(WeightWatcherCompat())
    assert found.provenance.settings["view"] == str(Taps(scale=0.5**0.5))
    (layer,) = found.layers
    taps = [weight[:, :, i, j] for i in range(3) for j in range(3)]
    eigenvalues = np.sort(np.concatenate([singular_values(tap) ** 2 for tap in taps])) / 2
    assert np.square(layer.singular_values) == pytest.approx(eigenvalues[::-1], rel=1e-9)
    assert layer.spectrum.alpha == pytest.approx(WeightWatcherCompat().fit(eigenvalues).alpha)


COLUMNS = {
    "bulk": {"mp_softrank", "tw_edge", "num_spikes"},
    "shuffled": {"rand_distance", "num_traps", "null_z"},
    "p-value:replicates=20": {"p_value"},
    "rivals": {"R_lognormal", "TPL_alpha"},
    "compressible": {"gini", "prunable_10"},
    "stable": {"stable_index"},
}


def columns(answer: Answer) -> set[str]:
    assert answer.code == 0
    return set(next(csv.reader(io.StringIO(answer.out))))


@pytest.mark.parametrize("measure", COLUMNS)
def test_a_measure_adds_its_columns(run, model, measure):
    plain = columns(run("analyze", model, "--csv"))
    added = columns(run("analyze", model, "--csv", "--with", measure)) - plain
    assert added >= COLUMNS[measure]
    for other, theirs in COLUMNS.items():
        assert other == measure or not added & theirs


def test_full_adds_them_all_and_settings_can_be_changed(run, model):
    options = ["--full", "--with", "p-value:replicates=7", "--with", "stable"]
    found = analyzed(run("analyze", model, "--json", *options))
    assert set(found.to_frame()) >= set().union(*COLUMNS.values())
    measures = found.provenance.settings["measures"]
    assert measures.count("PValue(") == 1
    assert "PValue(replicates=7, " in measures
    assert "Shuffled(replicates=10, " in measures


def test_entries_fits_the_weights_themselves(run, model, matrices):
    options = ["--entries", "clauset:largest=300"]
    layer, _ = analyzed(run("analyze", model, "--json", *options)).layers
    sizes = np.sort(matrices["first.weight"].abs().flatten().double().numpy())
    assert layer.entries == Clauset(largest=300).fit(sizes)
    shown = run("analyze", model, *options)
    assert "weights' alpha" in shown.out
    assert f"{layer.entries.alpha:.2f} [" in shown.out
    assert "weights' alpha" not in run("analyze", model).out


def test_float32_says_that_small_numbers_cannot_be_told(run, tmp_path):
    generator = torch.Generator().manual_seed(4)
    scales = torch.logspace(0, -5, 30)[:, None]
    save_file({"w": scales * torch.randn(30, 40, generator=generator)}, tmp_path / "m.safetensors")
    (exact,) = analyzed(run("analyze", "m.safetensors", "--json")).layers
    found = analyzed(run("analyze", "m.safetensors", "--json", "--float32"))
    assert found.provenance.settings["solver"] == "Exact(precision='float32', device='cpu')"
    (layer,) = found.layers
    assert (layer.matrix_rank, layer.sv_min) == (None, None)
    assert (exact.matrix_rank, exact.sv_min) == (30, exact.singular_values[-1])
    assert layer.spectral_norm == pytest.approx(exact.spectral_norm, rel=1e-6)


def test_spectrum_takes_settings(run, model):
    found = analyzed(run("analyze", model, "--json", "--spectrum", "hill:k=12"))
    assert found.provenance.settings["spectrum"].startswith("Hill(k=12")
    assert {layer.spectrum.n_tail for layer in found.layers} == {12}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--spectrum", "hil"], "--spectrum 'hil' is unknown; choose one of clauset, robust, "),
        (["--spectrum", "hill:q=3"], "--spectrum hill has no field 'q'; it has k"),
        (["--spectrum", "hill:k=x"], "--spectrum 'hill:k=x': hill.k must be int | float, but it "),
        (["--spectrum", "hill:k"], "--spectrum 'hill:k' needs field=value, but has 'k'"),
        (["--entries", "farms"], "--entries 'farms' is unknown; choose one of clauset, "),
        (["--view", "grouped"], "--view grouped needs groups, as in grouped:groups=..."),
        (["--with", "bulks"], "--with 'bulks' is unknown; choose one of bulk, shuffled, "),
    ],
)
def test_a_wrong_method_is_refused_before_the_work(run, options, sentence):
    assert refused(run("analyze", "none.pt", *options)).startswith(sentence)


def test_an_unknown_device_is_refused(run, model):
    sentence = refused(run("analyze", model, "--device", "nowhere"))
    assert sentence.startswith("device 'nowhere' cannot be used (")
    assert sentence.endswith("); use cpu")


# Where it runs


def killed(folder: Path, *command: str) -> dict[str, float]:
    """Kills a run as soon as results are on the disk; seconds of each, which no other run has."""
    journal = folder / "found" / "analysis.partial.jsonl"
    running = subprocess.Popen([sys.executable, "-m", "tailor", *command], cwd=folder)
    try:
        while running.poll() is None and not (
            journal.exists() and journal.read_text().count("\n") > 2
        ):
            time.sleep(0.005)
    finally:
        running.kill()
        running.wait()
    lines = journal.read_text().split("\n")[1:-1]  # between the head and what was cut short
    rows = [json.loads(line)["rows"][0] for line in lines]
    return {row["name"]: row["seconds"] for row in rows}


def test_a_killed_run_goes_on_where_it_was(run, tmp_path):
    generator = torch.Generator().manual_seed(3)
    state = {f"{i}.weight": torch.randn(30, 40, generator=generator) for i in range(9)}
    save_file(state, tmp_path / "m.safetensors")
    command = ["analyze", "m.safetensors", "--spectrum", "clauset:bootstrap=3000", "--out", "found"]
    done = killed(tmp_path, *command)
    assert 2 <= len(done) < len(state)
    assert not Path("found/analysis.json").exists()
    assert run(*command).code == 0
    (found,) = tailor.load(Analyses, Path("found/analysis.json")).analyses
    assert names(found) == list(state)
    assert {layer.name: layer.seconds for layer in found.layers if layer.name in done} == done
    assert not Path("found/analysis.partial.jsonl").exists()
    last = found.layers[-1]
    (alone,) = analyzed(run(*command[:4], "--layers", last.name, "--json")).layers
    assert last.spectrum == alone.spectrum


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(run, model, monkeypatch, tmp_path):
    """In a process of its own: Ray remembers the token of the first cluster for good."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    (tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    answer = process(
        *("analyze", str(model), "--engine", "ray", "--json"),
        folder=tmp_path,
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"),
    )
    assert answer.code == 0
    found = records.from_json(Analysis, json.loads(answer.out))
    assert found == analyzed(run("analyze", model, "--json"))
