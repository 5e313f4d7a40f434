"""Many items on an executor: results in order, whatever happens to workers."""

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from solvers.executors import executor
from solvers.executors.spread import chunks, spread, workers_of
from solvers.solution import Status


def square(x):
    return x * x


def die_once(item):
    """Kill the process that this runs in, unless it did so before."""
    number, file, home = item
    if number == 3 and os.getpid() != home and not os.path.exists(file):
        open(file, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(item):
    number, home = item
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(item):
    raise ZeroDivisionError(f"item {item}")


def writeable(array):
    return array.flags.writeable


def linger(item):
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        return "what it has"


@pytest.fixture(scope="module")
def pool():
    with executor("processes:2") as made:
        yield made


def test_results_come_in_order_and_chunks_are_of_one_size(pool):
    assert spread(pool, square, range(10)) == [x * x for x in range(10)]
    assert workers_of(pool) == 2
    parts = chunks(list(range(20)), pool)
    assert [item for part in parts for item in part] == list(range(20))
    assert {len(part) for part in parts} == {2, 3}
    assert chunks([1], pool) == [[1]]


def test_what_a_lost_worker_had_is_done_again(pool, tmp_path):
    items = [(number, str(tmp_path / "died"), os.getpid()) for number in range(6)]
    assert spread(pool, die_once, items) == list(range(6))
    assert (tmp_path / "died").exists()


def test_what_kills_every_worker_is_done_here_at_last(pool):
    assert spread(pool, always_die, [(1, os.getpid())]) == [1]


@pytest.mark.slow
def test_a_broken_pool_of_another_kind_loses_nothing():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as plain:
        items = [(number, os.getpid()) for number in range(3)]
        assert spread(plain, always_die, items) == [0, 1, 2]


def test_exceptions_are_the_functions_own(pool):
    with pytest.raises(ZeroDivisionError, match="item 0"):
        spread(pool, fail, [0])


def test_arrays_that_are_not_written_to_stay_such(pool):
    fixed = np.ones(3)
    fixed.setflags(write=False)
    assert spread(pool, writeable, [fixed, np.ones(3)]) == [False, True]


def test_once_interrupted_workers_here_hand_in_what_they_have(pool):
    looks = iter([None] * 20)
    found = spread(pool, linger, [0, 1, 2], stopped=lambda: next(looks, Status.INTERRUPTED))
    assert found == ["what it has", "what it has", None]


def test_threads_do_as_well_and_progress_is_told():
    told = []
    with ThreadPoolExecutor(2) as threads:
        assert spread(threads, square, [1, 2, 3], progress=lambda: told.append(1)) == [1, 4, 9]
    assert told
