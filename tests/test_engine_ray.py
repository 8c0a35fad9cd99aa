"""The engine on Ray: the same contract on a real cluster of this machine."""

import os
import secrets
import signal
from threading import Lock

import pytest

from tailor import NonFinite, UsageError
from tailor.engine import Local, Ray
from tailor.errors import EngineError
from tests import engine_tasks as tasks

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


@pytest.fixture(autouse=True, scope="module")
def clean(tmp_path_factory):
    """Outside influence is shut out, and no token is left in the home folder."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        yield


def test_it_starts_a_cluster_gives_what_one_process_gives_and_leaves_nothing(tmp_path):
    seeds = [(seed, str(tmp_path / "log")) for seed in range(210)]
    costs = [float(seed * 37 % 210) for seed in range(210)]
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    found = list(Ray().map(tasks.largest_singular_value, seeds, costs))
    begun = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert not ray.is_initialized()
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
    assert len(found) == len(begun) == 210
    assert str(os.getpid()) not in {process for process, _ in begun}
    assert begun[0][1] in {seed for seed in map(str, range(210)) if costs[int(seed)] >= 206}
    one = Local(workers=2).map(tasks.largest_singular_value, seeds, costs)
    assert dict(found) == dict(one)


@pytest.fixture(scope="module")
def cluster(clean):
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
class TestConnected:
    """A program that is connected to Ray already."""

    def test_the_connection_is_used_and_stays(self):
        assert list(Ray().map(abs, [], [])) == []
        assert list(Ray().map(abs, [-3], [1.0])) == [(0, 3)]
        assert ray.is_initialized()

    def test_each_task_has_one_thread(self):
        ((_, found),) = Ray().map(tasks.threads, [0], [1.0])
        assert found == {"torch": 1, "libraries": {1}, "limits": {"1"}}

    def test_dear_tasks_start_first(self, tmp_path):
        numbers = [(number, str(tmp_path / "log")) for number in range(6)]
        costs = [1.0, 9.0, 2.0, 8.0, 3.0, 7.0]
        found = dict(Ray(cpus_per_task=2).map(tasks.largest_singular_value, numbers, costs))
        assert set(found) == set(range(6))
        begun = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
        assert begun == ["1", "3", "5", "4", "2", "0"]

    def test_an_exception_comes_out_as_itself(self):
        found = Ray().map(tasks.picky, [0, 1, 2, 3], [1.0] * 4)
        with pytest.raises(NonFinite, match=r"^task 2 is broken$") as caught:
            list(found)
        assert "engine_tasks.py" in str(caught.value.__cause__)

    @pytest.mark.parametrize(
        ("kind", "error", "message"),
        [
            ("exception", EngineError, "a task raised Stubborn: a fault at home"),
            ("exit", SystemExit, "3"),
        ],
    )
    def test_what_pickle_cannot_carry_is_told(self, kind, error, message):
        with pytest.raises(error, match=message):
            list(Ray().map(tasks.awkward, [kind], [1.0]))

    def test_a_task_that_cannot_be_pickled_is_refused(self):
        with pytest.raises(UsageError, match="a task cannot be sent to another process"):
            list(Ray().map(abs, [Lock()], [1.0]))

    def test_a_task_whose_worker_is_killed_is_run_again(self, tmp_path):
        fragile = [tasks.Fragile(n, str(tmp_path), deaths=int(n == 1)) for n in range(4)]
        found = dict(Ray(retries=1).map(tasks.survive, fragile, [1.0] * 4))
        assert found == {0: 1, 1: 2, 2: 1, 3: 1}

    def test_a_task_that_no_worker_survives_is_named(self, tmp_path):
        fragile = [tasks.Fragile(7, str(tmp_path), deaths=9)]
        with pytest.raises(EngineError, match=r"task 0 died 2 times .*Fragile\(number=7, "):
            list(Ray(retries=1).map(tasks.survive, fragile, [1.0]))
        assert len(list(tmp_path.glob("7.*"))) == 2

    def test_closing_early_ends_what_is_under_way(self, tmp_path):
        found = Ray().map(
            tasks.hang_beside, [(n, str(tmp_path)) for n in (0, 1, 1)], [9.0, 8.0, 1.0]
        )
        assert next(found) == (0, 0)
        hung = int((tmp_path / "hangs").read_text())
        found.close()
        assert tasks.ends(hung)
        assert list(Ray(cpus_per_task=2).map(abs, [-1], [1.0])) == [(0, 1)]  # both are free

    def test_a_second_address_is_refused(self):
        with pytest.raises(UsageError, match="connected to Ray already; leave out the address 'x'"):
            list(Ray(address="x").map(abs, [1], [1.0]))

    def test_more_processors_than_the_machine_has_are_refused(self):
        with pytest.raises(UsageError, match="wants 3 processors, but the machine has 2"):
            list(Ray(cpus_per_task=3).map(abs, [1], [1.0]))


def test_a_cluster_that_is_not_there_is_told_at_once(clean):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(
        EngineError, match=r"no Ray cluster can be had at 127\.0\.0\.1:9: .*refused"
    ):
        list(Ray(address="127.0.0.1:9").map(abs, [1], [1.0]))
