"""Engines: every result comes once, whatever runs where, dies or fails."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailor import NonFinite, UsageError
from tailor.engine import Local, Ray
from tailor.engine import crew as crew_module
from tailor.engine.crew import Crew
from tailor.engine.worker import Forked, Lost, Started, can_fork
from tailor.errors import EngineError
from tests import engine_tasks as tasks


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# ---- in this process ---------------------------------------------------------------------


@given(st.lists(st.integers()))
def test_one_worker_is_plain_map(numbers):
    assert list(Local().map(abs, numbers, [1.0] * len(numbers))) == list(
        enumerate(map(abs, numbers))
    )


def test_one_worker_stays_here_and_is_lazy():
    seen = []
    found = Local().map(seen.append, [1, 2, 3], [1.0] * 3)
    assert seen == []
    next(found)
    assert seen == [1]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_task_gives_no_result(workers):
    assert list(Local(workers=workers).map(tasks.square, [], [])) == []


def test_one_task_starts_no_process():
    ((index, found),) = Local(workers=2).map(tasks.square, [3], [1.0])
    assert (index, found.number, found.process) == (0, 9, os.getpid())


def test_a_failure_comes_out_as_itself_after_the_results_before_it():
    found = Local().map(tasks.picky, [0, 1, 2, 3], [1.0] * 4)
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    with pytest.raises(NonFinite, match=r"^task 2 is broken$"):
        next(found)


@pytest.mark.parametrize("engine", [Local(), Local(workers=2), Ray()])
def test_every_task_needs_a_cost(engine):
    with pytest.raises(UsageError, match="each task needs one cost, but 3 came with 2 costs"):
        next(engine.map(abs, [1, 2, 3], [1.0, 1.0]))


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        (Local, {"workers": 0}, "workers must be at least 1, but is 0"),
        (Local, {"retries": -1}, "retries must be at least 0, but is -1"),
        (Ray, {"retries": -2}, "retries must be at least 0, but is -2"),
        (Ray, {"cpus_per_task": 0}, "cpus_per_task must be at least 1, but is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(engine, settings, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        engine(**settings)


def test_without_the_package_ray_its_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"not installed; install it with: pip install 'tailor"):
        next(Ray().map(abs, [1], [1.0]))


# ---- in worker processes -----------------------------------------------------------------


@pytest.fixture
def one_thread():
    """As in the workers: sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.usefixtures("one_thread")
def test_many_tasks_give_what_one_worker_gives_and_dear_ones_start_first(workers, tmp_path):
    seeds = [(seed, str(tmp_path / "log")) for seed in range(250)]
    costs = [float(seed * 37 % 250) for seed in range(250)]
    found = list(Local(workers=workers).map(tasks.largest_singular_value, seeds, costs))
    begun = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(found) == len(begun) == 250
    assert dict(found) == dict(Local().map(tasks.largest_singular_value, seeds, costs))
    processes = {process for process, _ in begun}
    assert str(os.getpid()) not in processes
    assert 2 <= len(processes) <= workers
    taken = {one: [costs[int(seed)] for by, seed in begun if by == one] for one in processes}
    assert all(dear == sorted(dear, reverse=True) for dear in taken.values())  # from one queue
    assert max(dear[0] for dear in taken.values()) == max(costs)  # a late worker finds fewer


KINDS = [Started] + [Forked] * (sys.platform == "linux")


@pytest.fixture(scope="module", params=KINDS, ids=[kind.__name__ for kind in KINDS])
def crew(request):
    """One worker of each kind; a replacement is always started afresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew_module, "can_fork", lambda: request.param is Forked)
        with Crew(1) as one:
            yield one


def test_a_process_that_holds_a_gpu_is_not_copied(monkeypatch):
    assert can_fork() == (sys.platform == "linux")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert not can_fork()


def test_a_worker_has_one_thread_and_its_parent_keeps_what_it_had(crew):
    before = dict(os.environ)
    found = crew.submit(tasks.threads, None).result()
    assert found == {"torch": 1, "libraries": {1}, "limits": {"1"}}
    assert dict(os.environ) == before


def test_an_exception_comes_out_as_itself_and_tells_where_it_arose(crew):
    with pytest.raises(NonFinite, match=r"^task 2 is broken$") as caught:
        crew.submit(tasks.picky, 2).result()
    assert "engine_tasks.py" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("exception", EngineError, "a task raised Stubborn: a fault at home"),
        ("result", EngineError, "a result of type function cannot be sent back"),
        ("exit", SystemExit, "3"),
    ],
)
def test_what_pickle_cannot_carry_is_told(crew, kind, error, message):
    with pytest.raises(error, match=message):
        crew.submit(tasks.awkward, kind).result()


def test_what_a_task_prints_does_not_come_between_the_answers(crew):
    assert crew.submit(tasks.awkward, "noise").result() == "noise"
    assert crew.submit(tasks.awkward, "noise").result() == "noise"


def test_a_task_that_cannot_be_pickled_is_refused(crew):
    with pytest.raises(UsageError, match="a task cannot be sent to another process"):
        crew.submit(abs, lambda: None).result()


def test_a_tensor_travels_without_shared_memory(crew):
    tensor = torch.arange(300_000, dtype=torch.float32)
    assert torch.equal(crew.submit(tasks.negative, tensor).result(), -tensor)
    assert not tensor.is_shared()


def test_a_worker_that_dies_idle_costs_nothing(crew):
    process = crew.submit(tasks.square, 1).result().process
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    after = crew.submit(tasks.square, 2).result()
    assert after.number == 4
    assert after.process != process


def test_a_worker_that_dies_at_work_is_lost_and_replaced(crew, tmp_path):
    lost = crew.submit(tasks.survive, tasks.Fragile(1, str(tmp_path), deaths=1))
    with pytest.raises(Lost, match=r"^killed by SIGKILL$"):
        lost.result()
    assert crew.submit(abs, -1).result() == 1


# ---- deaths ------------------------------------------------------------------------------


def test_a_death_costs_one_task_one_attempt_and_that_is_repeated_last(tmp_path):
    fragile = [tasks.Fragile(n, str(tmp_path), deaths=int(n in (0, 1))) for n in range(10)]
    found = dict(Local(workers=2, retries=1).map(tasks.survive, fragile, [1.0] * 10))
    assert found == {0: 2, 1: 2} | dict.fromkeys(range(2, 10), 1)
    last = (tmp_path / "log").read_text().splitlines()[-4:]
    alone = [["0 begins", "0 ends"], ["1 begins", "1 ends"]]
    assert last in (alone[0] + alone[1], alone[1] + alone[0])


def test_a_task_that_no_worker_survives_is_named(tmp_path):
    fragile = [tasks.Fragile(n, str(tmp_path), deaths=9 * n) for n in range(2)]
    found = Local(workers=2, retries=1).map(tasks.survive, fragile, [1.0, 2.0])
    assert next(found) == (0, 1)
    message = r"task 1 died 2 times \(killed by SIGKILL\): Fragile\(number=1, "
    with pytest.raises(EngineError, match=message):
        next(found)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["0.1", "1.1", "1.2"]


# ---- the end -----------------------------------------------------------------------------


def test_closing_early_ends_what_is_under_way(tmp_path):
    found = Local(workers=2).map(
        tasks.hang_beside,
        [(number, str(tmp_path)) for number in (0, 1, 1, 1)],
        [9.0, 8.0, 1.0, 1.0],
    )
    assert next(found) == (0, 0)
    hung = int((tmp_path / "hangs").read_text())
    assert alive(hung)
    found.close()
    assert not alive(hung)


def test_an_exception_ends_what_is_under_way(tmp_path):
    found = Local(workers=2).map(
        tasks.hang_beside, [(number, str(tmp_path)) for number in (2, 1)], [1.0, 1.0]
    )
    with pytest.raises(NonFinite, match=r"^beside one that hangs$"):
        next(found)
    assert not alive(int((tmp_path / "hangs").read_text()))


# ---- programs ----------------------------------------------------------------------------

START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from tailor.engine import Local
from tests import engine_tasks as tasks
"""


def start(program, folder):
    """Run a program of its own, in a group of processes as a terminal would."""
    script = folder / "program.py"
    script.write_text(START + program)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def test_a_program_needs_no_guard_and_an_interrupt_ends_it_with_its_workers(tmp_path):
    program = """
for found in Local(workers=2).map(tasks.hang_beside, [(0, {0!r}), (1, {0!r})], [1, 1]):
    print(*found, flush=True)
"""
    with start(program.format(str(tmp_path)), tmp_path) as running:
        assert running.stdout.readline() == "0 0\n"
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1  # that of the program; its workers are silent
    assert errors.endswith("KeyboardInterrupt\n")
    assert not alive(int((tmp_path / "hangs").read_text()))


OWN = """
class Number(int):
    pass

def double(number):
    return Number(number + number)

if __name__ == "__main__":
    found = dict(Local(workers=2).map(double, [Number(1), Number(2)], [1, 1]))
    print(found == {0: 2, 1: 4} and all(type(number) is Number for number in found.values()))
"""


def test_what_a_guarded_program_defines_can_be_used(tmp_path):
    with start(OWN, tmp_path) as running:
        output, errors = running.communicate(timeout=60)
    assert (output, errors) == ("True\n", "")


def test_a_worker_starts_no_workers(monkeypatch):
    """As it would when it imports a program that does not guard its last lines."""
    monkeypatch.setenv("TAILOR_WORKER", "1")
    with pytest.raises(UsageError, match="guard the last lines of your script"):
        list(Local(workers=2).map(abs, [1, 2], [1.0, 1.0]))


def test_what_no_worker_can_find_is_refused(crew, monkeypatch):
    monkeypatch.setattr(tasks, "vanished", vanished, raising=False)
    with pytest.raises(UsageError, match=r"cannot find what a task needs .* define it in a module"):
        crew.submit(tasks.vanished, 1).result()


def vanished(number):
    return number


vanished.__module__ = "tests.engine_tasks"
