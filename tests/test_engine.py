"""Engines: results come in the order of the tasks, whatever runs where."""

import os
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tailor import Local, NonFinite, UsageError, analyze


class Squared(NamedTuple):
    """A result, and where it was found."""

    number: int
    process: int
    threads: int


def square(number: int) -> Squared:
    return Squared(number * number, os.getpid(), torch.get_num_threads())


def picky(number: int) -> int:
    if number == 2:
        raise NonFinite(f"task {number} is broken")
    return number


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    tasks = [5, 1, 4, 2, 3]
    found = list(Local(workers=workers).map(square, tasks, [1.0, 9.0, 2.0, 8.0, 3.0]))
    assert [result.number for result in found] == [25, 1, 16, 4, 9]
    here = [result.process == os.getpid() for result in found]
    assert here == [workers == 1] * 5
    if workers > 1:  # processes share the cores, so each has one thread
        assert {result.threads for result in found} == {1}


@given(st.lists(st.integers()))
def test_one_worker_is_plain_map(tasks):
    assert list(Local().map(abs, tasks, [1.0] * len(tasks))) == list(map(abs, tasks))


def test_one_worker_stays_here_and_is_lazy():
    seen = []
    found = Local().map(seen.append, [1, 2, 3], [1.0] * 3)
    assert seen == []
    next(found)
    assert seen == [1]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_task_gives_no_result(workers):
    assert list(Local(workers=workers).map(square, [], [])) == []


def test_one_task_starts_no_process():
    (found,) = Local(workers=2).map(square, [3], [1.0])
    assert found.process == os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_comes_back_as_itself_after_the_results_before_it(workers):
    found = Local(workers=workers).map(picky, [0, 1, 2, 3], [1.0] * 4)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(NonFinite, match=r"^task 2 is broken$"):
        next(found)


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers):
    with pytest.raises(UsageError, match=f"workers must be at least 1, but is {workers}"):
        Local(workers=workers)


def test_an_analysis_does_not_depend_on_the_number_of_workers(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": (30, 40), "b": (3, 4), "c": (40, 25)}
    state = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    save_file(state, tmp_path / "m.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums in one order
    try:
        one = analyze(tmp_path / "m.safetensors", engine=Local(workers=1))
    finally:
        torch.set_num_threads(threads)
    assert analyze(tmp_path / "m.safetensors", engine=Local(workers=2)) == one
    assert [layer.name for layer in one.layers] == ["a", "b", "c"]
