"""The stranger's recount: every kind of certificate, read and computed by other code."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from tailor import records
from tailor.numerics.bounds import kl_upper as library_kl
from tailor.numerics.bounds import likely_window, pick_to_learn
from tailor.numerics.coding import Grid
from tailor.stages.certify import (
    BitsPerCharacter,
    Documents,
    FromPart,
    GaussianHead,
    Occam,
    PACBayes,
    certify,
    fit_head,
    verify,
)
from tailor.stages.compress import RANS, Adaptive, Contextual, pack
from tailor.tasks import Data
from tailor.verifier.bounds import binomial_upper, kl_upper
from tailor.verifier.file import File
from tailor.verifier.picks import eps, likely
from tailor.verifier.said import Mismatch


def sample(n=240, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return Data(x=x, y=x[:, :3].argmax(dim=1))


DATA = sample()


def forged(certificate, **changes):
    evidence = dataclasses.replace(certificate.evidence, **changes)
    bare = dataclasses.replace(certificate, evidence=evidence, sha256="")
    return dataclasses.replace(bare, sha256=records.digest(records.to_json(bare)))


def details(outcome):
    return " ".join(check.detail for check in outcome.checks)


# ---- Occam, whatever is paid --------------------------------------------------------------


def chain():
    return nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(),
        nn.Linear(4, 3, bias=False),
    )  # fmt: skip


def branched():
    return nn.Sequential(nn.Conv1d(1, 3, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(9, 3))


def grids(build, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: Grid(levels=rng.integers(-2, 3, tensor.shape), step=0.5 if "0." in name else 1.0)
        for name, tensor in build().state_dict().items()
    }


@pytest.mark.parametrize("pays", ["bytes", "bits", "prior"])
@pytest.mark.parametrize("build", [chain, branched])
def test_what_is_paid_is_recomputed(build, pays):
    data = DATA if build is chain else Data(x=DATA.x[:, None, :], y=DATA.y)
    small = pack(build(), grids(build), coder=Contextual())
    found = certify(small, build=build, data=data, method=Occam(pays=pays))
    assert verify(found, small, build=build, data=data).holds
    code = found.evidence.code
    assert (len(code.units) > 0) == (pays == "prior")
    cheaper = dataclasses.replace(code, charged=code.charged - 1, total=code.total - 1)
    outcome = verify(forged(found, code=cheaper), small, build=build, data=data)
    assert not outcome.holds
    assert "bits" in details(outcome)


def test_what_is_paid_falls():
    small = pack(chain(), grids(chain), coder=Contextual())
    paid = {
        pays: certify(small, build=chain, data=DATA, method=Occam(pays=pays)).evidence.code.charged
        for pays in ("bytes", "bits", "prior")
    }
    assert paid["bytes"] >= paid["bits"] > paid["prior"]
    assert paid["bytes"] - paid["bits"] < 8


def test_units_that_cannot_be_exchanged_are_seen():
    small = pack(chain(), grids(chain), coder=Contextual())
    found = certify(small, build=chain, data=DATA, method=Occam(pays="prior"))

    class Uneven(nn.Sequential):
        def forward(self, x):
            x = self[1](self[0](x))
            x = torch.cat([x[:, :1] * 2, x[:, 1:]], dim=1)
            return self[4](self[3](self[2](x)))

    def uneven():
        return Uneven(*chain())

    other = certify(small, build=uneven, data=DATA, method=Occam(pays="prior"))
    assert other.evidence.code.units == ()
    claimed = dataclasses.replace(other.evidence.code, units=found.evidence.code.units)
    outcome = verify(forged(other, code=claimed), small, build=uneven, data=DATA)
    assert "cannot be exchanged" in details(outcome)


@pytest.mark.parametrize("coder", [Adaptive(), Contextual()])
def test_every_flipped_bit_of_a_stream_is_refused_or_another_network(coder):
    payload = pack(chain(), grids(chain), coder=coder).payload
    file = File(payload)
    start = payload.index(file.stream)
    before = {name: t.tolist() for name, t in file.state().items()}
    for place in range(8 * len(file.stream)):
        damaged = bytearray(file.stream)
        damaged[place // 8] ^= 1 << place % 8
        file = File(payload)
        file.stream = bytes(damaged)
        try:
            after = {name: t.tolist() for name, t in file.state().items()}
        except Mismatch:
            continue
        assert after != before
    assert start > 12


@pytest.mark.parametrize("coder", [Adaptive(), Contextual()])
@pytest.mark.parametrize("seed", range(6))
def test_both_readers_read_the_same(coder, seed):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    model = nn.Sequential(nn.Linear(columns, rows), nn.Linear(rows, 3, bias=False))
    coded = {
        name: Grid(
            levels=rng.integers(-30, 31, t.shape) * (rng.random(t.shape) < rng.choice([0.05, 0.6])),
            step=float(rng.choice([1.0, 0.0078125, 96.0])),
        )
        for name, t in model.state_dict().items()
        if "bias" not in name
    }
    small = pack(model, coded, coder=coder)
    found = File(small.payload).state()
    assert list(found) == list(small.state_dict())
    assert all(torch.equal(found[name], t) for name, t in small.state_dict().items())


def test_a_file_of_the_fast_coder_is_no_codeword():
    small = pack(chain(), grids(chain), coder=Adaptive())
    found = certify(small, build=chain, data=DATA)
    outcome = verify(found, small.recoded(RANS()), build=chain, data=DATA)
    assert not outcome.holds
    with pytest.raises(Mismatch, match="has version 2"):
        File(small.recoded(RANS()).payload).state()


# ---- stochastic predictors ----------------------------------------------------------------


def law():
    return GaussianHead(nn.Identity(), width=4, classes=3)


def learn(first):
    head = law()
    fit_head(head, first, steps=6)
    return head


@pytest.mark.parametrize("split", [False, True])
def test_a_stochastic_predictor_is_drawn_again(split):
    small = pack(learn(DATA))
    prior = FromPart(learn=learn, share=0.4, salt="a") if split else PACBayes().prior
    method = PACBayes(prior=prior, repeats=3)
    found = certify(small, build=law, data=DATA, method=method)
    outcome = verify(found, small, build=law, data=DATA, method=method)
    assert outcome.holds
    assert any("read by tailor itself" in one for one in outcome.unchecked)
    for name in ("draw_errors", "divergence", "risk_bound", "empirical_upper", "catoni"):
        value = getattr(found.evidence, name)
        edited = forged(found, **{name: value + 1 if isinstance(value, int) else value * 0.9})
        assert not verify(edited, small, build=law, data=DATA, method=method).holds
    if split:
        assert "pass its learner" in details(verify(found, small, build=law, data=DATA))


# ---- texts --------------------------------------------------------------------------------


def table():
    return nn.Embedding(5, 5)


@pytest.mark.parametrize("subsample", [None, 40])
def test_a_text_is_weighed_again(subsample):
    rng = np.random.default_rng(0)
    texts = ["".join("ab"[i] for i in rng.integers(0, 2, 12)) for _ in range(80)]
    documents = Documents.of_text(texts, "\nabcd")
    levels = np.zeros((5, 5), dtype=np.int64)
    levels[:, 1:3] = 4
    small = pack(table(), {"weight": Grid(levels=levels)}, coder=Adaptive())
    method = BitsPerCharacter(vocabulary=5, start=0, subsample=subsample)
    found = certify(small, build=table, data=documents.data(), method=method)
    again = {"build": table, "data": documents.data(), "method": method}
    assert verify(found, small, **again).holds
    assert "bits per token" in found.claim
    for name in ("risk_bound", "nats", "alpha", "errors", "code"):
        edited = forged(found, **{name: getattr(found.evidence, name) * 2})
        assert not verify(edited, small, **again).holds


# ---- formulas -----------------------------------------------------------------------------


def test_the_formulas_of_the_recount_against_mpmath():
    with mpmath.workdps(40):
        for k, n, level in [(0, 50, -3.0), (7, 300, -40.0), (300, 2000, -900.0)]:
            p = mpmath.mpf(binomial_upper(k, n, level))
            tail = mpmath.log(mpmath.betainc(n - k, k + 1, 0, 1 - p, regularized=True))
            assert float(tail) == pytest.approx(level, rel=1e-9)
        for q, c in [(0.0, 0.1), (0.2, 0.05), (0.97, 0.01)]:
            assert kl_upper(q, c) == pytest.approx(library_kl(q, c), abs=1e-9)
    assert binomial_upper(5, 5, -1.0) == 1.0
    for k, n in [(0, 100), (80, 1500), (300, 8000)]:
        assert eps(k, n, 0.05) == pytest.approx(pick_to_learn(k, n, 0.05), rel=1e-9)
        window = likely_window(max(1, k), n, 0.05)
        assert likely(max(1, k), n, 0.05) == window
        sharper = pick_to_learn(k, n, 0.05, window)
        assert eps(k, n, 0.05, window) == pytest.approx(sharper, rel=1e-9)
    assert math.isclose(eps(80, 1500, 0.05), 0.072788, abs_tol=1e-6)
