"""The demo as a newcomer runs it, and its promises."""

import csv

import pytest

import tailor as tl
from tailor.shell import demo
from tailor.shell.cli import main
from tailor.stages.certify import Certificate, registration
from tests.shell.conftest import process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The real thing, once for all tests, in a process that does not check every shape."""
    out = tmp_path_factory.mktemp("demo")
    answer = process("demo", "--out", str(out), folder=out)
    assert (answer.code, answer.err) == (0, "")
    return out


def test_every_file_is_there_with_versions_seed_and_settings(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "analysis.csv", "analysis.json", "analysis.md", "analysis.parquet", "certificate.json",
        "compression.json", "history.csv", "model.tailor", "report.html",
    }  # fmt: skip
    certificate = tl.load(Certificate, folder / "certificate.json")
    compression = tl.load(demo.Compression, folder / "compression.json")
    analyses = tl.load(tl.Analyses, folder / "analysis.json").analyses
    for about in (
        certificate.provenance,
        compression.provenance,
        *(a.provenance for a in analyses),
    ):
        assert (about.seed, about.tailor) == (0, tl.__version__)
    assert "StudentPrior" in compression.provenance.settings["heavy_tailed"]
    assert "Clauset" in analyses[0].provenance.settings["spectrum"]
    about = tl.CompressedModel.load(folder / "model.tailor").about
    assert (about["seed"], about["tailor"]) == ("0", tl.__version__)
    assert "StudentPrior" in about["settings"]
    for name in ("analysis.csv", "history.csv"):
        with (folder / name).open() as file:
            rows = list(csv.DictReader(file))
        assert {(row["seed"], row["tailor"]) for row in rows} == {("0", tl.__version__)}
        assert all("=" in row["settings"] for row in rows)


def test_the_certificate_is_far_from_vacuous(folder):
    certificate = tl.load(Certificate, folder / "certificate.json")
    assert certificate.n == 1437
    assert certificate.delta == 0.05
    assert certificate.risk_bound <= 0.5
    assert certificate.risk_bound < certificate.majority_error - 0.3
    assert certificate.held_out.n == 360
    assert certificate.held_out.high < certificate.risk_bound


def test_it_verifies_and_nothing_in_the_network_is_frozen(folder):
    paths = [str(folder / name) for name in ("certificate.json", "model.tailor")]
    assert main(["verify", *paths, "--task", "digits"]) == 0
    small = tl.CompressedModel.load(folder / "model.tailor")
    parameters = dict(tl.DIGITS.build().named_parameters())
    assert set(small.grids()) == set(parameters) == set(tl.DIGITS.build().state_dict())


def test_heavy_tails_are_heavier_and_compress_better(folder):
    plain, heavy = tl.load(tl.Analyses, folder / "analysis.json").analyses
    assert heavy.layers[0].entries.high < plain.layers[0].entries.low
    compression = tl.load(demo.Compression, folder / "compression.json")
    best = {p.network: p.risk_bound for p in compression.frontier if p.chosen}
    assert best["heavy-tailed"] < best["plain"]
    sizes = [s.bytes for s in compression.stages if s.network == "heavy-tailed"]
    assert sizes[:4] == sorted(sizes[:4], reverse=True)


def test_stages_agree_with_the_file(folder):
    compression = tl.load(demo.Compression, folder / "compression.json")
    certificate = tl.load(Certificate, folder / "certificate.json")
    last = compression.stages[-1]
    assert last.stage == "polished"
    assert 8 * last.bytes == certificate.evidence.code.stream
    assert last.train_error == pytest.approx(certificate.errors / certificate.n)
    assert last.test_error == pytest.approx(certificate.held_out.error)
    assert compression.polish[-1] == pytest.approx(certificate.risk_bound, rel=1e-9)


def test_report_is_rebuilt_from_the_records_alone(folder):
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == before


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, monkeypatch):
    """Cut short, since three whole runs would take minutes."""
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "RETRAIN_EPOCHS", 1)
    monkeypatch.setattr(demo, "SPARSITIES", (0.95, 0.98))
    monkeypatch.setattr(demo, "SWEEPS", 1)
    monkeypatch.setattr(registration, "now", lambda: "then")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert main(["demo", "--out", str(tmp_path / name), "--seed", str(seed)]) == 0
    first, second, other = (tl.load(tl.Analyses, tmp_path / run / "analysis.json") for run in "abc")
    assert first == second  # but for the seconds that each matrix took
    assert first != other
    for name in ("model.tailor", "certificate.json", "history.csv"):
        a, b, c = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert a == b
        assert a != c
