"""The anytime engine: what it yields, keeps, refuses, and that a killed search goes on."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.bounds import occam
from tailor.stages.compress import Uniform
from tailor.stages.search import Climb, HeadJob, Journal, NetworkJob, Rounding, Smooth, search
from tailor.stages.search.engine import JOURNAL
from tailor.tasks import Data, Frozen, zero_one
from tailor.tasks.edges import RandomFeatures

JOBS = [
    HeadJob(
        name=f"scale {s:g}",
        rounding=Rounding(smooth=Smooth(scale=s)),
        climb=Climb(sweeps=1, pairs=2),
        attempts=1,
    )
    for s in (4.0, 8.0)
]


def build() -> nn.Module:
    frozen = Frozen(RandomFeatures(3, 7, seed=0), statement="random, seed 0")
    return nn.Sequential(frozen, nn.Linear(7, 3, bias=False))


def data(n: int = 100, seed: int = 0) -> Data:
    generator = np.random.default_rng(seed)
    y = generator.integers(3, size=n)
    x = 0.5 + 0.2 * (generator.normal(size=(n, 3)) + 4 * np.eye(3)[y])
    return Data(x=torch.from_numpy(x).float(), y=torch.from_numpy(y))


def test_progress_falls_and_says_what_the_file_is() -> None:
    steps = list(search(build, data(), jobs=JOBS, choices=16, rounds=3, patience=3))
    bounds = [step.bound for step in steps]
    assert bounds == sorted(bounds, reverse=True)
    assert [step.job for step in steps][:3] == ["scale 4", "scale 8", "round 1"]
    last = steps[-1]
    errors = int(zero_one(last.best.into(build), data()).sum())
    assert (last.errors, last.bits) == (errors, 8 * len(last.best.stream))
    assert last.bound == occam(errors, 100, last.bits + 4.0, 0.05).binomial
    assert last.bound < 0.6
    assert set(last.best.state_dict()) == {"1.weight"}


def test_a_search_repeats_and_follows_its_seed() -> None:
    runs = [
        [s.best.payload for s in search(build, data(), jobs=JOBS, rounds=2, seed=1)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_patience_ends_a_search() -> None:
    steps = list(search(build, data(), jobs=JOBS[:1], rounds=50, patience=1))
    assert len(steps) < 52


def test_no_time_still_gives_one_file() -> None:
    assert len(list(search(build, data(), jobs=JOBS, seconds=0.0))) == 1


def test_a_folder_is_resumed_and_ends_with_the_same_file(tmp_path: Path) -> None:
    whole = list(search(build, data(), jobs=JOBS, rounds=3))[-1]
    broken = search(build, data(), jobs=JOBS, rounds=3, folder=tmp_path)
    next(broken)
    broken.close()
    again = list(search(build, data(), jobs=JOBS, rounds=3, folder=tmp_path))
    assert again[0].job == "scale 4"  # where it stood
    assert (again[-1].step, again[-1].best.payload) == (whole.step, whole.best.payload)
    assert len(list(tmp_path.glob("best-*.tailor"))) == 1


CHILD = """
import sys
from test_search_engine import JOBS, build, data
from tailor.stages.search import search
for step in search(build, data(), jobs=JOBS, rounds=3, folder=sys.argv[1]):
    print(step.job, flush=True)
    if len(sys.argv) > 2:
        sys.stdin.readline()
"""


def test_a_killed_search_goes_on_where_it_stood(tmp_path: Path) -> None:
    torch_threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=torch_threads | {"PYTHONPATH": paths},
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"scale 4\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    child.stdout.close()
    whole = list(search(build, data(), jobs=JOBS, rounds=3))[-1]
    again = list(search(build, data(), jobs=JOBS, rounds=3, folder=tmp_path))
    assert again[0].step == 1
    assert again[-1].best.payload == whole.best.payload


def test_a_file_left_by_a_kill_before_its_journal_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "best-0000.tailor").write_bytes(b"half a step")
    list(search(build, data(), jobs=JOBS[:1], rounds=0, folder=tmp_path))
    assert [path.name for path in tmp_path.glob("best-*")] != ["best-0000.tailor"]
    assert len(list(tmp_path.glob("best-*"))) == 1


def test_a_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    list(search(build, data(), jobs=JOBS[:1], rounds=0, folder=tmp_path))
    assert (tmp_path / JOURNAL).exists()
    with pytest.raises(UsageError, match="holds another search"):
        search(build, data(seed=1), jobs=JOBS[:1], rounds=0, folder=tmp_path)
    with pytest.raises(UsageError, match="holds another search"):
        search(build, data(), jobs=JOBS[:1], rounds=0, choices=2, folder=tmp_path)


def test_other_networks_are_pruned_quantised_and_polished() -> None:
    def small() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))

    job = NetworkJob(
        name="net", sparsities=(0.3,), quantizer=Uniform(top=1), epochs=8, retrain=2, batch=10
    )
    steps = list(search(small, data(), jobs=[job], rounds=1))
    assert [step.job for step in steps] == ["net", "round 1"]
    assert steps[1].bound <= steps[0].bound < 1.0
    errors = int(zero_one(steps[1].best.into(small), data()).sum())
    assert errors == steps[1].errors


@pytest.mark.parametrize("change", ["a bias", "another loss"])
def test_what_the_fast_search_cannot_do_is_polished(change: str) -> None:
    def small() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4, bias=change == "a bias"), nn.ReLU(), nn.Linear(4, 3))

    def lenient(model: nn.Module, examples: Data) -> torch.Tensor:
        return zero_one(model, examples) & (examples.y > 0)

    job = NetworkJob(name="net", sparsities=(0.3,), epochs=8, retrain=2, batch=10, prior=0.0)
    error = lenient if change == "another loss" else zero_one
    (step,) = search(small, data(), jobs=[job], rounds=0, error=error)
    assert step.errors == int(error(step.best.into(small), data()).sum())


def test_what_does_not_fit_into_memory_is_run_from_the_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tailor.stages.incremental import screen

    def small() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))

    job = NetworkJob(name="net", sparsities=(0.3,), epochs=4, retrain=2, batch=10)
    (kept,) = search(small, data(), jobs=[job], rounds=0)
    monkeypatch.setattr(screen, "MOST", 0)
    (lean,) = search(small, data(), jobs=[job], rounds=0)
    assert lean.best.payload == kept.best.payload


def test_a_head_is_found_and_others_are_told_apart() -> None:
    from tailor.stages.search.jobs import default_jobs, head_layer

    few = data(4)
    assert head_layer(build(), few) == "1"
    assert head_layer(nn.Linear(3, 2, bias=False), few) == ""
    assert head_layer(nn.Linear(3, 2), few) is None  # a bias
    assert head_layer(nn.Sequential(nn.Linear(3, 2, bias=False), nn.Tanh()), few) is None
    two = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    assert head_layer(two, few) is None
    assert isinstance(default_jobs(build, few)[0], HeadJob)
    assert isinstance(default_jobs(lambda: two, few)[0], NetworkJob)


def test_the_journal_is_a_record(tmp_path: Path) -> None:
    from tailor import records

    last = list(search(build, data(), jobs=JOBS, rounds=1, folder=tmp_path))[-1]
    journal = records.load(Journal, tmp_path / JOURNAL)
    assert journal.done == ("scale 4", "scale 8", "round 1")
    assert (journal.bound, journal.bits) == (last.bound, last.bits)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"choices": 0}, "choices >= 1"),
        ({"rounds": -1}, "rounds >= 0"),
        ({"jobs": []}, "jobs of different names"),
        ({"jobs": [JOBS[0], JOBS[0]]}, "jobs of different names"),
    ],
)
def test_refusals(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        search(build, data(), **given)  # type: ignore[arg-type]
    two = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    with pytest.raises(UsageError, match="put the rest into Frozen"):
        next(search(lambda: two, data(), jobs=JOBS))
