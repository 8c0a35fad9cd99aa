"""Ways to get a false certificate, and the answer to each."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

from tailor import records
from tailor.errors import TaskError, UsageError
from tailor.numerics.coding import Grid
from tailor.stages.certify import (
    Certificate,
    HeldOut,
    Occam,
    Registration,
    Split,
    certify,
    register,
    verify,
)
from tailor.stages.compress import Adaptive, pack
from tailor.tasks import Data, Frozen, Task


def sample(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 6, generator=generator)
    return Data(x=x, y=x[:, :3].argmax(dim=1))


def build():
    return nn.Sequential(nn.Linear(6, 3, bias=False))


def wider():
    return nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))


def eye(rows=3, columns=6):
    return Grid(levels=torch.eye(rows, columns, dtype=torch.int64).numpy())


DATA, FRESH = sample(300, 0), sample(200, 1)
SMALL = pack(build(), {"0.weight": eye()}, coder=Adaptive())
TASK = Task(name="toy", build=build, train=lambda: DATA)
REGISTERED = register(TASK, Occam(), earlier=4)


def forged(record, **changes):
    """A record with other values and a seal that fits them."""
    bare = dataclasses.replace(record, **changes, sha256="")
    return dataclasses.replace(bare, sha256=records.digest(records.to_json(bare)))


def assert_does_not_hold(certificate, match, *, small=SMALL, build=build, data=DATA, **more):
    outcome = verify(certificate, small, build=build, data=data, **more)
    assert not outcome.holds
    assert any(match in check.detail for check in outcome.checks), outcome.checks


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return certify(SMALL, build=build, data=DATA, registration=REGISTERED, task="toy")


# ---- what a certificate speaks of ---------------------------------------------------------


def test_without_a_registration_it_is_exploratory_and_says_so(certificate):
    free = certify(SMALL, build=build, data=DATA)
    assert not free.registered
    assert free.claim.startswith("Exploratory, since nothing was registered")
    assert any("Nothing was registered" in warning for warning in free.warnings)
    assert verify(free, SMALL, build=build, data=DATA).holds
    assert certificate.registered
    assert certificate.claim.startswith("With probability at least 0.95")
    claimed = certificate.claim.replace("With", "Exploratory: With")
    assert_does_not_hold(forged(certificate, claim=claimed), "claim")
    promoted = forged(free, registered=True, claim=free.claim.split(": ", 1)[1])
    assert_does_not_hold(promoted, "registered")


def test_edited_number(certificate):
    assert_does_not_hold(forged(certificate, errors=0, risk_bound=0.001), "bound")
    edited = dataclasses.replace(certificate, risk_bound=0.001)
    assert_does_not_hold(edited, "changed after it was made")


def test_swapped_data(certificate):
    assert_does_not_hold(certificate, "hash of the data", data=FRESH)
    mixed = DATA.at(torch.randperm(300, generator=torch.Generator().manual_seed(0)))
    assert_does_not_hold(certificate, "hash of the data", data=mixed)


def test_swapped_payload(certificate):
    other = pack(build(), {"0.weight": Grid(levels=-eye().levels)},
                 coder=Adaptive())  # fmt: skip
    assert_does_not_hold(certificate, "hash of the file", small=other)
    relabelled = forged(certificate, model_sha256=records.hashlib.sha256(other.payload).hexdigest())
    assert_does_not_hold(relabelled, "errors", small=other)


def test_another_task(certificate):
    assert_does_not_hold(certificate, "tensors", build=wider)

    def scaled():
        return nn.Sequential(nn.Linear(6, 3, bias=False), nn.Hardtanh())

    assert_does_not_hold(certificate, "network", build=scaled)


# ---- what is chosen afterwards ------------------------------------------------------------


def test_delta_method_task_data_and_network_are_those_that_were_registered():
    keep = {"build": build, "data": DATA, "registration": REGISTERED, "task": "toy"}
    for changes, match in [
        ({"delta": 0.2}, "delta is 0.2, but 0.05 was registered"),
        ({"choices": 1}, "number of choices is 1, but 4 was registered"),
        ({"method": HeldOut(compared=1)}, "method is HeldOut"),
        ({"split": Split(share=0.5, salt="x")}, "split is Split"),
        ({"task": "other"}, "the task is other, but toy was registered"),
        ({"data": FRESH}, "not the 300 examples that were registered"),
        ({"build": lambda: nn.Sequential(nn.Linear(6, 3))}, "another network"),
    ]:
        with pytest.raises(UsageError, match=match):
            certify(SMALL, **{**keep, **changes})
    edited = dataclasses.replace(REGISTERED, earlier=1)
    with pytest.raises(UsageError, match="registration was changed after it was made"):
        certify(SMALL, **{**keep, "registration": edited})


def test_delta_chosen_afterwards_shows_in_a_recount(certificate):
    later = register(TASK, Occam(), earlier=4, delta=0.3)
    assert_does_not_hold(forged(certificate, registration=later), "delta")
    cheaper = register(TASK, Occam(), earlier=1)
    assert_does_not_hold(forged(certificate, registration=cheaper), "choices")


def test_the_best_of_several_certificates_is_paid():
    several = register(TASK, Occam(), certificates=5)
    one = certify(SMALL, build=build, data=DATA, registration=several, task="toy")
    alone = certify(SMALL, build=build, data=DATA, delta=0.01)
    assert one.delta == 0.05
    assert one.risk_bound == pytest.approx(alone.risk_bound, rel=1e-12)
    assert verify(one, SMALL, build=build, data=DATA).holds


def test_alternatives_are_paid():
    other = Task(name="wider", build=wider, train=lambda: DATA)
    both = register([TASK, other], Occam(), earlier=8)
    assert both.choices == 16
    found = certify(SMALL, build=build, data=DATA, registration=both, task="toy")
    assert found.evidence.code.choices == 4.0
    elsewhere = Task(name="elsewhere", build=build, train=lambda: FRESH)
    with pytest.raises(UsageError, match="have different data"):
        register([TASK, elsewhere], Occam())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"delta": 0.0}, "delta must lie strictly between 0 and 1"),
        ({"delta": 1.5}, "delta must lie strictly between 0 and 1"),
        ({"earlier": 0}, "must be at least 1"),
        ({"certificates": 0}, "must be at least 1"),
    ],
)
def test_registrations_that_make_no_sense(change, match):
    with pytest.raises(UsageError, match=match):
        register(TASK, Occam(), **change)
    with pytest.raises(UsageError, match="at least one task"):
        register([], Occam())


def test_a_registration_survives_a_file(tmp_path):
    records.save(REGISTERED, tmp_path / "r.json")
    assert records.load(Registration, tmp_path / "r.json") == REGISTERED


def test_a_test_set_used_for_comparing_files_is_divided_among_them():
    def bound(m):
        return certify(SMALL, build=build, data=FRESH, method=HeldOut(compared=m)).risk_bound

    assert bound(1) == pytest.approx(1 - 0.05 ** (1 / 200), rel=1e-9)
    assert bound(10) == pytest.approx(1 - 0.005 ** (1 / 200), rel=1e-9)
    with pytest.raises(TypeError, match="compared"):
        HeldOut()
    with pytest.raises(UsageError, match="compared must be at least 1"):
        HeldOut(compared=0)
    found = certify(SMALL, build=build, data=FRESH, method=HeldOut(compared=2))
    assert verify(found, SMALL, build=build, data=FRESH).holds
    fewer = forged(found, evidence=dataclasses.replace(found.evidence, compared=1))
    assert_does_not_hold(fewer, "bound", data=FRESH)


# ---- what nobody paid for -----------------------------------------------------------------


class Scaled(nn.Module):
    """A network with the mean of the data as a constant, hidden in one of several ways."""

    def __init__(self, how):
        super().__init__()
        self.linear = nn.Linear(6, 3, bias=False)
        mean = DATA.x.mean(dim=0)
        if how == "buffer":
            self.register_buffer("mean", mean, persistent=False)
        elif how == "attribute":
            self.mean = mean
        elif how == "list":
            self.mean = [mean]
        elif how == "array":
            self.mean = mean.numpy()
        elif how == "norm":
            self.norm = nn.BatchNorm1d(6)
            self.norm._non_persistent_buffers_set.update({"running_mean", "running_var"})

    def forward(self, x):
        return self.linear(x)


@pytest.mark.parametrize("how", ["buffer", "attribute", "list", "array", "norm"])
def test_trained_tensors_outside_the_file_are_refused(how):
    """Fitted scalings, running statistics, code books: whatever is not in the state dict."""

    def hiding():
        return Scaled(how)

    small = pack(hiding(), {"linear.weight": eye()}, coder=Adaptive())
    with pytest.raises(UsageError, match="holds tensors that no file pays for"):
        certify(small, build=hiding, data=DATA)
    open_one = forged(
        certify(SMALL, build=build, data=DATA),
        model_sha256=records.hashlib.sha256(small.payload).hexdigest(),
    )
    assert_does_not_hold(open_one, "no file pays for", small=small, build=hiding)


def test_running_statistics_in_the_file_are_paid():
    def normed():
        return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3, bias=False))

    small = pack(normed(), {"1.weight": eye()}, coder=Adaptive())
    found = certify(small, build=normed, data=DATA)
    raw = sum(bits for name, bits in found.evidence.code.parts.items() if name.startswith("0."))
    assert raw > 4 * 6 * 32
    assert verify(found, small, build=normed, data=DATA).holds


def test_frozen_parts_have_to_be_declared_and_are_shown():
    def frozen(seed=0, statement="random, seed 0"):
        torch_state = torch.Generator().manual_seed(seed)
        first = nn.Linear(6, 6, bias=False)
        first.weight.data = torch.randn(6, 6, generator=torch_state)
        return nn.Sequential(Frozen(first, statement=statement), nn.Linear(6, 3, bias=False))

    assert list(frozen().state_dict()) == ["1.weight"]
    small = pack(frozen(), {"1.weight": eye()}, coder=Adaptive())
    found = certify(small, build=frozen, data=DATA)
    (part,) = found.network.parts
    assert (part.name, part.statement, part.domain) == ("0", "random, seed 0", False)
    assert verify(found, small, build=frozen, data=DATA).holds
    assert_does_not_hold(found, "network", small=small, build=lambda: frozen(seed=1))
    with pytest.raises(UsageError, match="needs a statement"):
        frozen(statement=" ")


def test_constants_that_differ_each_time_are_refused():
    def loose():
        part = Frozen(nn.Linear(6, 6, bias=False), statement="random")
        return nn.Sequential(part, nn.Linear(6, 3, bias=False))

    small = pack(loose(), {"1.weight": eye()}, coder=Adaptive())
    with pytest.raises(UsageError, match="builds other constants each time"):
        certify(small, build=loose, data=DATA)


def test_inputs_that_were_standardised_with_the_data_are_refused():
    x = (DATA.x - DATA.x.mean(dim=0)) / DATA.x.std(dim=0)
    with pytest.raises(UsageError, match="its scaling was fitted to them"):
        certify(SMALL, build=build, data=Data(x=x, y=DATA.y))
    fixed = Data(x=(DATA.x - 0.5) / 0.29, y=DATA.y)
    assert certify(SMALL, build=build, data=fixed).errors == 0


# ---- samples that are none ----------------------------------------------------------------


def test_repeated_examples_are_refused_unless_declared():
    twice = Data(x=torch.cat([DATA.x, DATA.x[:5]]), y=torch.cat([DATA.y, DATA.y[:5]]))
    with pytest.raises(UsageError, match="5 of the 305 examples are repetitions"):
        certify(SMALL, build=build, data=twice)
    said = dataclasses.replace(twice, repeats=True)
    found = certify(SMALL, build=build, data=said)
    assert found.repeated == 5
    assert verify(found, SMALL, build=build, data=twice).holds
    assert_does_not_hold(forged(found, repeated=0), "repeated", data=twice)


def test_test_data_among_the_training_data_are_named():
    both = Data(x=torch.cat([FRESH.x, DATA.x[:3]]), y=torch.cat([FRESH.y, DATA.y[:3]]))
    found = certify(SMALL, build=build, data=DATA, held_out=both)
    assert "3 held-out examples are also among the data." in found.warnings


def test_a_prior_and_its_bound_see_different_examples():
    split = Split(share=0.4, salt="toy")
    before, counted = DATA.split(0.4, "toy")
    assert not set(before.records()) & set(counted.records())
    assert len(before) + len(counted) == len(DATA)
    found = certify(SMALL, build=build, data=DATA, split=split)
    assert (found.prior.n, found.n) == (len(before), len(counted))
    assert found.data_sha256 == counted.digest()
    assert verify(found, SMALL, build=build, data=DATA).holds
    elsewhere = dataclasses.replace(found.prior, split=Split(share=0.4, salt="other"))
    assert_does_not_hold(forged(found, prior=elsewhere), "before the split")
    assert_does_not_hold(forged(found, prior=None), "hash of the data")
    with pytest.raises(UsageError, match="a part is empty"):
        DATA.at(torch.tensor([0])).split(0.5, "x")
    with pytest.raises(UsageError, match="share must lie strictly between 0 and 1"):
        DATA.split(1.0, "x")


def test_a_cut_does_not_depend_on_the_order():
    mixed = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    one, other = DATA.split(0.3, "s")[0], DATA.at(mixed).split(0.3, "s")[0]
    assert sorted(one.records()) == sorted(other.records())


# ---- evaluations that are none ------------------------------------------------------------


class Noisy(nn.Module):
    """Answers that depend on chance, on the place in a batch, or on all of the batch."""

    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(6, 3, bias=False), how

    def forward(self, x):
        if self.how == "noise":
            return self.linear(x) + torch.randn(len(x), 3, dtype=x.dtype)
        if self.how == "batch":
            return self.linear(x) * torch.arange(-1, len(x) - 1, dtype=x.dtype)[:, None]
        if self.how == "mean":
            return self.linear(x - 3 * x.mean(0))
        return self.linear(x)


@pytest.mark.parametrize("how", ["noise", "batch", "mean"])
def test_answers_that_depend_on_chance_or_on_the_batch_are_refused(how):
    def noisy():
        return Noisy(how)

    small = pack(noisy(), {"linear.weight": eye()}, coder=Adaptive())
    with pytest.raises(TaskError, match="two evaluations of the same network differ"):
        certify(small, build=noisy, data=DATA)


def test_a_decoder_that_has_looked_at_the_data_is_refused():
    """It remembers the data, or answers by the place of an example among them."""

    class Knows(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3, bias=False)
            self.answers = {"y": DATA.y}

        def forward(self, x):
            return nn.functional.one_hot(self.answers["y"][: len(x)], 3).to(x.dtype)

    small = pack(Knows(), coder=Adaptive())
    with pytest.raises(UsageError, match=r"no file pays for: answers"):
        certify(small, build=Knows, data=DATA)

    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3, bias=False)

        def forward(self, x):
            return nn.functional.one_hot(DATA.y[: len(x)], 3).to(x.dtype)

    small = pack(Places(), coder=Adaptive())
    with pytest.raises(TaskError, match="two evaluations of the same network differ"):
        certify(small, build=Places, data=DATA)


def test_a_network_that_opens_files_does_not_hold(tmp_path):
    torch.save(DATA.y, tmp_path / "answers.pt")

    class Reads(nn.Module):
        def __init__(self, look):
            super().__init__()
            self.linear, self.look = nn.Linear(6, 3, bias=False), look

        def forward(self, x):
            if self.look:
                torch.load(tmp_path / "answers.pt")
            return self.linear(x)

    for look in (False, True):
        made = functools.partial(Reads, look)
        small = pack(made(), {"linear.weight": eye()}, coder=Adaptive())
        found = certify(small, build=made, data=DATA)
        outcome = verify(found, small, build=made, data=DATA)
        said = [check.detail for check in outcome.checks if check.name == "errors and bound"]
        assert ("opens" in said[0] and "answers.pt" in said[0]) == look


# ---- bad input ----------------------------------------------------------------------------


def test_one_example_no_errors_and_all_errors():
    one = DATA.at(torch.tensor([0]))
    found = certify(SMALL, build=build, data=one)
    assert found.n == 1
    assert not found.non_vacuous
    assert verify(found, SMALL, build=build, data=one).holds
    none = certify(SMALL, build=build, data=DATA)
    assert none.errors == 0
    wrong = Data(x=DATA.x, y=(DATA.y + 1) % 3)
    every = certify(SMALL, build=build, data=wrong)
    assert (every.errors, every.risk_bound, every.non_vacuous) == (300, 1.0, False)
    assert verify(every, SMALL, build=build, data=wrong).holds


def test_data_that_change_between_two_readings_are_refused():
    seeds = iter(range(9))
    task = Task(name="toy", build=build, train=lambda: sample(50, next(seeds)))
    with pytest.raises(TaskError, match="the data change between two readings"):
        register(task, Occam())


def test_labels_out_of_range_and_held_out_data_that_are_empty():
    with pytest.raises(TaskError, match="the data hold class 5, but the network scores 3"):
        certify(SMALL, build=build, data=Data(x=DATA.x, y=DATA.y + 3))
    empty = Data(x=torch.empty(0, 6), y=torch.empty(0, dtype=torch.long))
    with pytest.raises(UsageError, match="held-out data are empty"):
        certify(SMALL, build=build, data=DATA, held_out=empty)
