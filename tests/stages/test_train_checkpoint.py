"""Checkpoints: a run killed at any moment ends with the bits of one that was not."""

import io
import itertools
import multiprocessing
import os
import signal

import pytest
import torch
from torch import nn

from tailor.errors import OutputError, RecordError, UsageError
from tailor.stages.noise import StableNoise
from tailor.stages.regularize import L2, StableRank
from tailor.stages.train import Checkpoint, Patience, batches, train
from tailor.tasks import Data

CROSS_ENTROPY = nn.functional.cross_entropy
STEPS = 16
EVERY = 3


def toy(n=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator)
    return Data(x=x, y=(x[:, 0] > 0).long())


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 2)
        )


SETTINGS = {
    "adam": (torch.optim.Adam, {"lr": 0.05}, {"decoupled": False, "accumulate": 1}),
    "sgd": (
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9},
        {"decoupled": True, "accumulate": 2, "precision": "float16"},
    ),
}


def start(which, folder, *, given=None, model=None, **changed):
    """The run of a setting, and its model."""
    kind, rates, options = SETTINGS[which]
    model = network() if model is None else model
    optimizer = kind(model.parameters(), **rates)
    accumulate = options["accumulate"]
    source = batches(toy(), size=16, epochs=STEPS * accumulate // 4, seed=1)
    options = {
        **options,
        "penalties": [StableRank(1e-2), L2(1e-3)],
        "noise": StableNoise(alpha=1.5, scale=1e-2, targets="all", seed=7),
        "schedulers": [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)],
        "checkpoint": Checkpoint(folder=folder, every=EVERY),
        "seed": 3,
        **changed,
    }
    steps = train(
        model,
        source if given is None else given(source),
        optimizer=optimizer,
        **{"loss": CROSS_ENTROPY, **options},
    )
    return model, steps


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# What a child process does. Each writes the steps that it saw, and at the end its weights.


def child(which, folder, log, where):
    torch.set_num_threads(1)
    if where in ("half a file", "before the rename"):
        spoil(where)
    model, steps = start(which, folder, given=lambda source: mortal(source, where))
    with open(log, "a", encoding="utf-8") as file:
        for step in steps:
            print(step.number, step.loss.hex(), step.lr.hex(), file=file, flush=True)
            if where == f"step {step.number}":
                die()
    torch.save(model.state_dict(), f"{log}.pt")


def mortal(source, where):
    """The batches; the process dies when it asks for a certain one."""
    for number, batch in enumerate(source):
        if where == f"batch {number}":
            die()
        yield batch


def spoil(where):
    """Death while the second checkpoint is written."""
    count, save, replace = itertools.count(), torch.save, os.replace

    def half(state, file):
        buffer = io.BytesIO()
        save(state, buffer)
        dies = where == "half a file" and next(count) == 1
        file.write(buffer.getvalue()[: len(buffer.getvalue()) // (2 if dies else 1)])
        if dies:
            file.flush()
            die()

    def late(source, target):
        if where == "before the rename" and next(count) == 1:
            die()
        replace(source, target)

    torch.save, os.replace = half, late


@pytest.fixture(scope="module")
def forks():
    """Processes that begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tailor.stages.train", "torch._dynamo"])
    return context


def lives(forks, *arguments):
    process = forks.Process(target=child, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def lines(log):
    return dict(line.split(" ", 1) for line in log.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("which", SETTINGS)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(forks, which, tmp_path):
    calm, mauled = tmp_path / "calm", tmp_path / "mauled"
    assert lives(forks, which, tmp_path / "a", calm, "nowhere") == 0
    deaths = ["batch 1", "step 4", "half a file", "before the rename", "step 13"]
    for where in deaths:
        assert lives(forks, which, tmp_path / "b", mauled, where) == -signal.SIGKILL
    assert lives(forks, which, tmp_path / "b", mauled, "nowhere") == 0
    assert lines(mauled) == lines(calm)
    assert list(lines(calm)) == [str(number) for number in range(1, STEPS + 1)]
    one, two = (torch.load(f"{log}.pt", weights_only=True) for log in (calm, mauled))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("left", range(1, STEPS))
def test_a_run_left_after_any_step_goes_on(left, tmp_path):
    whole, steps = start("adam", tmp_path / "a")
    losses = [step.loss for step in steps]
    checkpoint = Checkpoint(folder=tmp_path / "b", every=1)
    for _ in itertools.islice(start("adam", tmp_path / "b", checkpoint=checkpoint)[1], left):
        pass
    torch.manual_seed(left)  # the state of the process that goes on does not count
    rest, steps = start("adam", tmp_path / "b", checkpoint=checkpoint)
    steps = list(steps)
    assert [step.number for step in steps] == list(range(left + 1, STEPS + 1))
    assert [step.loss for step in steps] == losses[left:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])


def test_a_run_that_has_ended_stays_ended_until_there_are_more_batches(tmp_path):
    model, steps = start("adam", tmp_path)
    assert len(list(steps)) == STEPS
    again, steps = start("adam", tmp_path)
    assert list(steps) == []
    assert torch.equal(model[0].weight, again[0].weight)
    more = batches(toy(), size=16, epochs=STEPS // 4 + 1, seed=1)
    _, steps = start("adam", tmp_path, given=lambda _: more)
    assert [step.number for step in steps] == [17, 18, 19, 20]


def test_a_run_that_a_rule_stopped_stays_stopped(tmp_path):
    rule = Patience(lambda: 1.0, patience=4)
    _, steps = start("adam", tmp_path, stop=[rule])
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    assert list(start("adam", tmp_path, stop=[rule])[1]) == []


def test_what_a_rule_has_seen_is_kept(tmp_path):
    values = iter([3.0, 2.0, 2.5, 2.5, 2.5])
    rule = Patience(lambda: next(values), patience=3)
    checkpoint = Checkpoint(folder=tmp_path, every=1)
    options = {"stop": [rule], "checkpoint": checkpoint}
    for _ in itertools.islice(start("adam", tmp_path, **options)[1], 3):
        pass
    *_, last = start("adam", tmp_path, **options)[1]
    assert (last.number, last.stopped) == (5, "Patience: 3 looks without a value below 2")


def test_the_scale_of_the_loss_is_kept(tmp_path):
    def overflowing(outputs, y):  # 65,536 times this is infinite
        return 1e38 * CROSS_ENTROPY(outputs, y)

    checkpoint = Checkpoint(folder=tmp_path, every=1)
    options = {"checkpoint": checkpoint, "precision": "float16"}
    (first,) = itertools.islice(start("adam", tmp_path, loss=overflowing, **options)[1], 1)
    assert first.skipped
    next(start("adam", tmp_path, **options)[1])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["place"]["step"] == 2
    assert state["parts"]["loss scale"]["scale"] == 65536 / 2


def test_the_folder_holds_one_file(tmp_path):
    list(start("adam", tmp_path / "runs" / "one")[1])
    assert [path.name for path in (tmp_path / "runs" / "one").iterdir()] == ["checkpoint.pt"]


def stored(tmp_path):
    steps = start("adam", tmp_path)[1]
    for step in steps:
        if step.number == EVERY:
            break


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"penalties": [L2(1e-3)]}, r"with penalties = .*StableRank.*; use the same settings"),
        ({"noise": None}, r"with noise = .*StableNoise.* but now it is None"),
        ({"accumulate": 2}, "with accumulate = 1, but now it is 2"),
        ({"precision": "bfloat16"}, "with precision = float32, but now it is bfloat16"),
        ({"seed": 4}, "with seed = 3, but now it is 4"),
        ({"clip_norm": 1.0}, "with clip_norm = None, but now it is 1.0"),
        ({"decoupled": True}, "with decoupled = False, but now it is True"),
        ({"schedulers": []}, r"with schedulers = \['CosineAnnealingLR'\], but now it is \[\]"),
        ({"model": nn.Sequential(nn.Linear(5, 2))}, r"with the model = 0\.weight \(12, 5\), 0"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(changed, message, tmp_path):
    stored(tmp_path)
    with pytest.raises(UsageError, match=message):
        next(start("adam", tmp_path, **changed)[1])


def test_a_checkpoint_of_another_learning_rate_is_refused(tmp_path, monkeypatch):
    stored(tmp_path)
    monkeypatch.setitem(SETTINGS, "adam", (torch.optim.Adam, {"lr": 0.01}, SETTINGS["adam"][2]))
    with pytest.raises(UsageError, match=r"with the optimizer = .*'lr': 0\.05.* is .*'lr': 0\.01"):
        next(start("adam", tmp_path)[1])


def test_other_batches_are_refused_unless_they_may_differ(tmp_path):
    stored(tmp_path)

    def other(_):
        return batches(toy(), size=16, epochs=STEPS // 4, seed=2)

    with pytest.raises(UsageError, match="batch 3 is not the one that the checkpoint has seen"):
        next(start("adam", tmp_path, given=other)[1])
    loose = Checkpoint(folder=tmp_path, every=EVERY, same_batches=False)
    assert next(start("adam", tmp_path, given=other, checkpoint=loose)[1]).number == EVERY + 1


def test_a_data_loader_needs_a_seed_to_go_on(tmp_path):
    def loaded(_, **options):
        data = torch.utils.data.TensorDataset(toy().x, toy().y)
        loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, **options)
        return itertools.chain.from_iterable(loader for _ in range(4))

    def seeded(_):
        return loaded(_, generator=torch.Generator().manual_seed(0))

    whole = [step.loss for step in start("adam", tmp_path / "whole", given=seeded)[1]]
    for given, folder in ((seeded, tmp_path / "seeded"), (loaded, tmp_path / "loose")):
        for _ in itertools.islice(start("adam", folder, given=given)[1], 7):
            pass
    rest = [step.loss for step in start("adam", tmp_path / "seeded", given=seeded)[1]]
    assert rest == whole[6:]
    with pytest.raises(
        UsageError, match="a DataLoader that shuffles needs a generator with a seed"
    ):
        next(start("adam", tmp_path / "loose", given=loaded)[1])


def test_too_few_batches_are_refused(tmp_path):
    stored(tmp_path)
    with pytest.raises(UsageError, match="has used 3 batches, but batches ends after 2"):
        next(start("adam", tmp_path, given=lambda source: itertools.islice(source, 2))[1])


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    stored(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"checkpoint\.pt .*delete it to begin anew"):
        next(start("adam", tmp_path)[1])
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(RecordError, match="is no checkpoint of train; use another folder"):
        next(start("adam", tmp_path)[1])
    (tmp_path / "checkpoint.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="holds a checkpoint of a sharded model"):
        next(start("adam", tmp_path)[1])


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save(Evil(), tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match=r"checkpoint\.pt is damaged; delete it"):
        next(start("adam", tmp_path)[1])


def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_written(tmp_path):
    class Odd:
        def attach(self, model, optimizer):
            injector = StableNoise(alpha=2, scale=0).attach(model, optimizer)
            injector.state_dict = lambda: {"noise": injector.noise}
            return injector

    with pytest.raises(UsageError, match="a state holds more than tensors and plain values"):
        list(start("adam", tmp_path, noise=Odd())[1])
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"checkpoint\.pt cannot be written"):
        list(start("adam", tmp_path / "file" / "folder")[1])


def test_every_is_at_least_one():
    with pytest.raises(UsageError, match="Checkpoint needs every >= 1, but got 0"):
        Checkpoint(folder="here", every=0)
