"""Certificates on real data: pages say what was recorded, and records can be counted again."""

import importlib
import json

import pytest

import tailor as tl
from tests.test_studies import FINDINGS, RESULTS

NAMES = ("registered", "weights", "learned", "gibbs", "picks", "text", "validity")
PAGES = dict.fromkeys(NAMES, FINDINGS / "certificates.md") | {
    "measures": FINDINGS.parent / "measures.md"
}


def study(name):
    return importlib.import_module(f"benchmarks.certify.{name}")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_was_recorded(name, capsys):
    study(name).show(*([record(name)["rows"]] if name == "validity" else []))
    shown = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    written = PAGES[name].read_text().splitlines()
    assert len(shown) > 1
    assert [line for line in shown if line not in written] == []


def record(name):
    return json.loads((RESULTS / f"certify_{name}.json").read_text())


def test_bounds_of_heads_follow_from_their_weights():
    import numpy as np

    from tailor.numerics.coding import Grid, contextual_prior

    for sample in record("weights")["samples"].values():
        for run in sample["runs"]:
            levels = np.array(run["levels"], dtype=np.int64).reshape(run["shape"])
            bits = contextual_prior([Grid(levels=levels)]) + run["paid_bits"]
            bound = tl.occam(run["train_errors"], run["n"], bits, sample["delta"])
            assert run["bits"] == pytest.approx(bits, abs=1e-6)
            assert run["bound"] == pytest.approx(bound.binomial, rel=1e-9)


def test_bounds_of_learned_networks_follow_from_their_files():
    from tailor.stages.symmetry import prior_bits

    for row in record("learned")["rows"]:
        small = tl.CompressedModel(payload=bytes.fromhex(row["file"]))
        bits = 8 * len(small.stream) + row["paid_bits"]
        assert bits == row["bits"]
        bound = tl.occam(row["errors"], row["n"], bits, 0.05).binomial
        assert row["bound"] == pytest.approx(bound, rel=1e-9)
        network = study("learned").BUILD[row["sample"]]()
        prior = prior_bits(network, small.coded()) + row["paid_bits"]
        assert row["prior_bits"] == pytest.approx(prior, abs=1e-6)
        bound = tl.occam(row["errors"], row["n"], prior, 0.05).binomial
        assert row["prior_bound"] == pytest.approx(bound, rel=1e-9)


def test_errors_of_digits_are_counted_again():
    pytest.importorskip("sklearn")
    from benchmarks.certify.learned import small as network

    row = next(row for row in record("learned")["rows"] if row["sample"] == "digits")
    model = tl.CompressedModel(payload=bytes.fromhex(row["file"])).into(network)
    assert int(tl.zero_one(model, tl.DIGITS.train()).sum()) == row["errors"]


def test_every_rule_that_is_right_holds_and_most_wrong_ones_are_caught():
    validity = study("validity")
    rows = record("validity")["rows"]
    right = [row for row in rows if not row["rule"].startswith("wrong")]
    wrong = [row for row in rows if row["rule"].startswith("wrong")]
    assert len(right) > 30
    assert all(row["repetitions"] >= 2000 and validity.holds(row) for row in right)
    caught = {row["rule"] for row in wrong if not validity.holds(row)}
    assert caught == {row["rule"] for row in wrong}


def test_registered_certificates_are_sealed_and_their_bounds_follow():
    from tailor.numerics.bounds import pick_to_learn
    from tailor.records import from_json
    from tailor.stages.certify import Certificate

    rows = record("registered")["rows"]
    for row in rows:
        one = from_json(Certificate, row["certificate"])
        assert row["holds"]
        assert one.sha256 == one.seal()
        assert one.registration.sha256 == one.registration.seal()
        assert one.registration.seed == row["seed"]
        if one.kind == "occam":
            bound = tl.occam(one.errors, one.n, one.evidence.code.total, one.delta).binomial
        elif one.kind == "pick-to-learn":
            said = one.evidence
            assert said.k == said.picks + said.leftover
            share = one.delta / one.choices / said.stops
            bound = pick_to_learn(said.k, one.n, share, said.window)
        else:
            continue  # a law's draws are the recount's
        assert one.risk_bound == pytest.approx(bound, rel=1e-12)
    picked = [row["certificate"] for row in rows if "picks" in row["name"]]
    replays = [one["evidence"]["replay_sha256"] for one in picked]
    assert len(set(replays)) == len(replays)


def test_the_registered_certificate_of_digits_is_counted_again():
    pytest.importorskip("sklearn")
    from benchmarks.certify.weights import BUILD
    from tailor.records import from_json
    from tailor.stages.certify import Certificate

    row = next(row for row in record("registered")["rows"] if row["name"] == "digits")
    certificate = from_json(Certificate, row["certificate"])
    outcome = tl.verify(
        certificate,
        bytes.fromhex(row["file"]),
        build=BUILD["digits"],
        data=tl.DIGITS.train(),
        held_out=tl.DIGITS.test(),
    )
    assert outcome.holds, outcome.checks
    assert certificate.registered
