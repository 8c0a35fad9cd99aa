"""Certificates: recomputed by hand, checked by verify, attacked, and simulated."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tailor import records
from tailor.errors import PayloadError, UsageError
from tailor.numerics.coding import Grid
from tailor.stages.certify import Certificate, Occam, certify, register, verify
from tailor.stages.compress import Adaptive, CompressedModel, Uniform, frontier, pack
from tailor.stages.polish import polish
from tailor.tasks import Data, Task


def build():
    return nn.Sequential(nn.Linear(8, 3, bias=False))


def sample(n, seed, noise=0.1):
    """Three classes by a sparse linear rule, with a share of random labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=generator)
    y = x[:, :3].argmax(dim=1)
    redrawn = torch.randint(0, 3, (n,), generator=generator)
    flip = torch.rand(n, generator=generator) < noise
    return Data(x=x, y=torch.where(flip, redrawn, y))


def ternary(levels=None):
    matrix = torch.eye(3, 8) if levels is None else torch.as_tensor(levels)
    grid = Grid(levels=matrix.to(torch.int64).numpy())
    return pack(build(), {"0.weight": grid}, coder=Adaptive())


DATA, HELD_OUT = sample(400, 0), sample(150, 1)
SMALL = ternary()
TASK = Task(name="toy", build=build, train=lambda: DATA)
REGISTRATION = register(TASK, Occam(), earlier=16)
CERTIFICATE = certify(
    SMALL, build=build, data=DATA, held_out=HELD_OUT, task="toy", registration=REGISTRATION
)


def assert_fails(certificate, payload=SMALL, data=DATA, held_out=HELD_OUT, build=build):
    outcome = verify(certificate, payload, build=build, data=data, held_out=held_out)
    assert not outcome.holds
    assert any(not check.ok and check.detail for check in outcome.checks)
    return outcome


def test_every_number_by_hand():
    scores = DATA.x.double() @ torch.eye(3, 8).double().T
    errors = int((scores.argmax(dim=1) != DATA.y).sum())
    bits = 8 * len(SMALL.stream) + 4
    c = CERTIFICATE
    assert (c.errors, c.n, c.delta) == (errors, 400, 0.05)
    assert (c.evidence.code.stream, c.evidence.code.choices) == (8 * len(SMALL.stream), 4.0)
    assert c.evidence.code.total == pytest.approx(bits)
    alpha = 0.05 * 2.0**-bits
    assert c.risk_bound == pytest.approx(stats.beta.isf(alpha, errors + 1, 400 - errors), rel=1e-9)
    assert sum(c.evidence.code.parts.values()) + c.evidence.code.rounding == pytest.approx(
        c.evidence.code.stream
    )
    counts = np.bincount(DATA.y.numpy())
    assert c.majority_error == pytest.approx(1 - counts.max() / 400)
    assert c.non_vacuous == (c.risk_bound < c.majority_error)
    assert c.model_sha256 == hashlib.sha256(SMALL.payload).hexdigest()
    wrong = (HELD_OUT.x[:, :3].argmax(dim=1) != HELD_OUT.y).sum().item()
    interval = stats.binomtest(wrong, 150).proportion_ci(0.95, method="exact")
    assert (c.held_out.errors, c.held_out.n) == (wrong, 150)
    assert (c.held_out.low, c.held_out.high) == pytest.approx((interval.low, interval.high))
    assert f"{math.ceil(c.risk_bound * 10_000) / 10_000:.4f}" in c.claim


def test_it_holds_also_from_json_and_from_raw_bytes(tmp_path):
    records.save(CERTIFICATE, tmp_path / "c.json")
    again = records.load(Certificate, tmp_path / "c.json")
    assert again == CERTIFICATE
    outcome = verify(again, SMALL.payload, build=build, data=DATA, held_out=HELD_OUT)
    assert outcome.holds
    assert all(check.ok and not check.detail for check in outcome.checks)


def paths(value, path=()):
    """Where the numbers of a JSON value are."""
    if isinstance(value, dict):
        return [p for key, item in value.items() for p in paths(item, (*path, key))]
    if isinstance(value, list):
        return [p for key, item in enumerate(value) for p in paths(item, (*path, key))]
    return [path]


def altered(path, change):
    value = records.to_json(CERTIFICATE)
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return value


def nudge(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return math.nextafter(value, 2 * value + 1)  # the last digit
    return f"{value}x" if isinstance(value, str) else value


@pytest.mark.parametrize(
    "path",
    [p for p in paths(records.to_json(CERTIFICATE)) if p[-1] != "type"],
    ids=lambda p: ".".join(map(str, p)),
)
def test_no_field_can_be_changed(path):
    value = altered(path, nudge)
    if value == records.to_json(CERTIFICATE):  # None cannot be nudged
        split = {"type": "Split", "share": 0.5, "salt": ""}
        prior = {"type": "Prior", "split": split, "n": 7, "data_sha256": ""}
        instead = {"seed": 7, "prior": prior, "split": split}
        value = altered(path, lambda _: instead[path[-1]])
    assert_fails(records.from_json(Certificate, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("errors",), 0),
        (("risk_bound",), 0.01),
        (("evidence", "bounds", "binomial"), 0.01),
        (("evidence", "risk_bound"), 0.01),
        (("evidence", "errors"), 0),
        (("evidence", "code", "stream"), 8),
        (("evidence", "code", "choices"), 0.0),
        (("evidence", "code", "total"), 8.0),
        (("choices",), 1),
        (("registered",), False),
        (("registration",), None),
        (("kind",), "held-out"),
        (("schema",), 1),
        (("network", "values"), 1),
        (("repeated",), 1),
        (("delta",), 0.5),
        (("delta",), 2.0),
        (("n",), 100_000),
        (("majority_error",), 0.99),
        (("held_out", "errors"), 0),
        (("claim",), "It is perfect."),
        (("assumptions",), []),
    ],
)
def test_an_edited_number_with_a_new_seal_does_not_hold_either(path, value):
    """Whoever edits a number can also compute the seal again; the recount sees through it."""
    forged = records.from_json(Certificate, altered(path, lambda _: value))
    bare = dataclasses.replace(forged, sha256="")
    forged = dataclasses.replace(forged, sha256=records.digest(records.to_json(bare)))
    outcome = assert_fails(forged)
    assert outcome.checks[0].ok  # the seal itself fits


def test_every_flipped_byte_of_the_model():
    for place in range(len(SMALL.payload)):
        damaged = bytearray(SMALL.payload)
        damaged[place] ^= 1
        assert_fails(CERTIFICATE, payload=bytes(damaged))


def test_another_valid_model():
    assert_fails(CERTIFICATE, payload=ternary(torch.ones(3, 8)))


@pytest.mark.parametrize("place", [0, 17, 399])
def test_one_label_or_one_pixel(place):
    y, x = DATA.y.clone(), DATA.x.clone()
    y[place] = (y[place] + 1) % 3
    x[place, 0] += 1e-6
    assert_fails(CERTIFICATE, data=Data(x=DATA.x, y=y))
    assert_fails(CERTIFICATE, data=Data(x=x, y=DATA.y))


def test_one_held_out_label_even_of_an_example_that_is_wrong_anyway():
    wrong = int((HELD_OUT.x[:, :3].argmax(dim=1) != HELD_OUT.y).nonzero()[0, 0])
    right = int(HELD_OUT.x[wrong, :3].argmax())
    y = HELD_OUT.y.clone()
    y[wrong] = next(c for c in range(3) if c not in (right, int(y[wrong])))
    assert_fails(CERTIFICATE, held_out=Data(x=HELD_OUT.x, y=y))


def test_another_task():
    assert_fails(CERTIFICATE, build=lambda: nn.Sequential(nn.Linear(8, 4, bias=False)))


def test_choices_cost_their_logarithm():
    plain = certify(SMALL, build=build, data=DATA)
    paid = certify(SMALL, build=build, data=DATA, choices=1024)
    assert paid.evidence.code.total - plain.evidence.code.total == pytest.approx(10)
    assert paid.risk_bound > plain.risk_bound


def test_random_labels_give_a_vacuous_certificate_that_says_so():
    generator = torch.Generator().manual_seed(3)
    data = Data(x=DATA.x, y=torch.randint(0, 3, (400,), generator=generator))
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    (one,) = frontier(model, [0.0], quantizer=Uniform(top=7))
    small = one.compressed
    small = polish(small, build=build, data=data, sweeps=1)
    certificate = certify(small, build=build, data=data)
    assert not certificate.non_vacuous
    assert verify(certificate, small, build=build, data=data).holds


def test_simulated_coverage_of_the_whole_pipeline():
    """Search on the sample, certify, compare with the true risk: at most delta violations."""
    delta, rounds, n = 0.2, 60, 40
    population = sample(20_000, 99, noise=0.35)
    violated = naive = 0
    for seed in range(rounds):
        data = sample(n, 1000 + seed, noise=0.35)
        found = polish(SMALL, build=build, data=data, delta=delta, sweeps=1, seed=seed)
        certificate = certify(found, build=build, data=data, delta=delta)
        model = found.into(build)
        true = float((model(population.x).argmax(dim=1) != population.y).double().mean())
        violated += true > certificate.risk_bound
        naive += true > certificate.errors / n
    assert violated <= delta * rounds
    assert naive > delta * rounds  # the test can fail: the training error itself is no bound


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"delta": 0.0}, "delta must lie strictly between 0 and 1"),
        ({"delta": 1.0}, "delta must lie strictly between 0 and 1"),
        ({"choices": 0}, "choices must be at least 1"),
        ({"data": Data(x=torch.empty(0, 8), y=torch.empty(0, dtype=torch.long))}, "data are empty"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UsageError, match=message):
        certify(SMALL, **{"build": build, "data": DATA, **fields})


def test_a_file_of_another_architecture_is_refused():
    with pytest.raises(PayloadError, match="another architecture"):
        certify(SMALL, build=lambda: nn.Sequential(nn.Linear(8, 4)), data=DATA)


def test_the_file_and_nothing_else_is_certified():
    """The weights that build draws do not matter."""
    assert isinstance(SMALL, CompressedModel)
    torch.manual_seed(123)
    assert certify(SMALL, build=build, data=DATA).errors == CERTIFICATE.errors


def test_sizes_of_layers_are_not_smuggled_in_and_the_fast_coder_is_not_paid():
    def two():
        return nn.Sequential(nn.Linear(8, 2, bias=False))

    sizes = {"0": {"type": "Linear", "in_features": 8, "out_features": 2, "bias": False}}
    small = pack(two(), coder=Adaptive(), sizes=sizes)
    assert small.into(build)[0].out_features == 2
    with pytest.raises(PayloadError, match="says how large its layers are"):
        certify(small, build=build, data=DATA)
    with pytest.raises(PayloadError, match="a certificate pays for the adaptive code only"):
        certify(pack(build()), build=build, data=DATA)
    assert not verify(CERTIFICATE, pack(build()), build=build, data=DATA).holds
